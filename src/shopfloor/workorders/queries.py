"""Reads of work orders."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson
import sqlalchemy as sa

from shopfloor.events.models import EventRow
from shopfloor.forges.models import Delivery
from shopfloor.kit.db import Session, db_time
from shopfloor.kit.errors import NotFound
from shopfloor.workorders.models import Artifact, Attempt, Pin, WorkOrder
from shopfloor.workorders.rules import ENDS, FINISHED, AttemptState, OrderStatus

BUNDLES = ("checkpoint.bundle", "result.bundle")
"""What workers hand out."""
PUSHED = "push:bundle"
"""What an agent pushed, as a bundle; no upload can have this name."""


class WorkOrderNotFound(NotFound):
    """There is no such work order."""

    hint = "GET /api/v1/agent-work-orders lists them."


class PinNotFound(NotFound):
    """There is no such pin."""

    hint = "'shopfloor recover' lists what is kept."


class AttemptNotFound(NotFound):
    """No attempt belongs to this sandbox."""


async def get(session: Session, order_id: str) -> WorkOrder:
    """The work order; raises WorkOrderNotFound."""
    if (order := await session.get(WorkOrder, order_id)) is None:
        raise WorkOrderNotFound(f"there is no work order {order_id[:60]!r}")
    return order


async def locked(session: Session, order_id: str) -> WorkOrder:
    """The work order, which nobody else changes before this transaction ends; raises WorkOrderNotFound.

    Every change to an order or to one of its attempts is made under this lock (SQLite has one writer anyway).
    """
    order = await session.get(WorkOrder, order_id, with_for_update=True, populate_existing=True)
    if order is None:
        raise WorkOrderNotFound(f"there is no work order {order_id[:60]!r}")
    return order


def told_of_orders() -> sa.ColumnElement[bool]:
    """Deliveries that are for orders to answer: of no change yet, or of an order's. What is left tells of tickets' changes."""
    mine = sa.exists().where(WorkOrder.agent_work_order_id == Delivery.work_order_id)
    return sa.or_(Delivery.work_order_id.is_(None), mine)


async def locked_attempt(session: Session, attempt_id: str) -> tuple[WorkOrder, Attempt]:
    """An attempt and its order, under the order's lock."""
    order = await locked(session, (await attempt(session, attempt_id)).work_order_id)
    return order, await session.get_one(Attempt, attempt_id, populate_existing=True)


async def listing(session: Session, *, status: str | None, limit: int, offset: int) -> tuple[Sequence[WorkOrder], int]:
    """A page of work orders, newest first, and how many there are in all (AWA-07)."""
    query = sa.select(WorkOrder)
    if status:
        query = query.where(WorkOrder.status == status)
    total = await session.scalar(sa.select(sa.func.count()).select_from(query.subquery()))
    page = query.order_by(WorkOrder.created_at.desc(), WorkOrder.agent_work_order_id).limit(limit).offset(offset)
    return (await session.scalars(page)).all(), total or 0


async def moment(session: Session) -> datetime:
    """The database's time."""
    return (await session.execute(sa.select(db_time()))).scalar_one()


async def attempt(session: Session, attempt_id: str) -> Attempt:
    """The attempt of that id."""
    if (row := await session.get(Attempt, attempt_id)) is None:
        raise AttemptNotFound(f"there is no attempt {attempt_id!r}")
    return row


async def attempt_of_sandbox(session: Session, sandbox_id: str) -> Attempt:
    """The attempt that runs in a sandbox; raises AttemptNotFound."""
    row = await session.scalar(sa.select(Attempt).where(Attempt.sandbox_id == sandbox_id))
    if row is None:
        raise AttemptNotFound(f"no attempt belongs to sandbox {sandbox_id!r}")
    return row


async def current_attempt(session: Session, order_id: str) -> Attempt | None:
    """The newest attempt at an order."""
    newest = sa.select(Attempt).where(Attempt.work_order_id == order_id).order_by(Attempt.number.desc()).limit(1)
    return await session.scalar(newest)


async def attempts(session: Session, order_id: str) -> Sequence[Attempt]:
    """Every attempt at an order, oldest first."""
    rows = sa.select(Attempt).where(Attempt.work_order_id == order_id).order_by(Attempt.number)
    return (await session.scalars(rows)).all()


