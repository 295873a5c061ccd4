"""Append facts in the transaction that made them true."""

import msgspec
import sqlalchemy as sa

from shopfloor.events.catalog import Event
from shopfloor.events.models import EventRow
from shopfloor.kit.clock import now
from shopfloor.kit.db import Session

APPENDED = "events_appended"
"""Key in `session.info`: set when the commit brings new events, so that listeners are woken after it."""


async def append(session: Session, event: Event, *, source: str = "platform", work_order_id: str | None = None) -> None:
    """Record one fact in the same transaction as the change it tells of."""
    row = {
        "xid": sa.text("pg_current_xact_id()::text::bigint") if session.get_bind().dialect.name == "postgresql" else 0,
        "event_type": event.type,
        "entity_type": event.entity_type,
        "entity_id": event.entity_id,
        "source": source,
        "payload": msgspec.json.encode(event).decode(),
        "work_order_id": work_order_id or getattr(event, "work_order_id", None),
        "occurred_at": now(),
    }
    await session.execute(sa.insert(EventRow).values(row))
    session.info[APPENDED] = True
