"""The table of messages."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from shopfloor.kit.db import Base, db_time

BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")


class Message(Base):
    """Something said to a running agent, with its receipt."""

    __tablename__ = "messages"
    __table_args__ = (
        sa.UniqueConstraint("sandbox_id", "idempotency_key"),
        sa.Index("ix_messages_sandbox", "sandbox_id", "state", "position"),
        {"sqlite_autoincrement": True},
    )

    position: Mapped[int] = mapped_column(BIG, primary_key=True)
    """First in, first out."""
    id: Mapped[str] = mapped_column(sa.String(40), unique=True)
    sandbox_id: Mapped[str] = mapped_column(sa.String(255))
    message_type: Mapped[str] = mapped_column(sa.String(40))
    content: Mapped[str] = mapped_column(sa.Text)
    sender: Mapped[str] = mapped_column(sa.String(100))
    idempotency_key: Mapped[str | None] = mapped_column(sa.String(200))
    state: Mapped[str] = mapped_column(sa.String(20))
    detail: Mapped[str] = mapped_column(sa.Text, default="")
    lease_until: Mapped[datetime | None]
    leases: Mapped[int] = mapped_column(default=0)
    """How often it was handed to a worker."""
    created_at: Mapped[datetime] = mapped_column(server_default=db_time())
    delivered_at: Mapped[datetime | None]
    seen_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    """When it became done, failed or expired."""
