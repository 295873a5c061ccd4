"""The queue under random interleavings of claim, loss, completion, cancel and retry by many claimers."""

import asyncio
import contextlib
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shopfloor.kit.config import Settings
from shopfloor.kit.db import Database, db_time
from shopfloor.kit.errors import Conflict
from shopfloor.sandboxes.models import SandboxRow
from shopfloor.sandboxes.rules import LIVE, SandboxState
from shopfloor.sandboxes.service import Sandboxes
from shopfloor.workorders import queries, service
from shopfloor.workorders.models import Attempt, WorkOrder
from shopfloor.workorders.rules import AttemptState, OrderStatus
from shopfloor.workorders.steps.conclude import decide

CAP = 2
NEW: dict[str, Any] = {
    "repository_url": "/r",
    "workflow_type": "agent_workflow_build",
    "sandbox_type": "local",
    "agent": "script",
    "agent_options": {},
    "initial_prompt": "",
    "max_attempts": 2,
    "timeout_seconds": 60.0,
    "allow_no_isolation": False,
}


class Queue(RuleBasedStateMachine):
    """Whatever happens in whatever order, the law of the queue holds."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.database = Database(f"sqlite:///{self.folder.name}/q.db")
        self.sandboxes = Sandboxes(
            Settings(data_dir=Path(self.folder.name), max_sandboxes=CAP), self.database, "host-q"
        )
        self.run(self.database.create_all())
        self.completed: set[str] = set()
        self.orders: list[str] = []

    def run[T](self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        self.run(self.database.close())
        self.loop.close()
        self.folder.cleanup()

    @rule()
    def create(self) -> None:
        async def work() -> str:
            async with self.database.transaction() as session:
                return (await service.create(session, **NEW)).agent_work_order_id

        self.orders.append(self.run(work()))

    @rule(claimers=st.integers(1, 4))
    def claim(self, claimers: int) -> None:
        async def one(number: int) -> None:
            async with self.database.transaction() as session:
                await session.execute(sa.update(WorkOrder).values(not_before=db_time(-1)))
                await service.claim(session, self.sandboxes, f"engine-{number}")

        async def work() -> None:
            await asyncio.gather(*(one(number) for number in range(claimers)))

        self.run(work())

    @precondition(lambda self: self.orders)
    @rule(data=st.data(), end=st.sampled_from([AttemptState.LOST, AttemptState.FAILED, AttemptState.CANCELLED]))
    def end(self, data: st.DataObject, end: AttemptState) -> None:
        self.run(self._end(data.draw(st.sampled_from(self.orders)), [end]))

    @precondition(lambda self: self.orders)
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        path = [AttemptState.PREPARING, AttemptState.RUNNING, AttemptState.DELIVERING, AttemptState.DONE]
        self.run(self._end(data.draw(st.sampled_from(self.orders)), path))

    async def _end(self, order_id: str, path: list[AttemptState]) -> None:
        async with self.database.transaction() as session:
            order = await queries.get(session, order_id)
            attempt = await queries.current_attempt(session, order_id)
            if attempt is None or queries.ended(attempt):
                return
            for state in path:
                await service.step_attempt(session, attempt, state, reason="because")
            await decide(session, order, attempt)
            if order.status == OrderStatus.COMPLETED:
                assert order_id not in self.completed
                self.completed.add(order_id)
        await self.sandboxes.move(attempt.sandbox_id, SandboxState.TERMINATED)

    @precondition(lambda self: self.orders)
    @rule(data=st.data())
    def cancel_or_retry(self, data: st.DataObject) -> None:
        order_id, retry = data.draw(st.sampled_from(self.orders)), data.draw(st.booleans())

        async def work() -> None:
            async with self.database.transaction() as session:
                order = await queries.get(session, order_id)
                if retry:
                    await service.retry(session, order, prompt="", agent=None, model=None, account=None)
                else:
                    await service.request_cancel(session, order)

        with contextlib.suppress(Conflict):
            self.run(work())

    async def _read(self, query: sa.Executable) -> list[Any]:
        async with self.database.reading() as session:
            return list((await session.execute(query)).all())

    @invariant()
    def the_cap_holds(self) -> None:
        live = self.run(self._read(sa.select(SandboxRow.sandbox_id).where(SandboxRow.state.in_(LIVE))))
        assert len(live) <= CAP

    @invariant()
    def a_running_order_has_exactly_one_open_attempt_and_no_other_has_any(self) -> None:
        rows = self.run(self._read(sa.select(Attempt.work_order_id, Attempt.ended_at)))
        status = dict(self.run(self._read(sa.select(WorkOrder.agent_work_order_id, WorkOrder.status))))
        for order_id, now in status.items():
            open_attempts = [row for row in rows if row[0] == order_id and row[1] is None]
            assert len(open_attempts) == (1 if now == OrderStatus.RUNNING else 0)

    @invariant()
    def a_completed_order_stays_completed(self) -> None:
        status = dict(self.run(self._read(sa.select(WorkOrder.agent_work_order_id, WorkOrder.status))))
        assert all(status[order_id] == OrderStatus.COMPLETED for order_id in self.completed)


Queue.TestCase.settings = settings(
    max_examples=15, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestQueue = Queue.TestCase
