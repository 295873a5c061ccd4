"""Why a work order or sandbox is in its state: the facts behind it, and what would change it."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from shopfloor.events.models import EventRow
from shopfloor.gateway import queries as gateway
from shopfloor.kit.clock import iso
from shopfloor.kit.db import Session
from shopfloor.kit.engine import any_alive
from shopfloor.workorders import queries
from shopfloor.workorders.models import WorkOrder
from shopfloor.workorders.rules import FINISHED, OrderStatus
from shopfloor.workorders.steps import Tools
from shopfloor.workorders.steps.run import Glance, glance


async def explain(tools: Tools, order_id: str) -> dict[str, Any]:
    """State, since, reason, evidence (event positions) and what would change it."""
    async with tools.database.reading() as session:
        order = await queries.get(session, order_id)
        attempt = await queries.current_attempt(session, order_id)
        seen = await glance(session, attempt.attempt_id) if attempt else None
        facts = await _facts(session, order_id)
        place = await tools.sandboxes.has_place(session)
        paused = await gateway.pause_of(session, order.account) if order.account else None
        pinned = await queries.live_pins(session, order_id)
        alive = tools.database.sqlite or await any_alive(session, 2 * tools.settings.engine_lease_seconds)
    since = next((row.recorded_at for row in facts if row.event_type == "work_order.status_changed"), order.created_at)
    outlook = _outlook(tools, order, seen, _waiting(order.not_before, place=place, alive=alive), pinned)
    if paused and order.status not in FINISHED:
        outlook.insert(0, f"the account {order.account} is paused for {paused[1]:.0f} s more: {paused[0].reason}")
    return {
        "subject": order_id,
        "status": order.status,
        "since": since,
        "reason": order.reason,
        "evidence": [evidence(row) for row in facts],
        "what_would_change_it": outlook,
    }


async def _facts(session: Session, order_id: str) -> list[EventRow]:
    kinds = ("work_order.%", "budget.%", "attempt.%", "sandbox.state_changed", "sandbox.heartbeat%", "work.%")
    query = (
        sa.select(EventRow)
        .where(EventRow.work_order_id == order_id, sa.or_(*(EventRow.event_type.like(kind) for kind in kinds)))
        .order_by(EventRow.id.desc())
        .limit(10)
    )
    return list((await session.scalars(query)).all())


def evidence(row: EventRow) -> dict[str, Any]:
    """An event as a piece of evidence."""
    position = f"{row.xid}-{row.id}" if row.xid else str(row.id)
    return {
        "position": position,
        "event_type": row.event_type,
        "at": iso(row.recorded_at),
        "payload": row.payload[:500],
    }


def _outlook(tools: Tools, order: WorkOrder, seen: Glance | None, waiting: str, pinned: int) -> list[str]:
    if order.status == OrderStatus.PENDING:
        return [waiting, "cancel"]
    if order.status == OrderStatus.RUNNING and seen:
        interval = tools.settings.heartbeat_seconds
        return [
            f"the worker's result (its sandbox is {seen.sandbox.state}, last heard {seen.silent_seconds:.0f} s ago)",
            f"silence until {4 * interval:.0f} s: the attempt counts as lost and the next one starts",
            f"{seen.order.timeout_seconds - seen.running_seconds:.0f} s more: its time is up",
            "cancel",
        ]
    if order.status in {OrderStatus.FAILED, OrderStatus.CANCELLED}:
        more = [f"recover: {pinned} pins hold what it had not handed out"] if pinned else []
        return ["retry: it continues from its last commit", *more]
    return []


def _waiting(not_before: datetime, *, place: bool, alive: bool) -> str:
    if not alive:
        return "an engine: none is running (start one with 'shopfloor engine' or 'shopfloor up')"
    return f"due at {iso(not_before)}" if place else "a sandbox that ends: every place of this host is taken"
