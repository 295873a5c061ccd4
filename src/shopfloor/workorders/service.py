"""Work orders: created, claimed, moved, cancelled, retried. Sole writer of their tables."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

import orjson
import sqlalchemy as sa

from shopfloor.events import log as events
from shopfloor.events.catalog.sandboxes import PinExpired, WorkPinned
from shopfloor.events.catalog.work_orders import (
    AttemptStateChanged,
    ResultSubmitted,
    WorkflowPhaseChanged,
    WorkOrderCreated,
    WorkOrderFinished,
    WorkOrderStatusChanged,
)
from shopfloor.gateway.queries import paused
from shopfloor.kit import ids, log
from shopfloor.kit.db import Session, db_time
from shopfloor.kit.errors import Conflict
from shopfloor.sandboxes.service import Sandboxes
from shopfloor.workorders import queries
from shopfloor.workorders.models import Artifact, Attempt, Pin, WorkOrder
from shopfloor.workorders.rules import ATTEMPT, ENDS, FINISHED, ORDER, AttemptState, OrderStatus, Phase

logger = log.get(__name__)

LOGGED = {
    OrderStatus.PENDING: "agent_work_order_requeued",
    OrderStatus.RUNNING: "agent_work_order_started",
    OrderStatus.COMPLETED: "agent_work_order_completed",
    OrderStatus.FAILED: "agent_work_order_failed",
    OrderStatus.CANCELLED: "agent_work_order_cancelled",
}


class OrderFinished(Conflict):
    """The work order is finished."""


class KeyReused(Conflict):
    """This Idempotency-Key already made another work order."""

    hint = "Use a new key for a new work order."


class StaleFencing(Conflict):
    """A newer attempt has taken over; this result changes nothing."""

    hint = "Stop: this sandbox is no longer wanted."


async def create(session: Session, *, idempotency_key: str | None = None, **columns: Any) -> WorkOrder:
    """Accept a piece of work; it starts as soon as a place is free."""
    order = WorkOrder(
        agent_work_order_id=ids.new("wo"),
        status=OrderStatus.PENDING,
        prompts=[],
        attempts=0,
        reason="waiting for a place",
        git_commit_count=0,
        git_files_changed=0,
        git_lines_added=0,
        git_lines_removed=0,
        idempotency_key=idempotency_key,
        request_hash=_hash(columns),
        **columns,
    )
    session.add(order)
    await session.flush()
    await session.refresh(order)
    fact = WorkOrderCreated(
        work_order_id=order.agent_work_order_id,
        repository_url=order.repository_url,
        workflow_type=order.workflow_type,
    )
    await events.append(session, fact)
    logger.info(
        "agent_work_order_created",
        agent_work_order_id=order.agent_work_order_id,
        repository_url=order.repository_url,
        workflow_type=order.workflow_type,
        sandbox_type=order.sandbox_type,
    )
    return order


async def repeated(session: Session, key: str | None, **columns: Any) -> WorkOrder | None:
    """The order an earlier request with the same key made; raises KeyReused when that one asked for something else."""
    if key is None:
        return None
    order = await session.scalar(sa.select(WorkOrder).where(WorkOrder.idempotency_key == key))
    if order and order.request_hash != _hash(columns):
        raise KeyReused(f"the key made {order.agent_work_order_id}, which asks for something else")
    return order


def _hash(columns: dict[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(columns, option=orjson.OPT_SORT_KEYS, default=str)).hexdigest()


async def claim(session: Session, sandboxes: Sandboxes, engine_id: str) -> Attempt | None:
    """Claim the oldest due order and a place for its sandbox in one step; None when there is nothing to do or no place."""
    await sandboxes.lock_places(session)
    due = (
        sa.select(WorkOrder)
        .where(WorkOrder.status == OrderStatus.PENDING, WorkOrder.not_before <= db_time(), ~paused(WorkOrder.account))
        .order_by(WorkOrder.not_before, WorkOrder.created_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    if (order := await session.scalar(due)) is None:
        return None
    if not await sandboxes.has_place(session):
        return None
    return await _new_attempt(session, sandboxes, order, engine_id)


async def _new_attempt(session: Session, sandboxes: Sandboxes, order: WorkOrder, engine_id: str) -> Attempt:
    order_id, number = order.agent_work_order_id, order.attempts + 1
    attempt = Attempt(
        attempt_id=f"{order_id}-{number}",
        work_order_id=order_id,
        number=number,
        state=AttemptState.CLAIMED,
        engine_id=engine_id,
        sandbox_id=f"{order.sandbox_type.replace('_', '-')}-{order_id}-{number}",
        concluded=False,
        reason="",
    )
    session.add(attempt)
    order.attempts = number
    order.sandbox_identifier = attempt.sandbox_id
    order.cancel_requested_at = None
    if order.execution_started_at is None:
        order.execution_started_at = cast("Any", db_time())
    order.execution_completed_at = None
    await move(session, order, OrderStatus.RUNNING, reason=f"attempt {number} claimed")
    await sandboxes.reserve(
        session,
        attempt.sandbox_id,
        order.sandbox_type,
        work_order_id=order_id,
        attempt_id=attempt.attempt_id,
        task_id=order.task_id,
        agent_id=order.agent,
        fencing=number,
    )
    return attempt


async def move(session: Session, order: WorkOrder, to: OrderStatus, *, reason: str) -> None:
    """Move an order to another status if the law allows it, with its facts."""
    before = OrderStatus(order.status)
    order.status = ORDER.step(before, to)
    order.reason = reason
    if to in FINISHED:
        order.execution_completed_at = cast("Any", db_time())
    if to == OrderStatus.COMPLETED:
        await enter_phase(session, order, Phase.COMPLETED)
    order_id = order.agent_work_order_id
    await events.append(session, WorkOrderStatusChanged(work_order_id=order_id, before=before, after=to, reason=reason))
    if to in FINISHED:
        fact = WorkOrderFinished(
            work_order_id=order_id,
            status=to,
            reason=reason,
            branch=order.git_branch_name,
            head_sha=order.head_commit,
        )
        await events.append(session, fact)
    logger.info(LOGGED[to], agent_work_order_id=order_id, reason=reason)
    await session.flush()


async def enter_phase(session: Session, order: WorkOrder, phase: str) -> None:
    """Note what an order is doing now."""
    if order.current_phase == phase:
        return
    order.current_phase = phase
    await events.append(session, WorkflowPhaseChanged(work_order_id=order.agent_work_order_id, phase=phase))
    logger.info("workflow_phase_transition", agent_work_order_id=order.agent_work_order_id, phase=phase)


async def step_attempt(session: Session, attempt: Attempt, to: AttemptState, *, reason: str = "") -> bool:
    """Move an attempt on; answers False when it already is there or is over (a repeated step)."""
    before = AttemptState(attempt.state)
    if before == to or not ATTEMPT.allows(before, to):
        return False
    attempt.state = to
    if to == AttemptState.DONE or to in ENDS:
        attempt.reason = reason
        attempt.ended_at = cast("Any", db_time())
    fact = AttemptStateChanged(
        work_order_id=attempt.work_order_id,
        attempt_id=attempt.attempt_id,
        before=before,
        after=to,
        reason=reason,
    )
    await events.append(session, fact)
    await session.flush()
    return True


async def note_trouble(session: Session, attempt_id: str, reason: str) -> None:
    """Say in the order's reason what is being tried again, so that nobody has to read the log to know."""
    order, attempt = await queries.locked_attempt(session, attempt_id)
    if order.status == OrderStatus.RUNNING and order.attempts == attempt.number:
        order.reason = reason[:2000]


