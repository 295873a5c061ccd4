"""Let go of what policy no longer keeps: pins, homes, spools, logs. Whatever goes is written down first; nothing else goes."""

import asyncio
import contextlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from shopfloor.events import log as events
from shopfloor.events.catalog.work_orders import LeftoversRemoved
from shopfloor.forges import queries as changes
from shopfloor.kit import log
from shopfloor.kit.db import Session
from shopfloor.sandboxes.models import SandboxRow
from shopfloor.workorders import queries, service
from shopfloor.workorders.models import Artifact, Attempt, Pin, WorkOrder
from shopfloor.workorders.rules import OrderStatus, PinKind, expired
from shopfloor.workorders.steps import Tools

logger = log.get(__name__)

DAY = 86_400.0
FRESH_SECONDS = 3600.0
"""A blob so new may have been stored again for a pin that is not written down yet."""


@dataclass(frozen=True)
class Going:
    """Something that policy lets go."""

    what: str
    """pin, home, spool or log."""
    name: str
    work_order_id: str | None
    size: int
    why: str
    pin: int | None = None


@dataclass(frozen=True)
class _Order:
    order_id: str
    status: str
    age_days: float


async def sweep(tools: Tools, *, dry_run: bool = False) -> list[Going]:
    """Remove what policy lets go, and answer it; with `dry_run` only answer."""
    going = [
        *await _pins(tools),
        *await _folders(tools, "homes"),
        *await _folders(tools, "spools"),
        *await _logs(tools),
    ]
    if dry_run:
        return going
    for one in going:
        await _go(tools, one)
    await _clear(tools)
    return going


def days(tools: Tools) -> dict[str, float]:
    """The policy, by an order's status."""
    kept = tools.settings.retention
    return {name: getattr(kept, name) for name in ("completed", "failed", "cancelled", "no_order")}


async def _pins(tools: Tools) -> list[Going]:
    here_too = tools.sandboxes.host_id
    async with tools.database.reading() as session:
        here = await queries.moment(session)
        rows = await session.execute(
            sa.select(Pin, WorkOrder.status, WorkOrder.execution_completed_at)
            .outerjoin(WorkOrder, WorkOrder.agent_work_order_id == Pin.work_order_id)
            .outerjoin(SandboxRow, SandboxRow.sandbox_id == Pin.sandbox_id)
            .where(Pin.gone_at.is_(None))
            # Commits lie in their host's own repositories: only there can they go.
            .where(sa.or_(Pin.kind != PinKind.COMMITS, SandboxRow.host_id == here_too, SandboxRow.host_id.is_(None)))
        )
        found = []
        for pin, status, ended in rows:
            age = (here - max(ended or pin.created_at, pin.created_at)).total_seconds() / DAY
            if expired(status, age, days(tools)):
                why = _why(tools, status, age)
                name = f"{pin.kind} of {pin.sandbox_id}"
                found.append(Going("pin", name, pin.work_order_id, pin.size, why, pin=pin.id))
    return found


def _why(tools: Tools, status: str | None, age: float) -> str:
    most = days(tools)[status or "no_order"]
    return f"{'its order is ' + status if status else 'it belongs to no order'}, {age:.1f} days have passed, policy keeps {most:g}"


async def _folders(tools: Tools, kind: str) -> list[Going]:
    """Homes and spools of orders that are over: at once when all was delivered, else when policy says so."""
    root = tools.settings.data_dir / kind
    names = await asyncio.to_thread(lambda: sorted(os.listdir(root)) if root.is_dir() else [])
    found = []
    async with tools.database.reading() as session:
        orders = await _orders(session, names, of_sandboxes=kind == "spools")
    for name in names:
        if not (order := orders.get(name)):
            continue
        if order.status == OrderStatus.COMPLETED:
            found.append(Going(kind[:-1], name, order.order_id, 0, "all it led to is delivered"))
        elif expired(order.status, order.age_days, days(tools)):
            why = _why(tools, order.status, order.age_days)
            found.append(Going(kind[:-1], name, order.order_id, 0, why))
    return found


