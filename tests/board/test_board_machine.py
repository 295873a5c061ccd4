"""The whole board under random operations by many clients at once, some of them killed in the middle: its law holds, always."""

import asyncio
import contextlib
import shutil
import tempfile
import uuid
from collections.abc import Coroutine, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import orjson
import pytest
import sqlalchemy as sa
import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from sqlalchemy.ext.asyncio import AsyncEngine

from shopfloor.board import queries
from shopfloor.board.models import Ticket
from shopfloor.board.rules import MAY_COST, ORDER, is_forward
from shopfloor.board.rules.fold import Board, Card, apply
from shopfloor.board.steps.advance import advance
from shopfloor.events.models import EventRow
from shopfloor.kit import log
from shopfloor.kit.errors import Problem
from tests.board import desk as desks
from tests.board.desk import Desk
from tests.support import postgres

LIMITS = {"analyzing": 2, "building": 2, "testing": 1}
CRITERION = {"text": "It holds", "check": {"kind": "command", "command": "true"}}
HEADS = ["a" * 40, "b" * 40, "c" * 40]
GATES = {"building": [{"kind": "tasks_done"}]}
"""Git is asked elsewhere: here heads are only names."""


async def over_http(desk: Desk, method: str, path: str, body: Any = None) -> None:
    """One wish; a refusal is an answer, a failure is not."""
    answer = await desk.client.request(method, f"/api/v1{path}", json=body)
    assert answer.status_code < 500, answer.text


async def tell_head(desk: Desk, ticket: str, head: str) -> None:
    await desk.set_head(ticket, head)


async def advanced(desk: Desk, ticket: str) -> None:
    with contextlib.suppress(Problem):
        await advance(desk.tools, ticket)


async def end_tasks(desk: Desk, ticket: str, status: str) -> None:
    for task in (await desk.get("/tasks", ticket=ticket))["tasks"]:
        await over_http(desk, "POST", f"/results/{task['task_id']}", {"status": status, "summary": "said"})


def operation(desk: Desk, kind: str, ticket: str, pick: int) -> Coroutine[Any, Any, None]:
    """One thing that a client, or the board itself, does to a ticket."""
    column = ORDER[pick % len(ORDER)]
    wishes: dict[str, tuple[str, str, Any]] = {
        "progress": ("POST", f"/tickets/{ticket}/progress", {}),
        "transition": ("POST", f"/tickets/{ticket}/transition", {"to_status": column}),
        "board": ("POST", "/board/move", {"ticket_id": ticket, "target_phase": column}),
        "patch": ("PATCH", f"/tickets/{ticket}", {"status": column, "title": f"Title {pick}"}),
        "regress": ("POST", f"/tickets/{ticket}/regress", {}),
        "approve": ("POST", "/tickets/approve", {"ticket_id": ticket}),
        "reject": ("POST", "/tickets/reject", {"ticket_id": ticket}),
        "block": ("POST", f"/tickets/{ticket}/block", {}),
        "unblock": ("POST", f"/tickets/{ticket}/unblock", {}),
        "archive": ("DELETE", f"/tickets/{ticket}", None),
        "criteria": ("POST", f"/tickets/{ticket}/criteria", [CRITERION]),
        "task": ("POST", "/tasks", {"project": "p", "ticket_id": ticket, "phase": column, "title": "do"}),
    }
    if kind in wishes:
        return over_http(desk, *wishes[kind])
    if kind == "head":
        return tell_head(desk, ticket, HEADS[pick % len(HEADS)])
    if kind in {"passed", "failed"}:
        return desk.prove(ticket, kind)
    if kind in {"complete", "fail"}:
        return end_tasks(desk, ticket, {"complete": "completed", "fail": "failed"}[kind])
    return advanced(desk, ticket)


KINDS = [
    *["progress", "advance", "advance", "transition", "board", "patch", "regress", "approve", "reject", "block"],
    *["unblock", "archive", "criteria", "task", "head", "passed", "passed", "failed", "complete", "complete", "fail"],
]


class Killed(Exception):
    """The process died here: what was not committed is gone, what comes after does not come."""


LEFT: ContextVar[list[int] | None] = ContextVar("LEFT", default=None)
"""Statements, commits among them, that the client of this context still lives for."""


def die_in_time(engine: AsyncEngine) -> None:
    """Let clients die at any statement, or just before their commit."""

    def tick(*_: Any) -> None:
        if (left := LEFT.get()) is not None:
            left[0] -= 1
            if left[0] < 0:
                raise Killed

    sa.event.listen(engine.sync_engine, "before_cursor_execute", tick)
    sa.event.listen(engine.sync_engine, "commit", tick)


async def killed_after(work: Coroutine[Any, Any, None], statements: int | None) -> None:
    """Let something run, for so many statements at most."""
    LEFT.set(None if statements is None else [statements])
    with contextlib.suppress(Killed):
        await work


