"""The tables of changes and of what forges tell."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from shopfloor.kit.db import Base, db_time

_OPEN = sa.text("state = 'open'")
_UNANSWERED = sa.text("state = 'handled' AND reaction = ''")
_WAITING = sa.text("state = 'waiting'")


class Change(Base):
    """A delivered branch, offered for review."""

    __tablename__ = "changes"
    __table_args__ = (
        sa.Index("ix_changes_created_at", "created_at"),
        sa.Index(
            "uq_changes_open",
            *("work_order_id", "head_branch"),
            unique=True,
            sqlite_where=_OPEN,
            postgresql_where=_OPEN,
        ),
    )

    change_id: Mapped[str] = mapped_column(sa.String(40), primary_key=True)
    work_order_id: Mapped[str] = mapped_column(sa.String(40), index=True)
    """Or the ticket whose branch it is."""
    forge: Mapped[str] = mapped_column(sa.String(40))
    repository_url: Mapped[str] = mapped_column(sa.Text)
    base_branch: Mapped[str] = mapped_column(sa.String(255))
    base_commit: Mapped[str] = mapped_column(sa.String(64))
    head_branch: Mapped[str] = mapped_column(sa.String(255))
    head_commit: Mapped[str] = mapped_column(sa.String(64))
    title: Mapped[str] = mapped_column(sa.Text)
    body: Mapped[str] = mapped_column(sa.Text)
    state: Mapped[str] = mapped_column(sa.String(20))
    mergeable: Mapped[str] = mapped_column(sa.String(10))
    """`true`, `false` or `unknown`, as of `checked_at`."""
    conflicts: Mapped[list[str]] = mapped_column(default=list)
    checked_at: Mapped[datetime | None]
    planned_commit: Mapped[str | None] = mapped_column(sa.String(64))
    """Noted before a merge is pushed: after a crash it tells whether the push took effect."""
    merge_commit: Mapped[str | None] = mapped_column(sa.String(64))
    url: Mapped[str | None] = mapped_column(sa.Text)
    number: Mapped[int | None]
    """The forge's own number of it."""
    created_at: Mapped[datetime] = mapped_column(server_default=db_time())
    updated_at: Mapped[datetime] = mapped_column(server_default=db_time(), onupdate=db_time())
    merged_at: Mapped[datetime | None]
    closed_at: Mapped[datetime | None]


class ChangeReview(Base):
    """What somebody said about a change that has no pages elsewhere."""

    __tablename__ = "change_reviews"

    id: Mapped[int] = mapped_column(sa.Integer, primary_key=True)
    change_id: Mapped[str] = mapped_column(sa.ForeignKey("changes.change_id"), index=True)
    head_commit: Mapped[str] = mapped_column(sa.String(64))
    author: Mapped[str] = mapped_column(sa.String(100))
    verdict: Mapped[str] = mapped_column(sa.String(20))
    body: Mapped[str] = mapped_column(sa.Text)
    created_at: Mapped[datetime] = mapped_column(server_default=db_time())


class Delivery(Base):
    """Something a forge told us, or a poll found: kept once, handled once."""

    __tablename__ = "forge_deliveries"
    __table_args__ = (
        sa.UniqueConstraint("repository_url", "signal_key"),
        sa.Index("ix_forge_deliveries_waiting", "received_at", sqlite_where=_WAITING, postgresql_where=_WAITING),
        sa.Index(
            "ix_forge_deliveries_unanswered", "handled_at", sqlite_where=_UNANSWERED, postgresql_where=_UNANSWERED
        ),
        sa.Index("ix_forge_deliveries_subject", "repository_url", "number", "received_at"),
    )

    delivery_id: Mapped[str] = mapped_column(sa.String(250), primary_key=True)
    """`hook:HOST:` and the sender's id, or `poll:HOST:` and what was found: the two never collide."""
    repository_url: Mapped[str] = mapped_column(sa.Text)
    event: Mapped[str] = mapped_column(sa.String(80))
    signal_key: Mapped[str | None] = mapped_column(sa.String(250))
    number: Mapped[int | None] = mapped_column(sa.BigInteger)
    signal: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """What it says; empty when it says nothing to us."""
    state: Mapped[str] = mapped_column(sa.String(20))
    note: Mapped[str] = mapped_column(sa.Text, default="")
    """Why it led to nothing; or at which commits a ticket's change and branch stood when it was answered."""
    received_at: Mapped[datetime] = mapped_column(server_default=db_time())
    handled_at: Mapped[datetime | None]
    work_order_id: Mapped[str | None] = mapped_column(sa.String(40))
    """Whose change it is about: an order's or a ticket's."""
    reaction: Mapped[str] = mapped_column(sa.String(40), default="")
    """What was done about it; empty while nothing was."""
