"""The table of changes."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from shopfloor.kit.db import Base, db_time

_OPEN = sa.text("state = 'open'")


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
