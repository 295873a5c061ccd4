"""After an attempt, however it ended: remove its sandbox, tell the order, let the next one in."""

from typing import Any, cast

from shopfloor.forges import queries as changes
from shopfloor.kit import log
from shopfloor.kit.db import Session, db_time
from shopfloor.messages import service as messages
from shopfloor.workorders import queries, service
from shopfloor.workorders.models import Attempt, WorkOrder
from shopfloor.workorders.rules import AttemptState, OrderStatus, after_loss, back_off_seconds
from shopfloor.workorders.steps import Tools
from shopfloor.workorders.steps.react import tell
from shopfloor.workorders.steps.retain import remove

logger = log.get(__name__)


async def conclude(tools: Tools, attempt_id: str) -> None:
    """Clean up after an ended attempt and decide what becomes of its order. Idempotent."""
    async with tools.database.reading() as session:
        attempt = await queries.attempt(session, attempt_id)
        order = await queries.get(session, attempt.work_order_id)
    if attempt.concluded:
        return
    patience = 10 if attempt.state in {AttemptState.LOST, AttemptState.CANCELLED, AttemptState.FAILED} else 0
    stop_ms, forced = await tools.sandboxes.terminate(
        attempt.sandbox_id, reason=attempt.reason or str(attempt.state), grace_seconds=patience
    )
    await tools.repositories.unpin(order.repository_url, attempt.sandbox_id)
    await remove(tools, f"inboxes/{attempt.sandbox_id}")
    async with tools.database.transaction() as session:
        order, attempt = await queries.locked_attempt(session, attempt_id)
        if attempt.concluded:
            return
        unseen = await messages.expire_for(session, attempt.sandbox_id)
        attempt.concluded = True
        attempt.stop_ms, attempt.stop_forced = stop_ms, forced
        if order.attempts == attempt.number and order.status == OrderStatus.RUNNING:
            await decide(session, order, attempt)
            if (
                order.status != OrderStatus.COMPLETED
            ):  # whoever goes on, a next attempt or a retry, is told at its start
                order.prompts = [*order.prompts, *unseen]
        lasting = await changes.still_open(session, [order.agent_work_order_id])
        everyone = [one.sandbox_id for one in await queries.attempts(session, order.agent_work_order_id)]
    tools.news.pop(order.agent_work_order_id, None)
    tools.claimable.set()
    if order.status == OrderStatus.COMPLETED and not lasting:  # nobody can ask to continue it; all it made is delivered
        await remove(tools, f"homes/{order.agent_work_order_id}", *(f"spools/{one}" for one in everyone))
    if order.status != OrderStatus.RUNNING:
        await tell(tools, order, f"is {order.status}: {order.reason}")


async def decide(session: Session, order: WorkOrder, attempt: Attempt) -> None:
    """What becomes of an order whose newest attempt has ended."""
    if attempt.state == AttemptState.PAUSED and order.cancel_requested_at is None:
        order.max_attempts += 1  # it was not this attempt's fault
        await service.move(session, order, OrderStatus.PENDING, reason=f"paused: {attempt.reason}")
        return
    if attempt.state not in {AttemptState.LOST, AttemptState.PAUSED}:
        outcome = {
            AttemptState.DONE: OrderStatus.COMPLETED,
            AttemptState.CANCELLED: OrderStatus.CANCELLED,
        }.get(AttemptState(attempt.state), OrderStatus.FAILED)
        await service.move(session, order, outcome, reason=attempt.reason)
        return
    if order.cancel_requested_at is not None:
        await service.move(session, order, OrderStatus.CANCELLED, reason="cancelled")
        return
    lost = await queries.lost_count(session, order.agent_work_order_id)
    pause = back_off_seconds(lost)
    outcome = after_loss(order.attempts, order.max_attempts)
    order.not_before = cast("Any", db_time(pause))
    reason = f"attempt {attempt.number} was lost: {attempt.reason}"
    if outcome == OrderStatus.PENDING:
        reason += f"; next attempt in {pause:.0f} s"
    else:
        reason += f"; all {order.max_attempts} attempts are used, a person must look (retry continues it)"
    await service.move(session, order, outcome, reason=reason)
