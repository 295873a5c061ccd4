"""The queue under random operations by many clients, killed at any statement: caps, dependencies and single execution always hold."""

import asyncio
import contextlib
import shutil
import tempfile
import uuid
from collections import Counter
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from shopfloor.kit.db import Database, db_time
from shopfloor.kit.errors import Problem
from shopfloor.sandboxes.models import SandboxRow
from shopfloor.sandboxes.rules import LIVE
from shopfloor.tasks import graph, queries, service
from shopfloor.tasks.models import Task, TaskDependency
from shopfloor.tasks.rules import may_share
from shopfloor.tasks.steps import dispatch as steps
from shopfloor.tasks.steps.dispatch import dispatch
from shopfloor.tasks.steps.pick import Candidate, pick
from shopfloor.workorders.models import WorkOrder
from shopfloor.workorders.rules import AttemptState
from shopfloor.workorders.steps.terms import terms
from tests.support import postgres
from tests.support.deaths import die_in_time, killed_after
from tests.tasks.world import DONE, Claims, World, opened

HOST, PROJECT, AGENT = 3, 2, 2
"""Fewer places than the projects would take: what leaves one has an heir."""
TICKETS = [None, "tkt-1", "tkt-2"]
PATHS: list[list[str]] = [[], ["src/a/**"], ["src/a/x.py", "docs/*"], ["src/b/**"], ["**/*.md"]]
ENDS = st.sampled_from([DONE, (AttemptState.FAILED,), (AttemptState.LOST,), (AttemptState.CANCELLED,)])


LIFE = st.one_of(st.none(), st.none(), st.integers(0, 60))
"""After how many statements an engine is killed: most are not."""


