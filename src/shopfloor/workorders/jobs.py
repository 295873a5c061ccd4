"""The doors of the engine: the durable workflow of an attempt, the loops that claim, adopt and reap, the reactions to facts."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from shopfloor.events import log as events
from shopfloor.events.bus import Published
from shopfloor.events.catalog import AttemptAdopted
from shopfloor.kit import log
from shopfloor.kit.background import Background
from shopfloor.kit.engine import Engine
from shopfloor.kit.errors import Problem
from shopfloor.workorders import queries, service
from shopfloor.workorders.models import Attempt, WorkOrder
from shopfloor.workorders.rules import AttemptState, OrderStatus
from shopfloor.workorders.steps import Tools
from shopfloor.workorders.steps.bury import bury
from shopfloor.workorders.steps.conclude import conclude
from shopfloor.workorders.steps.deliver import deliver
from shopfloor.workorders.steps.prepare import look_ahead, prepare
from shopfloor.workorders.steps.run import finish, watch

logger = log.get(__name__)

WORKFLOW = "attempt"
REACT_TO = (
    "workflow.phase_started",
    "workflow.phase_completed",
    "agent.session",
    "agent.started",
    "agent.completed",
    "attempt.result_submitted",
    "work_order.status_changed",
)
DATABASE_AWAY = (sa.exc.InterfaceError, sa.exc.OperationalError, sa.exc.TimeoutError)
"""Not the attempt's fault: tried until the database is back or another engine has adopted the attempt."""
REFRESHING = frozenset({"workflow.phase_started", "agent.session", "agent.started"})
LOGGED_AS = {
    "agent.started": "agent_command_started",
    "agent.completed": "agent_command_completed",
    "workflow.phase_started": "workflow_phase_started",
    "workflow.phase_completed": "workflow_phase_completed",
}
"""Facts from inside a sandbox -> their names in the log (AWX-10, AWX-11)."""
TRIES = 3
"""How often a step that fails for no known reason is tried before its attempt fails."""


