"""The doors of the engine: the durable workflow of an attempt, the loops that claim, adopt and reap, the reactions to facts."""

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from shopfloor.events import log as events
from shopfloor.events.bus import Published
from shopfloor.events.catalog.work_orders import AttemptAdopted
from shopfloor.forges.mirrors.mirror import Base
from shopfloor.gateway import queries as accounts
from shopfloor.gateway import service as gateway
from shopfloor.kit import log
from shopfloor.kit.background import Background
from shopfloor.kit.db import AWAY, Session
from shopfloor.kit.engine import Engine, State
from shopfloor.kit.errors import Problem, Unavailable
from shopfloor.messages import service as messages
from shopfloor.sandboxes.rules import LIVE, SandboxState
from shopfloor.workorders import queries, service
from shopfloor.workorders.models import Attempt, WorkOrder
from shopfloor.workorders.rules import AttemptState, OrderStatus
from shopfloor.workorders.steps import Claimed, Tools, react
from shopfloor.workorders.steps.bury import bury
from shopfloor.workorders.steps.conclude import conclude
from shopfloor.workorders.steps.deliver import deliver
from shopfloor.workorders.steps.prepare import claim, prepare, start_early
from shopfloor.workorders.steps.reflect import reflect
from shopfloor.workorders.steps.retain import sweep
from shopfloor.workorders.steps.run import TICK_SECONDS, finish, give_up, watch

logger = log.get(__name__)

WORKFLOW = "attempt"
WAKING = ("agent.completed", "attempt.result_submitted", "work_order.status_changed", "sandbox.state_changed")
"""Facts that may end somebody's waiting: heard by a loop that does nothing else."""
REFRESHING = frozenset({"workflow.phase_started", "agent.session", "agent.started"})
LOGGED_AS = {
    "agent.started": "agent_command_started",
    "agent.completed": "agent_command_completed",
    "command.completed": "sandbox_command_executed",
    "workflow.phase_started": "workflow_phase_started",
    "workflow.phase_completed": "workflow_phase_completed",
}
"""Facts from inside a sandbox -> their names in the log (AWX-10, AWX-11)."""
TRIES = 5
"""How often a step that fails for no known reason is tried before its attempt fails."""
PATIENCE_SECONDS = {"prepare": 15.0, "watch": 15.0, "deliver": 120.0}
"""How long a step tries again what cannot be done right now (an origin not reached) before its attempt fails."""
TEND_SECONDS = 5.0
REAP_SECONDS = 60.0
RETENTION_TURNS = 10
"""Every so many turns of the reaper, what policy no longer keeps goes."""