async def unfinished(session: Session, engine_ids: Sequence[str] | None = None) -> Sequence[Attempt]:
    """Attempts that are not concluded, of some engines or of all."""
    query = sa.select(Attempt).where(Attempt.concluded.is_(False))
    if engine_ids is not None:
        query = query.where(Attempt.engine_id.in_(engine_ids))
    return (await session.scalars(query)).all()


async def active_for_issue(session: Session, repository_url: str, number: int) -> WorkOrder | None:
    """The order that is at work on an issue, if one is."""
    same = (WorkOrder.repository_url == repository_url, WorkOrder.github_issue_number == number)
    query = sa.select(WorkOrder).where(*same, WorkOrder.status.in_([OrderStatus.PENDING, OrderStatus.RUNNING])).limit(1)
    return await session.scalar(query)


async def completed(session: Session, order_ids: Sequence[str]) -> Sequence[str]:
    """Those of some orders that are completed: nobody can ask to continue them."""
    query = sa.select(WorkOrder.agent_work_order_id).where(
        WorkOrder.agent_work_order_id.in_(order_ids), WorkOrder.status == OrderStatus.COMPLETED
    )
    return (await session.scalars(query)).all()


async def newest_bundle(session: Session, order_id: str) -> Artifact | None:
    """The newest bundle of commits that an order's sandboxes handed out or pushed and that was not refused."""
    query = sa.select(Artifact).where(
        Artifact.work_order_id == order_id, Artifact.name.in_((*BUNDLES, PUSHED)), Artifact.note == ""
    )
    return await session.scalar(query.order_by(Artifact.id.desc()).limit(1))


async def newest_artifact(session: Session, order_id: str) -> Artifact | None:
    """The newest bundle that a worker handed out, refused or not."""
    query = sa.select(Artifact).where(Artifact.work_order_id == order_id, Artifact.name.in_(BUNDLES))
    return await session.scalar(query.order_by(Artifact.id.desc()).limit(1))


async def newest_push(session: Session, attempt_id: str) -> Artifact | None:
    """The newest push of an attempt's agent that was not refused."""
    query = sa.select(Artifact).where(Artifact.attempt_id == attempt_id, Artifact.name == PUSHED, Artifact.note == "")
    return await session.scalar(query.order_by(Artifact.id.desc()).limit(1))


async def imported_heads(session: Session, order_id: str) -> set[str]:
    """The commits that an order's bundles brought to this host."""
    query = sa.select(Artifact.head_commit).where(Artifact.work_order_id == order_id, Artifact.imported.is_(True))
    return {head for head in await session.scalars(query) if head}


async def find_attempt(session: Session, sandbox_id: str) -> Attempt | None:
    """The attempt that ran in a sandbox, if there was one."""
    return await session.scalar(sa.select(Attempt).where(Attempt.sandbox_id == sandbox_id))


async def same_artifact(session: Session, attempt_id: str, name: str | None, sha256: str) -> bool:
    """Whether an attempt handed out these very bytes (under that name)."""
    query = sa.select(Artifact.id).where(Artifact.attempt_id == attempt_id, Artifact.sha256 == sha256)
    return await session.scalar(query.where(Artifact.name == name) if name else query) is not None


async def pins(
    session: Session, order_id: str | None, *, limit: int = 500, offset: int = 0
) -> tuple[Sequence[Pin], int]:
    """A page of what is or was kept (of one order), newest first, and how much there is in all."""
    query = sa.select(Pin) if order_id is None else sa.select(Pin).where(Pin.work_order_id == order_id)
    total = await session.scalar(sa.select(sa.func.count()).select_from(query.subquery()))
    rows = await session.scalars(query.order_by(Pin.id.desc()).limit(limit).offset(offset))
    return rows.all(), total or 0


async def live_pins(session: Session, order_id: str) -> int:
    """How much is kept of an order's sandboxes."""
    count = sa.select(sa.func.count()).where(Pin.work_order_id == order_id, Pin.gone_at.is_(None), Pin.kind != "note")
    return await session.scalar(count) or 0


async def pin(session: Session, order_id: str | None, pin_id: int) -> Pin:
    """One pin; raises PinNotFound."""
    found = await session.get(Pin, pin_id)
    if found is None or (order_id is not None and found.work_order_id != order_id):
        raise PinNotFound(f"there is no pin {pin_id}" + (f" of {order_id}" if order_id else ""))
    return found


