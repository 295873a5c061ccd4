"""The durable log: append facts in the transaction that made them true, read them from a position, encode them once."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
import orjson
import sqlalchemy as sa

from shopfloor.events.catalog.base import Event
from shopfloor.events.models import EventRow
from shopfloor.kit.clock import iso, now
from shopfloor.kit.db import Session
from shopfloor.kit.errors import Malformed

APPENDED = "events_appended"
"""Key in `session.info`: set when the commit brings new events, so that listeners are woken after it."""

HEARTBEAT = "sandbox.heartbeat"
NOISE = frozenset({HEARTBEAT, "sandbox.metrics"})
"""Event types that tell of no work: left out of a trajectory."""

COLUMNS = (
    "xid",
    "id",
    "event_type",
    "entity_type",
    "entity_id",
    "payload",
    "source",
    "work_order_id",
    "sandbox_id",
    "seq",
    "occurred_at",
    "recorded_at",
)
"""What every reader selects, in the order `encode` takes it."""

_SELECTED = [getattr(EventRow, name) for name in COLUMNS]
_HORIZON = sa.literal_column("pg_snapshot_xmin(pg_current_snapshot())::text::bigint", sa.BigInteger)


class BadPosition(Malformed):
    """That is not a position in the event log."""

    hint = "Use the 'position' of an event, or 0 for the beginning."


class Position(NamedTuple):
    """A place in the log. Everything at or before it is settled: no later reader finds anything new there."""

    xid: int
    id: int

    def __str__(self) -> str:
        """The wire form: `123`, or `<transaction>-<id>` on PostgreSQL."""
        return f"{self.xid}-{self.id}" if self.xid else str(self.id)


START = Position(0, 0)


class Filters(msgspec.Struct, frozen=True):
    """Which events: each set, when not empty, must hold the event's value."""

    entity_types: frozenset[str] = frozenset()
    entity_ids: frozenset[str] = frozenset()
    event_types: frozenset[str] = frozenset()

    def match(self, entity_type: str, entity_id: str, event_type: str) -> bool:
        """Whether an event passes."""
        return (
            (not self.entity_types or entity_type in self.entity_types)
            and (not self.entity_ids or entity_id in self.entity_ids)
            and (not self.event_types or event_type in self.event_types)
        )


ALL = Filters()


async def append(session: Session, event: Event, *, source: str = "platform", work_order_id: str | None = None) -> None:
    """Record one fact in the same transaction as the change it tells of."""
    row = {
        "xid": sa.text("pg_current_xact_id()::text::bigint") if _postgres(session) else 0,
        "event_type": event.type,
        "entity_type": event.entity_type,
        "entity_id": event.entity_id,
        "source": source,
        "payload": msgspec.json.encode(event).decode(),
        "sandbox_id": getattr(event, "sandbox_id", None),
        "work_order_id": work_order_id or getattr(event, "work_order_id", None),
        "occurred_at": now(),
    }
    await session.execute(sa.insert(EventRow).values(row))
    session.info[APPENDED] = True


def position(text: str, *, sqlite: bool) -> Position:
    """Read a position off the wire; raises BadPosition."""
    if not (match := re.fullmatch(r"(?:([0-9]{1,18})-)?([0-9]{1,18})", text)) or (sqlite and match[1]):
        raise BadPosition(f"{text[:50]!r} is not a position in this event log")
    return Position(int(match[1] or 0), int(match[2]))


def encode(row: Sequence[Any]) -> bytes:
    """One event as it goes over the wire, the payload's text as it was written. `row` is in the order of COLUMNS."""
    (
        xid,
        id_,
        event_type,
        entity_type,
        entity_id,
        payload,
        source,
        work_order_id,
        sandbox_id,
        seq,
        occurred,
        recorded,
    ) = row
    return orjson.dumps(
        {
            "position": f"{xid}-{id_}" if xid else str(id_),
            "event_type": event_type,
            "entity_type": entity_type,
            "entity_id": entity_id,
            "payload": orjson.Fragment(payload),
            "source": source,
            "work_order_id": work_order_id,
            "sandbox_id": sandbox_id,
            "seq": seq,
            "occurred_at": _stamp(occurred),
            "recorded_at": _stamp(recorded),
        }
    )


