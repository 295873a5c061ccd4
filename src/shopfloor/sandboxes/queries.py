"""Reads of sandboxes, their last sign of life taken from the event log."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from shopfloor.events.models import EventRow
from shopfloor.kit.db import Session, db_time
from shopfloor.kit.errors import NotFound
from shopfloor.sandboxes.models import SandboxRow
from shopfloor.sandboxes.rules import LIVE, SandboxState


class SandboxNotFound(NotFound):
    """There is no such sandbox."""

    hint = "GET /api/v1/sandboxes lists them."


async def find(session: Session, sandbox_id: str) -> SandboxRow | None:
    """The sandbox, or None."""
    return await session.get(SandboxRow, sandbox_id)


async def get(session: Session, sandbox_id: str, *, locked: bool = False) -> SandboxRow:
    """The sandbox, which nobody else changes before the end of a transaction when `locked`; raises SandboxNotFound."""
    if (row := await session.get(SandboxRow, sandbox_id, with_for_update=locked or None)) is None:
        raise SandboxNotFound(f"there is no sandbox {sandbox_id!r}")
    return row


async def listing(
    session: Session, *, state: str | None, work_order_id: str | None, limit: int, offset: int
) -> tuple[Sequence[SandboxRow], int]:
    """A page of sandboxes, newest first, and how many there are in all."""
    query = sa.select(SandboxRow)
    if state:
        query = query.where(SandboxRow.state == state)
    if work_order_id:
        query = query.where(SandboxRow.work_order_id == work_order_id)
    total = await session.scalar(sa.select(sa.func.count()).select_from(query.subquery()))
    page = query.order_by(SandboxRow.created_at.desc(), SandboxRow.sandbox_id).limit(limit).offset(offset)
    return (await session.scalars(page)).all(), total or 0


START_SECONDS = 60.0
"""A sandbox that is not made by then has lost its maker."""


async def live_count(session: Session, host_id: str) -> int:
    """How many places of this host's capacity are taken."""
    count = sa.select(sa.func.count()).where(SandboxRow.host_id == host_id, SandboxRow.state.in_(LIVE))
    return await session.scalar(count) or 0


async def unattended(session: Session, host_id: str) -> Sequence[SandboxRow]:
    """Sandboxes of a host that no work order watches: running, or for so long in the making that its maker must have died."""
    late = sa.and_(
        SandboxRow.state.in_([SandboxState.PENDING, SandboxState.CREATING]),
        SandboxRow.created_at < db_time(-START_SECONDS),
    )
    query = sa.select(SandboxRow).where(
        sa.or_(SandboxRow.state == SandboxState.RUNNING, late),
        SandboxRow.attempt_id.is_(None),
        SandboxRow.host_id == host_id,
    )
    return (await session.scalars(query)).all()


async def last_heard(session: Session, sandbox_id: str) -> datetime | None:
    """When the sandbox's own worker last said anything, by the database's clock."""
    newest = (
        sa.select(EventRow.recorded_at)
        .where(EventRow.sandbox_id == sandbox_id, EventRow.seq.is_not(None))
        .order_by(EventRow.seq.desc())
        .limit(1)
    )
    return await session.scalar(newest)


async def facts(session: Session, sandbox_id: str) -> list[dict[str, Any]]:
    """The newest facts about a sandbox's life, as evidence."""
    query = (
        sa.select(EventRow)
        .where(EventRow.entity_type == "sandbox", EventRow.entity_id == sandbox_id)
        .where(EventRow.event_type.like("sandbox.%"))
        .order_by(EventRow.id.desc())
        .limit(10)
    )
    return [
        {
            "position": f"{row.xid}-{row.id}" if row.xid else str(row.id),
            "event_type": row.event_type,
            "at": row.recorded_at,
            "payload": row.payload[:500],
        }
        for row in await session.scalars(query)
    ]