async def _orders(session: Session, names: Sequence[str], *, of_sandboxes: bool) -> dict[str, _Order]:
    """The orders that some folders belong to; not those with an attempt that is not cleaned up yet, or that a review may continue."""
    here = await queries.moment(session)
    other = aliased(Attempt)
    unclean = sa.exists().where(other.work_order_id == WorkOrder.agent_work_order_id, other.concluded.is_(False))
    found = {}
    for at in range(0, len(names), 500):
        some = names[at : at + 500]
        named = Attempt.sandbox_id if of_sandboxes else WorkOrder.agent_work_order_id
        query = sa.select(named, WorkOrder).select_from(WorkOrder).where(named.in_(some), ~unclean)
        if of_sandboxes:
            query = query.join(Attempt, Attempt.work_order_id == WorkOrder.agent_work_order_id)
        rows = (await session.execute(query)).all()
        lasting = await changes.still_open(session, [order.agent_work_order_id for _, order in rows])
        for name, order in rows:
            if order.agent_work_order_id in lasting:
                continue
            age = (here - (order.execution_completed_at or here)).total_seconds() / DAY
            found[name] = _Order(order.agent_work_order_id, order.status, age)
    return found


async def _logs(tools: Tools) -> list[Going]:
    root, most = tools.settings.data_dir / "logs", tools.settings.retention.logs
    names = await asyncio.to_thread(lambda: sorted(os.listdir(root)) if root.is_dir() else [])
    found = []
    for name in names:
        with contextlib.suppress(ValueError):
            age = (
                datetime.now(UTC) - datetime.strptime(name, "%Y-%m-%d").replace(tzinfo=UTC)
            ).total_seconds() / DAY - 1
            if age > most:
                found.append(Going("log", name, None, 0, f"{age:.0f} days have passed, policy keeps {most:g}"))
    return found


async def _go(tools: Tools, one: Going) -> None:
    if one.pin is not None:
        async with tools.database.transaction() as session:
            await service.let_go(session, one.pin, one.why)
    else:
        if one.work_order_id and "delivered" not in one.why:
            async with tools.database.transaction() as session:
                fact = LeftoversRemoved(work_order_id=one.work_order_id, what=one.what, name=one.name, reason=one.why)
                await events.append(session, fact)
        await remove(tools, f"{one.what}s/{one.name}")
    logger.info(
        "retention_removed", agent_work_order_id=one.work_order_id, what=one.what, name=one.name, reason=one.why
    )


async def _clear(tools: Tools) -> None:
    """Remove the content of pins that have gone lately; again after a crash."""
    async with tools.database.reading() as session:
        here = await queries.moment(session)
        gone = (await session.scalars(sa.select(Pin).where(Pin.gone_at.is_not(None)).order_by(Pin.id.desc()))).all()
        gone = [pin for pin in gone if pin.gone_at and (here - pin.gone_at).total_seconds() < 2 * DAY]
        unused = [pin for pin in gone if pin.kind != PinKind.COMMITS and pin.content and not await _used(session, pin)]
        urls = {pin.id: await _url(session, pin) for pin in gone if pin.refs}
    for pin in gone:
        if url := urls.get(pin.id):
            await tools.repositories.keeping(url).drop(pin.refs)
    for pin in unused:
        await asyncio.to_thread(_unlink_old, tools, pin.content)


async def _used(session: Session, pin: Pin) -> bool:
    """Whether something else names the same bytes."""
    others = sa.select(Pin.id).where(Pin.content == pin.content, Pin.gone_at.is_(None))
    artifacts = sa.select(Artifact.id).where(Artifact.sha256 == pin.content)
    return any([await session.scalar(query.limit(1)) is not None for query in (others, artifacts)])


async def _url(session: Session, pin: Pin) -> str | None:
    order = await session.get(WorkOrder, pin.work_order_id) if pin.work_order_id else None
    return order.repository_url if order else None


def _unlink_old(tools: Tools, sha256: str) -> None:
    if tools.blobs.has(sha256) and time.time() - tools.blobs.path(sha256).stat().st_mtime > FRESH_SECONDS:
        tools.blobs.remove(sha256)


async def remove(tools: Tools, *folders: str) -> None:
    """Remove folders below the data directory, with whatever an agent put there."""
    for folder in folders:
        await asyncio.to_thread(_delete, tools.settings.data_dir / folder)


def _delete(folder: Path) -> None:
    """Delete a tree, also what an agent closed to itself; what cannot go is told in the log and stays."""

    def open_up(remove: Callable[..., object], path: str, error: BaseException) -> None:
        if isinstance(error, FileNotFoundError):
            return
        for place in (os.path.dirname(path), path):
            with contextlib.suppress(OSError):
                os.chmod(place, stat.S_IRWXU, follow_symlinks=False)
        if remove in {os.open, os.scandir, os.lstat}:
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                remove(path)

    shutil.rmtree(folder, onexc=open_up)
    if os.path.lexists(folder):
        logger.warning("folder_not_removed", path=str(folder))
