"""The queue under random operations by many clients, with kills between them: caps, dependencies and single execution always hold."""

import asyncio
import contextlib
import shutil
import tempfile
import uuid
from collections import Counter
from collections.abc import Coroutine, Iterator
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
from tests.tasks.world import DONE, Claims, World, opened

HOST, PROJECT, AGENT = 4, 2, 2
PATHS: list[list[str]] = [[], ["src/a/**"], ["src/a/x.py", "docs/*"], ["src/b/**"], ["**/*.md"]]
ENDS = st.sampled_from([DONE, (AttemptState.FAILED,), (AttemptState.LOST,), (AttemptState.CANCELLED,)])


class Killed(Exception):
    """kill -9 within a transaction: nothing of it stays."""


class Mortal(Claims):
    """An engine that dies after it has claimed, before its transaction is through."""

    async def claim(self, session: Any) -> Any:
        await super().claim(session)
        raise Killed


class Queue(RuleBasedStateMachine):
    """Whatever happens in whatever order."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.loop = asyncio.new_event_loop()
        self.stack = AsyncExitStack()
        self.tasks: list[str] = []
        self.chosen: list[Candidate] = []
        self.ended: dict[str, str] = {}
        self.world: World = self.run(self._open())
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
        waits = data.draw(st.lists(st.sampled_from(self.tasks), max_size=2)) if self.tasks else []
        priority, paths = data.draw(st.sampled_from(["low", "CRITICAL"])), data.draw(st.sampled_from(PATHS))

        async def work() -> None:
            with contextlib.suppress(Problem):
                fields = {"priority": priority, "owned_paths": paths, "depends_on": waits, "max_retries": 1}
                self.tasks.append(await self.world.task(self.projects[place], ticket_id="tkt-1", **fields))

        self.run(work())

    @rule(data=st.data())
    def make(self, data: st.DataObject) -> None:
        self._make(data)

    @rule(engines=st.integers(1, 5), mortal=st.booleans())
    def dispatch_by_many_at_once(self, engines: int, mortal: bool) -> None:
        async def one(claims: Claims) -> None:
            with contextlib.suppress(Killed):
                for _ in range(3):
                    await dispatch(self.world.tools, claims)

        async def work() -> None:
            kinds = [Mortal if mortal and n == 0 else Claims for n in range(engines)]
            await asyncio.gather(*(one(kind(self.world.tools, f"e{n}")) for n, kind in enumerate(kinds)))

        self.run(work())

    @rule()
    def an_engine_chooses(self) -> None:
        async def work() -> None:
            async with self.world.database.reading() as session:
                if chosen := await pick(session, self.world.tools.settings):
                    self.chosen.append(chosen)

        self.run(work())

    @precondition(lambda self: self.chosen)
    @rule()
    def an_engine_starts_what_it_chose_long_ago(self) -> None:
        chosen, tools = self.chosen.pop(0), self.world.tools

        async def work() -> None:
            choice = steps.Choice(chosen, await terms(tools, steps._asked(chosen)))
            with contextlib.suppress(steps.NoPlace):
                async with tools.database.transaction() as session:
                    await steps._start(tools, session, self.world.claims, choice)

        self.run(work())

    @precondition(lambda self: self.run(self.world.running()))
    @rule(data=st.data(), mortal=st.booleans())
    def a_place_gets_an_heir(self, data: st.DataObject, mortal: bool) -> None:
        """Who takes it when its attempt ends; a mortal one is killed while it does."""
        task = self.run(self.world.show(data.draw(st.sampled_from(self.run(self.world.running())))))
        claims = (Mortal if mortal else Claims)(self.world.tools)
        self.run(steps.appoint(self.world.tools, claims, task.sandbox_id or ""))

    @precondition(lambda self: self.run(self.world.running()))
    @rule(data=st.data(), path=ENDS, heard=st.booleans())
    def an_attempt_ends(self, data: st.DataObject, path: tuple[AttemptState, ...], heard: bool) -> None:
        """`heard` False: the engine is killed before it follows the order."""
        task_id = data.draw(st.sampled_from(self.run(self.world.running())))

        self.run(self.world.ends(task_id, *path, heard=heard))

    @rule()
    def a_waiting_order_gets_its_next_attempt(self) -> None:
        async def work() -> None:
            async with self.world.database.transaction() as session:
                await session.execute(sa.update(WorkOrder).values(not_before=db_time(-1)))
                await self.world.claims.claim(session)

        self.run(work())

    @rule(mortal=st.booleans())
    def sweep(self, mortal: bool) -> None:
        async def work() -> None:
            claims = (Mortal if mortal else Claims)(self.world.tools)
            async with self.world.database.reading() as session:
                left = await queries.astray(session)
            for order_id in left:
                await steps.follow(self.world.tools, claims, order_id)

        self.run(work())

    @rule(data=st.data())
    def clients_do_this_and_that_at_once(self, data: st.DataObject) -> None:
        what = st.tuples(
            st.sampled_from(["cancel", "retry", "force", "depend", "replace", "hold", "release"]),
            st.sampled_from(self.tasks),
            st.sampled_from(self.tasks),
        )
        acts = data.draw(st.lists(what, min_size=1, max_size=4))

        async def work() -> None:
            await asyncio.gather(*(self._act(*act) for act in acts))

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
                    await service.hold(session, "tkt-1", held=verb == "hold", why="")

    async def _all(self, query: sa.Executable) -> list[Any]:
        async with self.world.database.reading() as session:
            return list((await session.execute(query)).all())

    @invariant()
    def the_caps_hold(self) -> None:
        live = self.run(self._all(sa.select(SandboxRow.sandbox_id).where(SandboxRow.state.in_(LIVE))))
        running = self.run(
            self._all(
                sa.select(Task.project_id, WorkOrder.agent)
                .join(WorkOrder, WorkOrder.agent_work_order_id == Task.work_order_id)
                .where(Task.status == "running")
            )
        )
        assert len(live) <= HOST
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
            sa.select(Task.task_id)
            .join(TaskDependency, TaskDependency.task_id == Task.task_id)
            .join(dependency, dependency.task_id == TaskDependency.depends_on)
            .where(Task.status == "running", dependency.status != "completed")
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
    kind = type("QueueOver", (Queue,), {"url": url})
    suppressed = list(HealthCheck)
    limits = settings(max_examples=10, stateful_step_count=25, deadline=None, suppress_health_check=suppressed)
    run_state_machine_as_test(kind, settings=limits)
