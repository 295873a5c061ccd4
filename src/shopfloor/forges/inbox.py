"""What forges tell, kept once and handled once: the only writer of its table."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from shopfloor.events import log as events
from shopfloor.events.catalog.forges import ForgeDeliveryReceived, ForgeEvent
from shopfloor.forges.models import Change, Delivery
from shopfloor.forges.signals import PER_HOUR, REVIEWS, Kind, Signal
from shopfloor.kit.db import Session, db_time


async def keep(session: Session, *, delivery_id: str, repository_url: str, event: str, signal: Signal | None) -> bool:
    """Store a delivery; False when it, or the same thing on another way, is known already."""
    row: Mapping[str, Any] = {
        "delivery_id": delivery_id[:250],
        "repository_url": repository_url,
        "event": event[:80],
        "signal_key": signal.key if signal else None,
        "number": signal.number if signal else None,
        "signal": asdict(signal) if signal else {},
        "state": "waiting" if signal else "ignored",
        "note": "" if signal else "says nothing to us",
    }
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    stored = insert(Delivery).values(row).on_conflict_do_nothing().returning(Delivery.delivery_id)
    if (await session.execute(stored)).first() is None:
        return False
    fact = ForgeDeliveryReceived(repository_url=repository_url, delivery_id=row["delivery_id"], event=row["event"])
    await events.append(session, fact)
    return True


async def waiting(session: Session, *, limit: int = 50) -> Sequence[Delivery]:
    """What nobody has handled yet, oldest first."""
    query = sa.select(Delivery).where(Delivery.state == "waiting").order_by(Delivery.received_at).limit(limit)
    return (await session.scalars(query)).all()


async def settle(session: Session, delivery_id: str, *, note: str = "", fact: ForgeEvent | None = None) -> bool:
    """Write down what became of a delivery, with the fact it led to; False when somebody else did it."""
    done = {"state": "handled" if fact else "ignored", "note": note[:1000], "handled_at": cast("Any", db_time())}
    done |= {"work_order_id": fact.work_order_id} if fact else {}
    mine = sa.and_(Delivery.delivery_id == delivery_id, Delivery.state == "waiting")
    settled = await session.execute(sa.update(Delivery).where(mine).values(done).returning(Delivery.delivery_id))
    if settled.first() is None:
        return False
    if fact is not None:
        await events.append(session, fact, source="forge")
    return True


async def too_many(session: Session, repository_url: str, number: int | None) -> bool:
    """Whether so much happened on one issue within the hour that it must be machines that answer each other."""
    same = (Delivery.repository_url == repository_url, Delivery.number == number, Delivery.state == "handled")
    query = sa.select(sa.func.count()).select_from(Delivery).where(*same, Delivery.handled_at > db_time(-3600))
    return number is not None and (await session.scalar(query) or 0) >= PER_HOUR


async def ours(session: Session, repository_url: str, signal: Signal) -> Change | None:
    """The change of ours that a signal is about: by its number, else by its branch and commit."""
    here = sa.select(Change).where(Change.repository_url == repository_url).order_by(Change.created_at.desc()).limit(1)
    if signal.number is not None:
        return await session.scalar(here.where(Change.number == signal.number))
    return await session.scalar(here.where(Change.head_commit == signal.head_commit, Change.state == "open"))


async def forget(session: Session, *, days: float = 30) -> int:
    """Remove what was handled long ago; forges offer a redelivery for a few days only."""
    old = sa.delete(Delivery).where(Delivery.state != "waiting", Delivery.received_at < db_time(-86400 * days))
    return len((await session.execute(old.returning(Delivery.delivery_id))).all())


def signal_of(row: Delivery) -> Signal:
    """What a delivery says; not for one that says nothing to us."""
    return Signal(**row.signal | {"kind": Kind(row.signal["kind"])})


def open_facts() -> sa.ColumnElement[bool]:
    """Facts that something is still to be done about: answered, or told of how it ended."""
    return sa.or_(sa.and_(*_UNANSWERED), sa.and_(*_UNREPLIED))


_UNANSWERED = (Delivery.state == "handled", Delivery.reaction == "")
_UNREPLIED = (Delivery.reaction == "continued", Delivery.event.in_(REVIEWS))


async def unanswered(session: Session, whose: sa.ColumnElement[bool], *, limit: int = 50) -> Sequence[Delivery]:
    """Those facts of `whose` that nobody has reacted to, oldest first."""
    query = sa.select(Delivery).where(*_UNANSWERED, whose).order_by(Delivery.handled_at).limit(limit)
    return (await session.scalars(query)).all()


async def answer(session: Session, delivery_id: str, reaction: str, *, note: str = "") -> bool:
    """Write down what is done about a fact, in the transaction that does it; False when somebody else did."""
    done = {"reaction": reaction[:40], "note": note}
    mine = sa.and_(Delivery.delivery_id == delivery_id, Delivery.reaction == "")
    noted = await session.execute(sa.update(Delivery).where(mine).values(done).returning(Delivery.delivery_id))
    return noted.first() is not None


async def unreplied(session: Session, whose: sa.ColumnElement[bool], *, limit: int = 50) -> Sequence[Delivery]:
    """Those reviews of `whose` that work went on for, and that nobody told how it ended."""
    query = sa.select(Delivery).where(*_UNREPLIED, whose).order_by(Delivery.handled_at).limit(limit)
    return (await session.scalars(query)).all()


async def replied(session: Session, delivery_id: str, reaction: str) -> None:
    """The review's threads were answered, or need no answer any more."""
    mine = sa.and_(Delivery.delivery_id == delivery_id, Delivery.reaction == "continued")
    await session.execute(sa.update(Delivery).where(mine).values(reaction=reaction[:40]))


async def repaired(session: Session, work_order_id: str) -> set[str]:
    """The commits whose failed checks were answered by another try."""
    same = (Delivery.work_order_id == work_order_id, Delivery.reaction == "repaired")
    rows = await session.scalars(sa.select(Delivery).where(*same))
    return {signal_of(row).head_commit for row in rows}