async def end(session: Session) -> Position:
    """The position of the newest settled event."""
    query = sa.select(EventRow.xid, EventRow.id)
    if _postgres(session):
        query = query.where(EventRow.xid < _HORIZON).order_by(EventRow.xid.desc(), EventRow.id.desc())
    else:
        query = query.order_by(EventRow.id.desc())
    row = (await session.execute(query.limit(1))).first()
    return Position(row[0], row[1]) if row else START


async def read_after(
    session: Session, after: Position, filters: Filters = ALL, *, upto: Position | None = None, limit: int = 500
) -> list[Sequence[Any]]:
    """The settled events that follow `after`, oldest first, in the order of COLUMNS."""
    return await history(session, filters, after=after, upto=upto, limit=limit)


async def history(
    session: Session,
    filters: Filters = ALL,
    *,
    after: Position | None = None,
    before: Position | None = None,
    upto: Position | None = None,
    newest_first: bool = False,
    limit: int = 100,
    without: frozenset[str] = frozenset(),
) -> list[Sequence[Any]]:
    """A page of settled events between two positions, both excluded (`upto` is included)."""
    query = sa.select(*_SELECTED).where(*_passing(filters))
    if without:
        query = query.where(EventRow.event_type.not_in(without))
    postgres = _postgres(session)
    place: Any = sa.tuple_(EventRow.xid, EventRow.id) if postgres else EventRow.id
    for bound, compare in ((after, "__gt__"), (before, "__lt__"), (upto, "__le__")):
        if bound is not None:
            value = sa.tuple_(sa.literal(bound.xid), sa.literal(bound.id)) if postgres else bound.id
            query = query.where(getattr(place, compare)(value))
    query = query.where(EventRow.xid < _HORIZON) if postgres else query.where(EventRow.xid == 0)
    order = [EventRow.xid, EventRow.id] if postgres else [EventRow.id]
    query = query.order_by(*(column.desc() if newest_first else column for column in order)).limit(limit)
    return list((await session.execute(query)).all())


class Heartbeats(NamedTuple):
    """All heartbeats of a sandbox, folded."""

    number: int
    first: datetime | None
    last: datetime | None


async def heartbeats(session: Session, sandbox_id: str) -> Heartbeats:
    """How often and when a sandbox said that it is alive, by our clock."""
    query = sa.select(sa.func.count(), sa.func.min(EventRow.recorded_at), sa.func.max(EventRow.recorded_at)).where(
        *_passing(Filters(frozenset({"sandbox"}), frozenset({sandbox_id}), frozenset({HEARTBEAT})))
    )
    return Heartbeats(*(await session.execute(query)).one())


async def exists(session: Session, sandbox_id: str) -> bool:
    """Whether anything was ever recorded about a sandbox."""
    query = sa.select(EventRow.id).where(EventRow.entity_id == sandbox_id, EventRow.entity_type == "sandbox").limit(1)
    return (await session.execute(query)).first() is not None


def _passing(filters: Filters) -> list[sa.ColumnElement[bool]]:
    columns = {
        EventRow.entity_type: filters.entity_types,
        EventRow.entity_id: filters.entity_ids,
        EventRow.event_type: filters.event_types,
    }
    return [
        column == next(iter(values)) if len(values) == 1 else column.in_(sorted(values))
        for column, values in columns.items()
        if values
    ]


def _postgres(session: Session) -> bool:
    return session.get_bind().dialect.name == "postgresql"


@lru_cache(maxsize=256)
def _stamp(instant: datetime | float | None) -> str | None:
    return iso(datetime.fromtimestamp(instant, UTC) if isinstance(instant, float | int) else instant)