class Queue(RuleBasedStateMachine):
    """Whatever happens in whatever order."""

    url = ""
    seen: Counter[str]
    """In all examples together: how tasks began that were not simply next, and how often somebody was killed."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.loop = asyncio.new_event_loop()
        self.stack = AsyncExitStack()
        self.tasks: list[tuple[str, int]] = []
        """Each with the number of its project."""
        self.chosen: list[Candidate] = []
        self.ended: dict[str, str] = {}
        self.world: World = self.run(self._open())
        die_in_time(self.world.database)
        self.projects = [
            self.run(self.world.project("a", max_running_tasks=PROJECT)),
            self.run(self.world.project("b", agent="one")),
        ]

    async def _open(self) -> World:
        url = self.url or f"sqlite:///{self.folder / 'q.db'}"
        database = Database(url)
        await database.create_all()
        async with database.transaction() as session:
            for table in (
                "task_dependencies",
                "attempts",
                "artifacts",
                "sandboxes",
                "tasks",
                "work_orders",
                "projects",
            ):
                await session.execute(sa.text(f"DELETE FROM {table}"))
        await database.close()
        agents = {"one": {"adapter": "script", "max_running": AGENT}}
        given = {"max_sandboxes": HOST, "agents": agents, "scheduling": {"retry_seconds": 0.001}}
        return await self.stack.enter_async_context(opened(url, self.folder, **given))

    def run[T](self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    async def _until(self, life: int | None, work: Coroutine[Any, Any, Any]) -> bool:
        """Let something run until it is killed, or to its end; answers whether it lived."""
        killed = await killed_after(work, life)
        self.seen["killed"] += killed
        return not killed

    def teardown(self) -> None:
        self.run(self.stack.aclose())
        self.loop.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @initialize(data=st.data())
    def some(self, data: st.DataObject) -> None:
        for _ in range(4):
            self._make(data)

    def _make(self, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, 1))
        others = [task_id for task_id, there in self.tasks if there == place]
        waits = data.draw(st.lists(st.sampled_from(others), max_size=2)) if others else []
        self._made(
            place,
            ticket_id=data.draw(st.sampled_from(TICKETS)),
            priority=data.draw(st.sampled_from(["low", "CRITICAL"])),
            owned_paths=data.draw(st.sampled_from(PATHS)),
            depends_on=waits,
        )

    def _made(self, place: int, **fields: Any) -> str:
        made = self.run(self.world.task(self.projects[place], max_retries=1, **fields))
        self.tasks.append((made, place))
        return made

    @rule(data=st.data())
    def make(self, data: st.DataObject) -> None:
        self._make(data)

    @rule(lives=st.lists(LIFE, min_size=1, max_size=5))
    def dispatch_by_many_at_once(self, lives: list[int | None]) -> None:
        async def one(claims: Claims) -> None:
            for _ in range(3):
                await dispatch(self.world.tools, claims)

        async def work() -> None:
            engines = [Claims(self.world.tools, f"e{n}") for n in range(len(lives))]
            await asyncio.gather(*map(self._until, lives, map(one, engines)))

        self.run(work())

    @rule(data=st.data(), place=st.integers(0, 1), lives=st.lists(LIFE, min_size=12, max_size=12))
    def one_waits_for_another_and_all_goes_on(self, data: st.DataObject, place: int, lives: list[int | None]) -> None:
        """What chance alone would seldom play to its end."""
        ticket = data.draw(st.sampled_from(TICKETS))
        first = self._made(place, priority="critical", ticket_id=ticket)
        for its in (ticket, None):
            self._made(place, priority="critical", ticket_id=its, depends_on=[first])
        for _ in range(2):
            self.dispatch_by_many_at_once([lives.pop()])
            for task_id in self.run(self.world.running()):
                self._end(task_id, DONE, lives[-1], lives[-2])
            self.sweep(lives.pop())
        self.dispatch_by_many_at_once([None])
        self.nothing_began_before_what_its_ticket_has_was_gathered()
        self.the_board_gathers(lives.pop())
        self.dispatch_by_many_at_once([lives.pop()])

    @rule()
    def an_engine_chooses(self) -> None:
        async def work() -> None:
            async with self.world.database.reading() as session:
                if chosen := await pick(session, self.world.tools.settings):
                    self.chosen.append(chosen)

        self.run(work())

    @precondition(lambda self: self.chosen)
    @rule(life=LIFE)
    def an_engine_starts_what_it_chose_long_ago(self, life: int | None) -> None:
        chosen, tools = self.chosen.pop(0), self.world.tools

        async def work() -> None:
            choice = steps.Choice(chosen, await terms(tools, steps._asked(chosen)))
            with contextlib.suppress(steps.NoPlace):
                async with tools.database.transaction() as session:
                    await steps._start(tools, session, self.world.claims, choice)

        self.run(self._until(life, work()))

    @precondition(lambda self: self.run(self.world.running()))
    @rule(data=st.data(), path=ENDS, heir=LIFE, life=LIFE, heard=st.booleans())
    def an_attempt_ends(
        self, data: st.DataObject, path: tuple[AttemptState, ...], heir: int | None, life: int | None, heard: bool
    ) -> None:
        """`heir`, `life`: when the engine is killed that says who takes its place, or that ends it; `heard` False: before it follows the order."""
        self._end(data.draw(st.sampled_from(self.run(self.world.running()))), path, heir, life, heard=heard)

    def _end(
        self, task_id: str, path: tuple[AttemptState, ...], heir: int | None, life: int | None, heard: bool = True
    ) -> None:
        before = self.run(self.world.running())
        self._appoint(task_id, heir)
        self.run(self._until(life, self.world.ends(task_id, *path, heard=heard)))
        for begun in set(self.run(self.world.running())) - set(before):
            waited = self.run(self._all(sa.select(TaskDependency).filter_by(task_id=begun, depends_on=task_id)))
            self.seen["successor" if waited else "heir"] += 1

    def _appoint(self, task_id: str, life: int | None) -> None:
        sandbox_id = self.run(self.world.show(task_id)).sandbox_id or ""
        if sandbox_id not in self.world.tools.heirs:
            self.run(self._until(life, steps.appoint(self.world.tools, self.world.claims, sandbox_id)))

    @precondition(lambda self: self.run(self.world.running()))
    @rule(data=st.data(), life=LIFE)
    def a_place_gets_an_heir_early(self, data: st.DataObject, life: int | None) -> None:
        self._appoint(data.draw(st.sampled_from(self.run(self.world.running()))), life)

    @rule(life=LIFE)
    def the_board_gathers(self, life: int | None) -> None:
        async def work() -> None:
            for row in await self._all(sa.select(Task.task_id).where(Task.status == "completed", ~Task.gathered)):
                async with self.world.database.transaction() as session:
                    await service.note_gathered(session, row[0])

        self.run(self._until(life, work()))

    @rule(life=LIFE)
    def a_waiting_order_gets_its_next_attempt(self, life: int | None) -> None:
        async def work() -> None:
            async with self.world.database.transaction() as session:
                await session.execute(sa.update(WorkOrder).values(not_before=db_time(-1)))
                await self.world.claims.claim(session)

        self.run(self._until(life, work()))

    @rule(life=LIFE)
    def sweep(self, life: int | None) -> None:
        async def work() -> None:
            while left := await self._astray():  # again: what starts behind one may take another's order on
                for order_id in left:
                    await steps.follow(self.world.tools, self.world.claims, order_id)

        if self.run(self._until(life, work())):
            self.run(self._nothing_is_astray())

    async def _astray(self) -> Sequence[str]:
        async with self.world.database.reading() as session:
            return await queries.astray(session)

    async def _nothing_is_astray(self) -> None:
        """Each task stands where its order does, in the sandbox that is its order's."""
        query = (
            sa.select(Task.task_id, Task.sandbox_id, WorkOrder.sandbox_identifier, WorkOrder.status)
            .join(WorkOrder, WorkOrder.agent_work_order_id == Task.work_order_id)
            .where(Task.status == "running")
        )
        rows = await self._all(query)
        assert all(row[1] == row[2] and row[3] in {"pending", "running"} for row in rows), rows

    @rule(data=st.data())
    def clients_do_this_and_that_at_once(self, data: st.DataObject) -> None:
        what = st.tuples(
            st.sampled_from(["cancel", "retry", "force", "depend", "replace", "hold", "release"]),
            st.sampled_from([task_id for task_id, _ in self.tasks]),
            st.sampled_from([task_id for task_id, _ in self.tasks]),
        )
        acts = data.draw(st.lists(st.tuples(what, LIFE), min_size=1, max_size=4))

        async def work() -> None:
            await asyncio.gather(*(self._until(life, self._act(*act)) for act, life in acts))

        self.run(work())

    async def _act(self, verb: str, task_id: str, other: str) -> None:
        scheduling = self.world.tools.settings.scheduling
        with contextlib.suppress(Problem):
            async with self.world.database.transaction() as session:
                if verb == "cancel":
                    await service.cancel(session, task_id)
                elif verb == "retry":
                    await service.retry(session, task_id, reason="again", scheduling=scheduling)
                elif verb == "force":
                    await service.force(session, task_id)
                elif verb == "depend":
                    await graph.depend(session, await graph.locked(session, task_id), [other])
                elif verb == "replace":
                    await graph.replace(session, await graph.locked(session, task_id), [other])
                else:
                    ticket = (await queries.get(session, task_id)).ticket_id
                    await service.hold(session, ticket or "", held=verb == "hold", why="")

    async def _all(self, query: sa.Executable) -> list[Any]:
        async with self.world.database.reading() as session:
            return list((await session.execute(query)).all())

    @invariant()
    def the_caps_hold(self) -> None:
        live = self.run(self._all(sa.select(SandboxRow.work_order_id).where(SandboxRow.state.in_(LIVE))))
        running = self.run(
            self._all(
                sa.select(Task.project_id, WorkOrder.agent)
                .join(WorkOrder, WorkOrder.agent_work_order_id == Task.work_order_id)
                .where(Task.status == "running")
            )
        )
        assert len(live) <= HOST
        assert len(set(live)) == len(live), "an order in two sandboxes"
        assert Counter(row[0] for row in running)[self.projects[0]] <= PROJECT
        assert Counter(row[1] for row in running)["one"] <= AGENT

    @invariant()
    def no_two_that_share_files_run(self) -> None:
        rows = self.run(self._all(sa.select(Task.project_id, Task.owned_paths).where(Task.status == "running")))
        for place, (project, paths) in enumerate(rows):
            assert not any(may_share(paths, other) for there, other in rows[place + 1 :] if there == project)

    @invariant()
    def a_task_has_one_order_and_an_order_one_task(self) -> None:
        orders = self.run(self._all(sa.select(WorkOrder.task_id, WorkOrder.status)))
        assert all(count == 1 for count in Counter(row[0] for row in orders).values())
        held = [row[0] for row in self.run(self._all(sa.select(Task.work_order_id))) if row[0]]
        assert len(held) == len(set(held)) == len(orders)

    @invariant()
    def nothing_runs_or_ran_before_what_it_waits_for(self) -> None:
        dependency = sa.orm.aliased(Task)
        query = (
            sa.select(dependency.status)
            .join(TaskDependency, TaskDependency.depends_on == dependency.task_id)
            .join(Task, Task.task_id == TaskDependency.task_id)
            .where(Task.status == "running")
        )
        waited = [row[0] for row in self.run(self._all(query))]
        assert set(waited) <= {"completed"}
        self.seen["dependent"] += len(waited)

    @invariant()
    def nothing_began_before_what_its_ticket_has_was_gathered(self) -> None:
        made = sa.orm.aliased(Task)
        query = (
            sa.select(Task.task_id, made.task_id)
            .join(made, made.ticket_id == Task.ticket_id)
            .where(Task.status == "running", made.status == "completed", ~made.gathered)
            .where(made.ended_at < Task.started_at)
        )
        assert self.run(self._all(query)) == []

    @invariant()
    def the_counts_are_true_and_there_is_no_circle(self) -> None:
        tasks = {
            row[0]: row for row in self.run(self._all(sa.select(Task.task_id, Task.status, Task.open_dependencies)))
        }
        edges = self.run(self._all(sa.select(TaskDependency.task_id, TaskDependency.depends_on)))
        for task_id, _, count in tasks.values():
            assert count == sum(one == task_id and tasks[other][1] != "completed" for one, other in edges)
        left = {tuple(edge) for edge in edges}
        while leaves := {edge for edge in left if edge[1] not in {one for one, _ in left}}:
            left -= leaves
        assert not left

    @invariant()
    def what_is_completed_stays_so(self) -> None:
        now = dict(map(tuple, self.run(self._all(sa.select(Task.task_id, Task.status)))))
        assert all(now[task_id] == "completed" for task_id in self.ended)
        self.ended |= {task_id: status for task_id, status in now.items() if status == "completed"}


@pytest.fixture
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "sqlite":
        yield ""
    else:
        yield postgres.new_database(request.getfixturevalue("postgres_folder"), f"t{uuid.uuid4().hex}")


@pytest.mark.slow
@pytest.mark.parametrize("url", ["sqlite", "postgresql"], indirect=True)
def test_the_law_of_the_queue_holds_whatever_happens(url: str) -> None:
    """W08, W09, W16, W19."""
    seen: Counter[str] = Counter()
    kind = type("QueueOver", (Queue,), {"url": url, "seen": seen})
    suppressed = list(HealthCheck)
    limits = settings(max_examples=10, stateful_step_count=25, deadline=None, suppress_health_check=suppressed)
    run_state_machine_as_test(kind, settings=limits)
    assert {"dependent", "heir", "successor", "killed"} <= set(seen), seen