@dataclass
class Trouble:
    """What a step has met so far, and whether it is worth another try."""

    step: str
    reason: str = ""
    final: bool = False
    began: float = field(default_factory=time.monotonic)
    failures: int = 0
    pause: float = 0.1

    def met(self, error: Exception) -> float:
        """Take in one more failure; answers the seconds to wait before the next try."""
        self.pause = min(self.pause * 2, 5)
        if self.final or isinstance(error, AWAY):
            self.reason = self.reason or f"the database is away: {error}"
            return self.pause
        if isinstance(error, Problem):
            self.reason = f"{error.code}: {error.message} {error.hint}".strip()
            late = time.monotonic() - self.began > PATIENCE_SECONDS[self.step]
            self.final = late or not isinstance(error, Unavailable)
        else:
            self.reason = f"internal error in {self.step}: {type(error).__name__}: {error}"
            self.failures += 1
            self.final = self.failures >= TRIES
        return 0.0 if self.final else self.pause


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
        """A step whose known problems fail the attempt with their own words, and whose unknown ones do so after some tries.

        The database being away is not the attempt's fault: that is tried until it is back, or another engine has adopted.
        """

        async def guarded(attempt_id: str) -> Any:
            trouble = Trouble(name)
            while True:
                try:
                    if not trouble.final:
                        return await work(self.tools, attempt_id)
                    await give_up(self.tools, attempt_id, trouble.reason)
                    return when_failed
                except Exception as error:
                    pause = trouble.met(error)
                    logger.warning(
                        "attempt_step_failed",
                        step=name,
                        attempt_id=attempt_id,
                        retry_in_seconds=pause,
                        exc_info=None if isinstance(error, Problem) else error,
                        reason=trouble.reason,
                    )
                    await self._say(attempt_id, trouble)
                    await asyncio.sleep(pause)

        return self.engine.step(name, guarded)

    async def _say(self, attempt_id: str, trouble: "Trouble") -> None:
        """Let the order's reason tell what is tried again."""
        with contextlib.suppress(*AWAY):
            async with self.tools.database.transaction() as session:
                await service.note_trouble(session, attempt_id, f"trying again: {trouble.reason}")

    async def _conclude(self, attempt_id: str) -> None:
        """Conclude must happen: it is tried until it succeeds."""
        pause = 0.2
        while True:
            try:
                await conclude(self.tools, attempt_id)
            except Exception as error:
                logger.exception("attempt_conclude_failed", attempt_id=attempt_id, retry_in_seconds=pause)
                with contextlib.suppress(*AWAY):
                    async with self.tools.database.transaction() as session:
                        await service.note_trouble(session, attempt_id, f"cleaning up, trying again: {error}")
                await asyncio.sleep(pause)
                pause = min(pause * 2, 30)
            else:
                return

    async def launch(self) -> None:
        """Take over what dead engines left, then begin to claim."""
        await self.engine.launch()
        await self._adopt()
        await self.tools.sandboxes.reap()
        self.background.keep("wake", self._wake)
        self.background.keep("reflect", self._reflect)
        self.background.keep("claim", self._claim)
        self.background.keep("reap", self._reap)
        self.background.keep("tend", self._tend)
        if self.tools.settings.forges:
            self.background.keep("answer_forges", lambda: react.keep_answering(self.tools))
        if not self.tools.database.sqlite:
            self.background.keep("beat", self._beat, longest_pause=self.engine.lease_seconds / 5)
            self.background.keep("sweep", self._sweep, longest_pause=self.engine.lease_seconds)

    async def _claim(self) -> None:
        """Start due orders as long as there are places; woken by events, with a slow look in between."""
        pause = 5.0 if self.tools.database.sqlite else 1.0
        while True:
            self.tools.claimable.clear()
            claimed = await self._claim_one()
            wait = await self._next_due()
            if claimed and wait <= 0:
                continue
            try:
                await asyncio.wait_for(self.tools.claimable.wait(), min(pause, wait) if wait > 0 else pause)
            except TimeoutError:
                continue

    async def _claim_one(self) -> bool:
        """Claim an order and begin to start its sandbox; answers whether there was one."""
        async with self.tools.database.transaction() as session:
            claimed = await self.claim(session)
        if claimed:
            self.start(claimed)
        return claimed is not None

    async def claim(self, session: Session) -> Claimed | None:
        """See Claimer."""
        return await claim(self.tools, session, self.engine.id)

    def start(self, claimed: Claimed, looking: asyncio.Future[Base] | None = None) -> None:
        """See Claimer. What a crash or a cut request leaves out is made up for by `_tend`."""
        starting = start_early(self.tools, claimed, looking)
        self.background.start("start_workflow", self._start_workflow(claimed.attempt.attempt_id, starting))

    async def _start_workflow(self, attempt_id: str, starting: asyncio.Future[bool]) -> None:
        """Write the workflow down once the sandbox starts, which has the first call on this process; `_tend` repeats what fails."""
        await asyncio.wait({starting}, timeout=TICK_SECONDS)
        await self.engine.start(WORKFLOW, attempt_id)

    async def _next_due(self) -> float:
        """Seconds until a waiting order becomes due; 0 when one is."""
        async with self.tools.database.reading() as session:
            earliest = await session.scalar(
                sa.select(sa.func.min(WorkOrder.not_before)).where(
                    WorkOrder.status == OrderStatus.PENDING, ~accounts.paused(WorkOrder.account)
                )
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
            if await self.engine.state(orphan.attempt_id) is None:
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
            if ended := await self.tools.database.end_cut_off():
                logger.warning("cut_off_transactions_ended", count=ended)
            await self._adopt()
            silent_seconds = 2 * self.engine.lease_seconds
            if self.engine.steady_seconds > silent_seconds:
                await bury(self.tools, silent_seconds=silent_seconds)

    async def _tend(self) -> None:
        """Look after what nobody else watches: sandboxes without an order, and attempts whose workflow does not run."""
        while True:
            await asyncio.sleep(TEND_SECONDS)
            await self.tools.sandboxes.settle()
            await self._lift_pauses()
            async with self.tools.database.reading() as session:
                mine = await queries.unfinished(session, [self.engine.id])
                here = await queries.moment(session)
            for attempt in mine:
                if (here - attempt.created_at).total_seconds() > TEND_SECONDS:
                    await self._tended(attempt)

    async def _lift_pauses(self) -> None:
        """Say that accounts may be used again, and let their orders in."""
        async with self.tools.database.reading() as session:
            overdue = await accounts.overdue(session)
        if overdue:
            async with self.tools.database.transaction() as session:
                await gateway.lift(session)
            self.tools.claimable.set()

    async def _tended(self, attempt: Attempt) -> None:
        """Start the workflow of an attempt that has none, as when the start's answer was lost; end one that cannot go on."""
        state = await self.engine.state(attempt.attempt_id)
        if state is None:
            await self.engine.start(WORKFLOW, attempt.attempt_id)
        elif state is not State.RUNS:
            reason = f"its workflow does not go on ({state})"
            await finish(self.tools, attempt.attempt_id, AttemptState.LOST, reason)
            await conclude(self.tools, attempt.attempt_id)

    async def _reap(self) -> None:
        turn = 0
        while True:
            await asyncio.sleep(REAP_SECONDS)
            await self.tools.sandboxes.reap()
            await self.tools.repositories.evict_all()
            await asyncio.to_thread(self.tools.blobs.sweep)
            turn += 1
            if turn % RETENTION_TURNS == 1:
                await sweep(self.tools)

    async def _wake(self) -> None:
        """Wake whoever waits for a fact."""
        async with self.tools.hub.subscribe(events.Filters(event_types=frozenset(WAKING))) as feed:
            async for event in feed:
                if event.work_order_id:
                    self.tools.tell(event.work_order_id)
                if _makes_room(event):
                    self.tools.claimable.set()

    async def _reflect(self) -> None:
        """Keep the log, and orders' phase and conversation, up to date with what happens inside sandboxes."""
        wanted = frozenset({*LOGGED_AS, *REFRESHING, "sandbox.state_changed"})
        async with self.tools.database.reading() as session:
            running = [a.work_order_id for a in await queries.unfinished(session)]
        async with self.tools.hub.subscribe(events.Filters(event_types=wanted)) as feed:
            for order_id in running:
                await self._refresh(order_id)
            async for event in feed:
                if event.event_type == "sandbox.state_changed":
                    await self._expire(event)
                elif event.event_type == "command.completed":  # there are many, and each is in the log already
                    if event.work_order_id in self.tools.news:
                        _note(event)
                elif event.work_order_id:
                    await self._take_in(event, event.work_order_id)

    async def _expire(self, event: Published) -> None:
        """What was to be said inside a sandbox that is gone was not heard."""
        if not event.work_order_id and event.payload.get("after") == SandboxState.TERMINATED:
            async with self.tools.database.transaction() as session:
                await messages.expire_for(session, event.entity_id)

    async def _take_in(self, event: Published, order_id: str) -> None:
        """Bring a fact from inside a sandbox into the log and the order; only the engine that drives the order does so."""
        async with self.tools.database.reading() as session:
            attempt = await queries.current_attempt(session, order_id)
        if attempt is None or attempt.engine_id != self.engine.id:
            return
        if event.event_type in LOGGED_AS:
            _note(event)
        if event.event_type in REFRESHING:
            await self._refresh(order_id)

    async def _refresh(self, order_id: str) -> None:
        async with self.tools.database.transaction() as session:
            await reflect(session, await queries.locked(session, order_id))


def _makes_room(event: Published) -> bool:
    """Whether an order may have become able to start: one waits, has ended, or a sandbox has left its place."""
    after = event.payload.get("after")
    if event.event_type == "sandbox.state_changed":
        return after not in LIVE
    return event.event_type == "work_order.status_changed" and after != OrderStatus.RUNNING


def _note(event: Published) -> None:
    """A fact from inside a sandbox, in the log's words."""
    failed = event.event_type == "agent.completed" and event.payload.get("status") == "failed"
    logger.info(
        "agent_command_failed" if failed else LOGGED_AS[event.event_type],
        agent_work_order_id=event.work_order_id,
        sandbox_id=event.entity_id,
        **{
            key: str(event.payload[key])[:100]
            for key in ("phase", "step", "status", "adapter", "exit_code")
            if key in event.payload
        },
    )