async def pins_of_sandbox(session: Session, sandbox_id: str) -> Sequence[Pin]:
    """What is kept of one sandbox, newest first."""
    query = sa.select(Pin).where(Pin.sandbox_id == sandbox_id, Pin.gone_at.is_(None))
    return (await session.scalars(query.order_by(Pin.id.desc()))).all()


async def handed_out(session: Session, attempt_id: str, *, pushed: bool = False) -> int:
    """Bytes that an attempt's worker has handed out, or its agent has pushed."""
    which = Artifact.name == PUSHED if pushed else Artifact.name != PUSHED
    total = sa.select(sa.func.coalesce(sa.func.sum(Artifact.size), 0)).where(Artifact.attempt_id == attempt_id, which)
    return int(await session.scalar(total) or 0)


async def lost_count(session: Session, order_id: str) -> int:
    """How many attempts at an order were lost."""
    count = sa.select(sa.func.count()).where(Attempt.work_order_id == order_id, Attempt.state == AttemptState.LOST)
    return await session.scalar(count) or 0


async def newest_event(session: Session, order_id: str, *event_types: str) -> tuple[EventRow, dict[str, Any]] | None:
    """The newest event of an order among some types, with its payload."""
    query = sa.select(EventRow).where(EventRow.work_order_id == order_id, EventRow.event_type.in_(event_types))
    row = await session.scalar(query.order_by(EventRow.id.desc()).limit(1))
    return (row, orjson.loads(row.payload)) if row else None


async def newest_events(
    session: Session, order_id: str, event_types: Sequence[str], limit: int
) -> list[tuple[str, dict[str, Any]]]:
    """The newest events of an order among some types, oldest first: type and payload."""
    query = sa.select(EventRow.event_type, EventRow.payload).where(
        EventRow.work_order_id == order_id, EventRow.event_type.in_(event_types)
    )
    rows = (await session.execute(query.order_by(EventRow.id.desc()).limit(limit))).all()
    return [(kind, orjson.loads(payload)) for kind, payload in reversed(rows)]


async def steps_done(session: Session, order_id: str, bundle: Artifact | None) -> set[str]:
    """The steps whose completion a worker reported and whose commits are in `bundle`: none that came with a later, refused one."""
    refused = sa.select(sa.func.min(Artifact.created_at)).where(
        Artifact.work_order_id == order_id,
        Artifact.name.in_(BUNDLES),
        Artifact.note != "",
        Artifact.id > (bundle.id if bundle else 0),
    )
    query = sa.select(EventRow.payload).where(
        EventRow.work_order_id == order_id, EventRow.event_type == "workflow.phase_completed"
    )
    if (first := await session.scalar(refused)) is not None:
        query = query.where(EventRow.recorded_at < first)
    steps = (orjson.loads(payload).get("step") for payload in await session.scalars(query))
    return {step for step in steps if isinstance(step, str)}


async def timeline(session: Session, order_id: str, *, limit: int, offset: int) -> tuple[Sequence[EventRow], int]:
    """A page of everything that happened to an order, oldest first, and the count of it all (AWA-06)."""
    mine = EventRow.work_order_id == order_id
    total = await session.scalar(sa.select(sa.func.count()).where(mine))
    rows = sa.select(EventRow).where(mine).order_by(EventRow.xid, EventRow.id).limit(limit).offset(offset)
    return (await session.scalars(rows)).all(), total or 0


def ended(row: Attempt) -> bool:
    """Whether an attempt is over."""
    return row.state == AttemptState.DONE or row.state in ENDS


async def asked(session: Session, question: str) -> WorkOrder | None:
    """The order that answers a question, if it was asked."""
    return await session.scalar(sa.select(WorkOrder).where(WorkOrder.question == question))


async def answers(session: Session, kind: str, *, ticket_id: str | None = None) -> Sequence[WorkOrder]:
    """Orders that were asked such a question (`title`, `review`), have ended, and whose answer nobody has taken."""
    mine = sa.select(WorkOrder).where(WorkOrder.question.startswith(f"{kind}:"), ~WorkOrder.answer_taken)
    if ticket_id is not None:
        mine = mine.where(WorkOrder.ticket_id == ticket_id)
    return (await session.scalars(mine.where(WorkOrder.status.in_(FINISHED)))).all()
