"""The event log's table."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from shopfloor.kit.db import Base, db_time

BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")


class EventRow(Base):
    """An immutable fact about one entity. Written once, never changed."""

    __tablename__ = "events"
    __table_args__ = (
        sa.UniqueConstraint("sandbox_id", "seq"),
        sa.Index("ix_events_entity", "entity_type", "entity_id", "id"),
        sa.Index("ix_events_work_order_id", "work_order_id", "id"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BIG, primary_key=True)
    xid: Mapped[int] = mapped_column(sa.BigInteger, index=True)
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
    spec_id: Mapped[str | None] = mapped_column(sa.String(40), index=True)
    occurred_at: Mapped[datetime | None]
    """By the sender's clock."""
    recorded_at: Mapped[datetime] = mapped_column(server_default=db_time())
