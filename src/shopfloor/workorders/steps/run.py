"""Watch a running attempt: its result, its sandbox, its heartbeats, its cancellation, its time."""

import asyncio
from dataclasses import dataclass

from shopfloor.kit import log
from shopfloor.kit.db import Session
from shopfloor.sandboxes import queries as sandboxes
from shopfloor.sandboxes.models import SandboxRow
from shopfloor.sandboxes.port import Life
from shopfloor.sandboxes.rules import SandboxState, Verdict, missed, verdict
from shopfloor.workorders import queries, service
from shopfloor.workorders.models import Attempt, WorkOrder
from shopfloor.workorders.rules import AttemptState
from shopfloor.workorders.steps import Tools

logger = log.get(__name__)

SLICE_SECONDS = 60.0
"""One durable step watches for so long; the workflow repeats it."""
TICK_SECONDS = 1.0
RECONNECT_SECONDS = 6.0
"""A worker that lost the server tries again at most five seconds apart."""


@dataclass(frozen=True)
class Glance:
    """An attempt at one moment, by the database's clock."""

    order: WorkOrder
    attempt: Attempt
    sandbox: SandboxRow
    silent_seconds: float
    running_seconds: float


async def watch(tools: Tools, attempt_id: str) -> str:
    """`go`: still running; `deliver`: a result is there; `stop`: the attempt is over."""
    loop = asyncio.get_running_loop()
    async with tools.database.reading() as session:
        order_id = (await queries.attempt(session, attempt_id)).work_order_id
    news = tools.news.setdefault(order_id, asyncio.Event())
    until, renewed = loop.time() + SLICE_SECONDS, 0.0
    gone_for = 0
    while loop.time() < until:
        news.clear()
        async with tools.database.reading() as session:
            seen = await glance(session, attempt_id)
        listening = tools.ears.listened()
        if queries.ended(seen.attempt):
            return "stop"
        if seen.attempt.result is not None:
            return "deliver"
        gone_for = gone_for + 1 if await _gone(tools, seen) else 0
        if end := await _end(tools, seen, gone_for, listening):
            state, reason = end
            if await finish(tools, attempt_id, state, reason, unless_result=True):
                return "stop"
            continue
        await tools.sandboxes.tell_denied(seen.sandbox)
        if not gone_for and loop.time() - renewed > tools.settings.orphan_seconds / 4:
            renewed = loop.time()
            adapter = tools.sandboxes.adapter(seen.sandbox.sandbox_type)
            await adapter.renew(seen.sandbox.sandbox_id, tools.settings.orphan_seconds)
        try:
            await asyncio.wait_for(news.wait(), TICK_SECONDS)
        except TimeoutError:
            continue
    return "go"


async def glance(session: Session, attempt_id: str) -> Glance:
    """Everything that decides about a running attempt."""
    attempt = await queries.attempt(session, attempt_id)
    order = await queries.get(session, attempt.work_order_id)
    sandbox = await sandboxes.get(session, attempt.sandbox_id)
    heard = await sandboxes.last_heard(session, attempt.sandbox_id) or sandbox.started_at or sandbox.created_at
    here = await queries.moment(session)
    started = sandbox.started_at or sandbox.created_at
    return Glance(
        order=order,
        attempt=attempt,
        sandbox=sandbox,
        silent_seconds=(here - max(heard, started)).total_seconds(),
        running_seconds=(here - started).total_seconds(),
    )


async def _gone(tools: Tools, seen: Glance) -> bool:
    info = await tools.sandboxes.info(seen.sandbox)
    return info is None or info.life != Life.RUNNING


def called_off(seen: Glance) -> tuple[AttemptState, str] | None:
    """The end that a person or the order's time limit puts to an attempt."""
    if seen.order.cancel_requested_at is not None:
        return AttemptState.CANCELLED, "cancelled"
    if seen.running_seconds > seen.order.timeout_seconds:
        return AttemptState.FAILED, f"ran longer than the {seen.order.timeout_seconds:.0f} s allowed"
    return None


async def _end(tools: Tools, seen: Glance, gone_for: int, listening: float) -> tuple[AttemptState, str] | None:
    """The end of the attempt, if it has come. A result in flight gets two more ticks after its sandbox has gone."""
    if seen.order.cancel_requested_at is None and gone_for >= 3:
        return AttemptState.LOST, await _obituary(tools, seen)
    if end := called_off(seen):
        return end
    interval = tools.settings.heartbeat_seconds
    silent = min(seen.silent_seconds, max(0.0, listening - RECONNECT_SECONDS))
    count = min(3, missed(silent, interval))
    if count != seen.sandbox.missed_heartbeats:
        await tools.sandboxes.note_silence(seen.sandbox.sandbox_id, count)
    if verdict(count) == Verdict.RESTART:
        return AttemptState.LOST, f"no sign of life for {silent:.0f} s (3 heartbeats missed)"
    return None


async def _obituary(tools: Tools, seen: Glance) -> str:
    info = await tools.sandboxes.info(seen.sandbox)
    if info is None or info.life == Life.LOST:
        return "the sandbox died"
    why = f" ({info.reason})" if info.reason else ""
    return f"the worker ended without a result, exit code {info.exit_code}{why}"


async def give_up(tools: Tools, attempt_id: str, reason: str) -> None:
    """Fail an attempt that cannot go on, and its sandbox with it."""
    async with tools.database.reading() as session:
        sandbox_id = (await queries.attempt(session, attempt_id)).sandbox_id
    await finish(tools, attempt_id, AttemptState.FAILED, reason)
    await tools.sandboxes.move(sandbox_id, SandboxState.FAILED, reason=reason)


async def finish(
    tools: Tools, attempt_id: str, state: AttemptState, reason: str, *, unless_result: bool = False
) -> bool:
    """End an attempt; a later or repeated end changes nothing. Answers False when a result came first and should count."""
    async with tools.database.transaction() as session:
        _, attempt = await queries.locked_attempt(session, attempt_id)
        if unless_result and attempt.result is not None:
            return False
        if await service.step_attempt(session, attempt, state, reason=reason):
            order_id = attempt.work_order_id
            logger.info(
                "attempt_ended", agent_work_order_id=order_id, attempt_id=attempt_id, state=state, reason=reason
            )
    return True
