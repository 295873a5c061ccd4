"""The event log's table."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from shopfloor.kit.db import Base, db_time

BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _present(column: str) -> dict[str, Any]:
    """Index only rows that have the column: most events have no spec, and every index costs the ingest."""
    where = sa.text(f"{column} IS NOT NULL")
    return {"sqlite_where": where, "postgresql_where": where}


class EventRow(Base):
    """An immutable fact about one entity. Written once, never changed."""

    __tablename__ = "events"
    __table_args__ = (
        sa.UniqueConstraint("sandbox_id", "seq"),
        sa.Index("ix_events_entity", "entity_id", "xid", "id"),
        sa.Index("ix_events_position", "xid", "id").ddl_if(dialect="postgresql"),  # SQLite: the row id is the position
        sa.Index("ix_events_work_order_id", "work_order_id", "id", **_present("work_order_id")),
        sa.Index("ix_events_spec_id", "spec_id", "id", **_present("spec_id")),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BIG, primary_key=True)
    xid: Mapped[int] = mapped_column(sa.BigInteger)
    """PostgreSQL: the writing transaction, so that readers stay below the oldest open one. SQLite: 0."""
    event_type: Mapped[str] = mapped_column(sa.String(100))
    entity_type: Mapped[str] = mapped_column(sa.String(50))
    entity_id: Mapped[str] = mapped_column(sa.String(255))
    source: Mapped[str] = mapped_column(sa.String(50))
    payload: Mapped[str] = mapped_column(sa.Text)
    """JSON object as text: written and sent as it is."""
    sandbox_id: Mapped[str | None] = mapped_column(sa.String(255))
    seq: Mapped[int | None] = mapped_column(sa.BigInteger)
    """The sandbox's own counter: a repeated post is recognised by it."""
    work_order_id: Mapped[str | None] = mapped_column(sa.String(40))
    spec_id: Mapped[str | None] = mapped_column(sa.String(40))
    occurred_at: Mapped[datetime | None]
    """By the sender's clock."""
    recorded_at: Mapped[datetime] = mapped_column(server_default=db_time())