async def submit_result(session: Session, sandbox_id: str, result: dict[str, Any]) -> bool:
    """Record what a worker submitted, once; raises StaleFencing for a sandbox that has been replaced."""
    attempt = await queries.attempt_of_sandbox(session, sandbox_id)
    order, attempt = await queries.locked_attempt(session, attempt.attempt_id)
    if result["fencing"] != attempt.number or order.attempts != attempt.number or queries.ended(attempt):
        raise StaleFencing(
            f"attempt {attempt.number} of {order.agent_work_order_id} is {attempt.state}, the newest is {order.attempts}"
        )
    if attempt.result is not None:
        return False
    attempt.result = result
    if session_id := result.get("agent_session_id"):
        order.agent_session_id = session_id
    if (cost := result.get("cost_usd")) is not None and order.account is None:
        order.cost_usd = (order.cost_usd or 0.0) + cost
    await events.append(
        session,
        ResultSubmitted(
            work_order_id=order.agent_work_order_id, attempt_id=attempt.attempt_id, status=result["status"]
        ),
    )
    await session.flush()
    return True


async def add_artifact(session: Session, sandbox_id: str, **columns: Any) -> Artifact:
    """Record something a sandbox handed out; its bytes are durable already."""
    attempt = await queries.attempt_of_sandbox(session, sandbox_id)
    await queries.locked(session, attempt.work_order_id)
    artifact = Artifact(
        work_order_id=attempt.work_order_id, attempt_id=attempt.attempt_id, imported=False, note="", **columns
    )
    session.add(artifact)
    await session.flush()
    return artifact


async def add_restored(session: Session, artifact: Artifact) -> None:
    """Record a bundle that was made from what is kept; it is the order's newest from now on."""
    session.add(artifact)
    await session.flush()