def check_facts(rows: list[tuple[str, dict[str, Any]]]) -> None:
    """Every step forward that the log tells of, in the order it was written: the law held when it was made."""
    board: Board = {}
    for kind, payload in rows:
        if kind == "TICKET_TRANSITIONED" and is_forward(payload["before"], payload["after"]):
            check_step(board, board[payload["ticket_id"]], payload)
        board = apply(board, kind, payload)


def check_step(board: Board, card: Card, step: dict[str, Any]) -> None:
    assert card.status == step["before"], step
    assert ORDER.index(step["after"]) == ORDER.index(step["before"]) + 1, step
    assert card.approval in MAY_COST, step
    assert not card.is_blocked, step
    limit = LIMITS.get(step["after"])
    assert limit is None or sum(one.status == step["after"] for one in board.values()) < limit, step
    if step["before"] == "analyzing":
        assert card.criteria, step
    if step["before"] in {"building", "building-done", "testing"}:
        own = [status for phase, status in card.tasks.values() if phase == step["before"]]
        assert set(own) <= {"completed", "cancelled"}, step
    if step["after"] == "done":
        assert {proof.standing for proof in card.criteria.values()} == {"passed"}, step


class WholeBoard(RuleBasedStateMachine):
    """Whatever happens in whatever order: limits, gates, approval, history."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="sf-"))
        self.stack = contextlib.AsyncExitStack()
        self.tickets: list[str] = []

    def run[T](self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        self.run(self.stack.aclose())
        self.loop.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @initialize()
    def open(self) -> None:
        url = self.make_url()
        self.desk = self.run(self.stack.enter_async_context(desks.desk(url, self.folder)))
        for engine in {self.desk.database.writer, self.desk.database.reader}:
            die_in_time(engine)
        self.run(self.desk.project(wip_limits=LIMITS, gates=GATES, autonomy=True))
        for number in range(3):
            self.create(approval=number == 0)

    def make_url(self) -> str:
        return f"sqlite:///{self.folder / 'shopfloor.db'}"

    def create(self, *, approval: bool) -> None:
        wish: dict[str, Any] = {
            "criteria": [CRITERION],
            "require_approval": approval,
            "tasks": [{"title": "do", "phase": "building"}],
        }
        self.tickets.append(self.run(self.desk.ticket(f"Number {len(self.tickets)}", **wish)))

    @precondition(lambda self: len(self.tickets) < 6)
    @rule(approval=st.booleans())
    def another(self, approval: bool) -> None:
        self.create(approval=approval)

    @rule(data=st.data(), number=st.integers(1, 6))
    def many_at_once(self, data: st.DataObject, number: int) -> None:
        wish = st.tuples(
            st.sampled_from(KINDS),
            st.sampled_from(self.tickets),
            st.integers(0, 5),
            st.one_of(st.none(), st.none(), st.integers(0, 60)),
        )
        drawn = [data.draw(wish) for _ in range(number)]
        work = [killed_after(operation(self.desk, kind, ticket, pick), left) for kind, ticket, pick, left in drawn]
        self.run(self.all(work))
        self.run(self.law_holds())

    async def all(self, work: list[Coroutine[Any, Any, None]]) -> None:
        await asyncio.gather(*(asyncio.create_task(one) for one in work))

    async def law_holds(self) -> None:
        async with self.desk.database.reading() as session:
            told = sa.select(EventRow.event_type, EventRow.payload, EventRow.xid, EventRow.id).order_by(EventRow.id)
            rows = (await session.execute(told)).all()
            live = (await session.scalars(sa.select(Ticket).where(Ticket.archived_at.is_(None)))).all()
            tables = await queries.cards(session, live)
        check_facts([(row[0], orjson.loads(row[1])) for row in rows])
        board: Board = {}
        for row in sorted(rows, key=lambda row: (row[2], row[3])):
            board = apply(board, row[0], orjson.loads(row[1]))
        assert board == tables


RUN = settings(max_examples=8, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Each death is a failed request to the server; to print their tracebacks would take longer than the test."""
    log.configure("critical")
    yield
    structlog.reset_defaults()


def test_the_law_of_the_board_holds_on_sqlite() -> None:
    run_state_machine_as_test(WholeBoard, settings=RUN)


@pytest.fixture
def on_postgres(postgres_folder: str) -> type[WholeBoard]:
    class OnPostgres(WholeBoard):
        def make_url(self) -> str:
            return postgres.new_database(postgres_folder, f"t{uuid.uuid4().hex}")

    return OnPostgres


def test_the_law_of_the_board_holds_on_postgresql(on_postgres: type[WholeBoard]) -> None:
    run_state_machine_as_test(on_postgres, settings=RUN)
