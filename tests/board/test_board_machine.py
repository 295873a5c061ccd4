"""The whole board under random operations by many clients at once, some of them killed in the middle: its law holds, always."""

import asyncio
import contextlib
import shutil
import tempfile
import uuid
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import orjson
import pytest
import sqlalchemy as sa
import structlog
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from shopfloor.board.rules.fold import Board
from shopfloor.events.log import START
from shopfloor.events.models import EventRow
from shopfloor.kit import log
from tests.board import desk as desks
from tests.board.deeds import CRITERION, DEEDS, OFTEN
from tests.board.folding import followed, looked, tables
from tests.board.law import Law
from tests.support import postgres
from tests.support.deaths import die_in_time, killed_after

LIMITS = {"analyzing": 2, "building": 2, "testing": 1}
GATES = {"building": [{"kind": "tasks_done"}]}
FROM_BUILDING = [("transition", 3), ("transition", 4), ("passed", 0), ("transition", 5)]
TO_DONE = [("approve", 0), ("transition", 1), ("transition", 2), ("complete", 0), ("head", 0), *FROM_BUILDING]
REOPENED = [("head", 1), *FROM_BUILDING, ("criteria", 0), ("advance", 0)]
BY_ITSELF = [("transition", 3), ("transition", 4), ("advance", 0), ("run", 0), ("advance", 0)]
MERGED = [("union", 1), ("merge", 0), ("transition", 2), ("union", 1), ("union", 2), ("criteria", 0), ("change", 0)]
WAY = [*TO_DONE, *REOPENED, *BY_ITSELF, *MERGED, ("retire", 0), ("head", 2), *FROM_BUILDING]
"""All that a ticket can live through. Each deed names where it leads, so that whoever got no answer may do it again."""
REACHED = {
    *["killed", "done", "its head moved", "not proven any more", "merged", "begun anew", "conflicts", "no conflicts"],
    *["criterion added", "criterion changed", "criterion retired"],
}
FULL = [(1, ("transition", 1)), (2, ("transition", 1)), (0, ("approve", 0)), (0, ("transition", 1))]
REFUSED = [(0, ("transition", 1)), *FULL, (1, ("transition", 0)), (2, ("transition", 0))]
"""Which ticket does what: the first wants to begin before it is approved, then where no place is left."""
DIES = st.one_of(st.none(), st.none(), st.integers(0, 60))
WISH = st.tuples(st.sampled_from([*DEEDS, *OFTEN]), st.integers(0, 5), DIES)
"""A deed, which way of it, and how many statements its client lives for."""


class WholeBoard(RuleBasedStateMachine):
    """Whatever happens in whatever order: limits, gates, approval, history."""

    seen: ClassVar[set[str]] = set()
    """What was reached in any example."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="sf-"))
        self.stack = contextlib.AsyncExitStack()
        self.tickets: list[str] = []
        self.read = 0
        self.clients: list[tuple[Board, Any]] = [({}, START)]
        """What clients make of the log since they looked at the board: the first never did, the other while something else happened."""

    def run[T](self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        self.run(self.stack.aclose())
        self.loop.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @initialize(data=st.data())
    def open(self, data: st.DataObject) -> None:
        url = self.make_url()
        self.desk = self.run(self.stack.enter_async_context(desks.desk(url, self.folder)))
        die_in_time(self.desk.database)
        self.run(self.desk.project(wip_limits=LIMITS, gates=GATES, autonomy=True))
        self.law = Law(LIMITS, one_writer=self.desk.database.sqlite)
        for number in range(3):
            self.create(approval=number == 0)
        for number, deed in [*REFUSED, *((0, deed) for deed in WAY)]:
            self.surely(data, self.tickets[number], deed)

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
        del self.clients[1:]
        self.run(self.at_once([self.drawn(data) for _ in range(number)]))

    @rule(data=st.data())
    def rush(self, data: st.DataObject) -> None:
        """One ticket goes to done, if it may, while something else happens at each step."""
        del self.clients[1:]
        ticket = data.draw(st.sampled_from(self.tickets))
        for deed in TO_DONE:
            self.surely(data, ticket, deed, self.drawn(data))

    def drawn(self, data: st.DataObject) -> tuple[str, str, int, int | None]:
        return data.draw(st.sampled_from(self.tickets)), *data.draw(WISH)

    def surely(
        self, data: st.DataObject, ticket: str, deed: tuple[str, int], *others: tuple[str, str, int, int | None]
    ) -> None:
        """One deed, done again when its client died."""
        died = self.run(self.at_once([(ticket, *deed, data.draw(DIES)), *others]))
        if died[0]:
            self.run(self.at_once([(ticket, *deed, None)]))

    async def at_once(self, wishes: Sequence[tuple[str, str, int, int | None]]) -> list[bool]:
        """What many do in the same moment, and what is true afterwards; answers which of them died."""
        work = [killed_after(DEEDS[kind](self.desk, ticket, pick), left) for ticket, kind, pick, left in wishes]
        looks = [] if len(self.clients) > 1 else [looked(self.desk)]
        died, new = await asyncio.gather(asyncio.gather(*work), asyncio.gather(*looks))
        self.seen.update({"killed"} if any(died) else ())
        self.clients += new
        await self.law_holds()
        return list(died)

    async def law_holds(self) -> None:
        async with self.desk.database.reading() as session:
            told = sa.select(EventRow.event_type, EventRow.payload, EventRow.id).where(EventRow.id > self.read)
            rows = (await session.execute(told.order_by(EventRow.id))).all()
        self.read = rows[-1][2] if rows else self.read
        self.law.check([(row[0], orjson.loads(row[1])) for row in rows])
        self.seen.update(self.law.seen)
        right = await tables(self.desk.database)
        self.clients = [await followed(self.desk.database, *client) for client in self.clients]
        for board, _ in self.clients:
            assert board == right


RUN = settings(
    max_examples=5,
    stateful_step_count=10,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
"""A failure is told as it was met: to make it smaller takes many minutes, and clients meet in another order each time."""


def check(machine: type[WholeBoard]) -> None:
    """Run it, and see that what it is about was really met."""
    machine.seen = set()
    run_state_machine_as_test(machine, settings=RUN)
    assert machine.seen >= REACHED


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Each death is a failed request to the server; to print their tracebacks would take longer than the test."""
    log.configure("critical")
    yield
    structlog.reset_defaults()


def test_the_law_of_the_board_holds_on_sqlite() -> None:
    check(WholeBoard)


@pytest.fixture
def on_postgres(postgres_folder: str) -> type[WholeBoard]:
    class OnPostgres(WholeBoard):
        def make_url(self) -> str:
            return postgres.new_database(postgres_folder, f"t{uuid.uuid4().hex}")

    return OnPostgres


def test_the_law_of_the_board_holds_on_postgresql(on_postgres: type[WholeBoard]) -> None:
    check(on_postgres)