async def record_pins(session: Session, pins: Sequence[Pin]) -> None:
    """Write down what is kept of a sandbox, each thing once, with its facts."""
    for pin in pins:
        same = sa.select(Pin.id).where(
            Pin.sandbox_id == pin.sandbox_id, Pin.kind == pin.kind, Pin.content == pin.content
        )
        if await session.scalar(same) is not None:
            continue
        session.add(pin)
        await session.flush()
        fact = WorkPinned(
            sandbox_id=pin.sandbox_id,
            pin=pin.id,
            kind=pin.kind,
            size=pin.size,
            reason=pin.reason[:500],
            note=pin.note[:500],
        )
        await events.append(session, fact, work_order_id=pin.work_order_id)
        logger.info(
            "work_pinned",
            agent_work_order_id=pin.work_order_id,
            sandbox_id=pin.sandbox_id,
            pin=pin.id,
            kind=pin.kind,
            size=pin.size,
        )


async def let_go(session: Session, pin_id: int, reason: str) -> Pin | None:
    """Write down that policy lets a pin go; None when it has gone before."""
    pin = await session.get(Pin, pin_id, with_for_update=True, populate_existing=True)
    if pin is None or pin.gone_at is not None:
        return None
    pin.gone_at = cast("Any", db_time())
    fact = PinExpired(sandbox_id=pin.sandbox_id, pin=pin.id, kind=pin.kind, reason=reason)
    await events.append(session, fact, work_order_id=pin.work_order_id)
    await session.flush()
    return pin


async def request_cancel(session: Session, order: WorkOrder) -> None:
    """Cancel a waiting order at once, a running one as soon as its agent has been stopped (AWF-01, C14)."""
    if order.status == OrderStatus.CANCELLED or order.cancel_requested_at is not None:
        return
    if order.status == OrderStatus.PENDING:
        await move(session, order, OrderStatus.CANCELLED, reason="cancelled before it started")
    elif order.status == OrderStatus.RUNNING:
        order.cancel_requested_at = cast("Any", db_time())
        order.reason = "cancelling: the agent is being stopped"
        await session.flush()
        await events.append(
            session,
            WorkOrderStatusChanged(
                work_order_id=order.agent_work_order_id,
                before=order.status,
                after=order.status,
                reason=order.reason,
            ),
        )
    else:
        raise OrderFinished(f"the order is {order.status}", hint="Only a pending or running order can be cancelled.")


def set_timeout(order: WorkOrder, seconds: float) -> None:
    """Let each attempt at an order run so long from now on; the caller holds its lock."""
    order.timeout_seconds = seconds


async def continue_with(session: Session, order: WorkOrder, prompt: str, *, reason: str) -> None:
    """Queue an order that has ended once more, on its branch, with something more to do."""
    order.prompts = [*order.prompts, prompt]
    order.max_attempts = max(order.max_attempts, order.attempts + 1)
    order.not_before = cast("Any", db_time())
    order.cancel_requested_at = None
    await move(session, order, OrderStatus.PENDING, reason=reason)


async def retry(
    session: Session,
    order: WorkOrder,
    *,
    prompt: str,
    agent: str | None,
    model: str | None,
    account: str | None,
    terms: Mapping[str, Any] | None = None,
) -> None:
    """Queue a failed or cancelled order again; it continues from its last commit and, where possible, conversation.

    Another agent takes `model`, or its profile's: the old one's model means nothing to it. `terms`: columns as they are now wanted.
    A higher budget of its own stays, and so does the base of what has begun. A question is answered anew.
    """
    if order.status not in {OrderStatus.FAILED, OrderStatus.CANCELLED}:
        raise OrderFinished(
            f"the order is {order.status}", hint="Only a failed or cancelled order can be retried; create a new one."
        )
    if agent and agent != order.agent:
        order.agent, order.agent_session_id, order.model = agent, None, model
    order.account = account
    order.model = model or order.model
    order.answer, order.answer_taken = None, False
    for name, value in (terms or {}).items():
        if name == "budget_usd" and (order.budget_usd is None or (value is not None and value < order.budget_usd)):
            continue
        if name != "base_branch" or order.base_commit is None:
            setattr(order, name, value)
    if prompt:
        order.prompts = [*order.prompts, prompt]
    order.max_attempts = max(order.max_attempts, order.attempts + 1)
    order.not_before = cast("Any", db_time())
    order.cancel_requested_at = None
    await move(session, order, OrderStatus.PENDING, reason="retry asked for")


async def take_answer(session: Session, order_id: str) -> WorkOrder | None:
    """Note that an order's answer is made use of in this transaction; None when it was before."""
    order = await queries.locked(session, order_id)
    if order.answer_taken:
        return None
    order.answer_taken = True
    await session.flush()
    return order