@dataclass
class Jobs:
    """The work-order part of one engine process."""

    tools: Tools
    engine: Engine
    background: Background

    def register(self) -> None:
        """Tell the engine the one workflow: prepare, watch until there is a result, deliver, conclude."""
        first = self._step("prepare", prepare, "stop")
        look = self._step("watch", watch, "stop")
        out = self._step("deliver", deliver, None)
        last = self.engine.step("conclude", self._conclude)

        async def attempt(attempt_id: str) -> None:
            verdict = await first(attempt_id)
            while verdict == "go":
                verdict = await look(attempt_id)
            if verdict == "deliver":
                await out(attempt_id)
            await last(attempt_id)

        self.engine.workflow(WORKFLOW, attempt)

    def _step(
        self, name: str, work: Callable[[Tools, str], Awaitable[Any]], when_failed: Any
    ) -> Callable[..., Awaitable[Any]]:
        """A step whose known problems fail the attempt with their own words, and whose unknown ones do so after some tries."""

        async def guarded(attempt_id: str) -> Any:
            failures, pause, reason = 0, 0.2, ""
            while True:
                try:
                    if failures < TRIES:
                        return await work(self.tools, attempt_id)
                    await finish(self.tools, attempt_id, AttemptState.FAILED, reason)
                    return when_failed
                except Problem as problem:
                    if failures >= TRIES:
                        raise
                    failures, reason = TRIES, f"{problem.code}: {problem.message} {problem.hint}".strip()
                except Exception as error:
                    failures += not isinstance(error, DATABASE_AWAY)
                    reason = f"internal error in {name}: {error}"
                    logger.exception("attempt_step_failed", step=name, attempt_id=attempt_id, retry_in_seconds=pause)
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, 5)

        return self.engine.step(name, guarded)

    async def _conclude(self, attempt_id: str) -> None:
        """Conclude must happen: it is tried until it succeeds."""
        pause = 0.2
        while True:
            try:
                await conclude(self.tools, attempt_id)
            except Exception:
                logger.exception("attempt_conclude_failed", attempt_id=attempt_id, retry_in_seconds=pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 30)
            else:
                return

    async def launch(self) -> None:
        """Take over what dead engines left, then begin to claim."""
        await self.engine.launch()
        await self._adopt()
        await self.tools.sandboxes.reap()
        self.background.keep("react", self._react)
        self.background.keep("claim", self._claim)
        self.background.keep("reap", self._reap)
        self.background.keep("settle", self._settle)
        if not self.tools.database.sqlite:
            self.background.keep("beat", self._beat)
            self.background.keep("sweep", self._sweep)

    async def _claim(self) -> None:
        """Start due orders as long as there are places; woken by events, with a slow look in between."""
        pause = 5.0 if self.tools.database.sqlite else 1.0
        while True:
            self.tools.claimable.clear()
            attempt = await self._claim_one()
            if attempt:
                await self.engine.start(WORKFLOW, attempt.attempt_id)
            wait = await self._next_due()
            if attempt and wait <= 0:
                continue
            try:
                await asyncio.wait_for(self.tools.claimable.wait(), min(pause, wait) if wait > 0 else pause)
            except TimeoutError:
                continue

    async def _claim_one(self) -> Attempt | None:
        async with self.tools.database.transaction() as session:
            attempt = await service.claim(session, self.tools.sandboxes, self.engine.id)
            order = await session.get_one(WorkOrder, attempt.work_order_id) if attempt else None
        if order:
            look_ahead(self.tools, order)
        return attempt

    async def _next_due(self) -> float:
        """Seconds until a waiting order becomes due; 0 when one is."""
        async with self.tools.database.reading() as session:
            earliest = await session.scalar(
                sa.select(sa.func.min(WorkOrder.not_before)).where(WorkOrder.status == OrderStatus.PENDING)
            )
            here = await queries.moment(session)
        if earliest is None:
            return math.inf
        wait = (earliest - here).total_seconds()
        return max(0.05, wait) if wait > 0 else 0.0

    async def _adopt(self) -> None:
        """Continue every unfinished attempt whose engine is dead, or that was claimed and never started."""
        dead = await self.engine.dead()
        async with self.tools.database.reading() as session:
            orphans = await queries.unfinished(session, dead)
        for orphan in orphans:
            await self._take(orphan, dead)
        if dead:
            await self.engine.adopt(dead)
        for orphan in orphans:
            if not await self.engine.known(orphan.attempt_id):
                await self.engine.start(WORKFLOW, orphan.attempt_id)
        if dead and not await self.engine.owes(dead):
            await self.engine.forget(dead)

    async def _take(self, orphan: Attempt, dead: list[str]) -> None:
        async with self.tools.database.transaction() as session:
            taken = await session.scalar(
                sa.update(Attempt)
                .where(Attempt.attempt_id == orphan.attempt_id, Attempt.engine_id.in_(dead))
                .values(engine_id=self.engine.id)
                .returning(Attempt.attempt_id)
            )
            if taken:
                fact = AttemptAdopted(
                    work_order_id=orphan.work_order_id,
                    attempt_id=orphan.attempt_id,
                    from_engine=orphan.engine_id,
                    to_engine=self.engine.id,
                )
                await events.append(session, fact)

    async def _beat(self) -> None:
        while True:
            await self.engine.beat()
            await asyncio.sleep(self.engine.lease_seconds / 5)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self.engine.lease_seconds / 5)
            await self._adopt()
            await bury(self.tools, silent_seconds=2 * self.engine.lease_seconds)

    async def _settle(self) -> None:
        while True:
            await asyncio.sleep(5)
            await self.tools.sandboxes.settle()

    async def _reap(self) -> None:
        while True:
            await asyncio.sleep(60)
            await self.tools.sandboxes.reap()
            for url in await self._repositories():
                await self.tools.repositories.evict(url)

    async def _repositories(self) -> list[str]:
        async with self.tools.database.reading() as session:
            return list(await session.scalars(sa.select(WorkOrder.repository_url).distinct()))

    async def _react(self) -> None:
        """Keep orders' phase and conversation up to date from the facts, and wake whoever waits for them."""
        async with self.tools.database.reading() as session:
            running = [a.work_order_id for a in await queries.unfinished(session)]
        async with self.tools.hub.subscribe(events.Filters(event_types=frozenset(REACT_TO))) as feed:
            for order_id in running:
                await self._refresh(order_id)
            async for event in feed:
                if event.work_order_id:
                    if event.event_type in LOGGED_AS:
                        _note(event)
                    if event.event_type in REFRESHING:
                        await self._refresh(event.work_order_id)
                    self.tools.tell(event.work_order_id)
                if event.event_type == "work_order.status_changed" and event.payload["after"] != OrderStatus.RUNNING:
                    self.tools.claimable.set()

    async def _refresh(self, order_id: str) -> None:
        async with self.tools.database.reading() as session:
            phase = await queries.newest_event(session, order_id, "workflow.phase_started")
            spoken = await queries.newest_event(session, order_id, "agent.session", "agent.started")
        async with self.tools.database.transaction() as session:
            order = await queries.get(session, order_id)
            if phase and order.status == OrderStatus.RUNNING:
                await service.enter_phase(session, order, str(phase[1].get("phase", ""))[:20])
            if spoken and isinstance(session_id := spoken[1].get("session_id"), str):
                order.agent_session_id = session_id[:255]


def _note(event: Published) -> None:
    """A fact from inside a sandbox, in the log's words."""
    failed = event.event_type == "agent.completed" and event.payload.get("status") == "failed"
    logger.info(
        "agent_command_failed" if failed else LOGGED_AS[event.event_type],
        agent_work_order_id=event.work_order_id,
        sandbox_id=event.entity_id,
        **{key: event.payload[key] for key in ("phase", "step", "status", "adapter") if key in event.payload},
    )
