"""The sandboxes' table."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from shopfloor.kit.db import Base, db_time


class SandboxRow(Base):
    """A place where an attempt runs, or a foreign one that only reports here (external)."""

    __tablename__ = "sandboxes"

    sandbox_id: Mapped[str] = mapped_column(sa.String(255), primary_key=True)
    sandbox_type: Mapped[str] = mapped_column(sa.String(40))
    state: Mapped[str] = mapped_column(sa.String(20), index=True)
    host_id: Mapped[str] = mapped_column(sa.String(40))
    work_order_id: Mapped[str | None] = mapped_column(sa.String(40), index=True)
    attempt_id: Mapped[str | None] = mapped_column(sa.String(50), index=True)
    task_id: Mapped[str | None] = mapped_column(sa.String(255), index=True)
    agent_id: Mapped[str | None] = mapped_column(sa.String(255))
    fencing: Mapped[int] = mapped_column(default=0)
    missed_heartbeats: Mapped[int] = mapped_column(default=0)
    """The last rung of the ladder that was announced; liveness itself is read from the event log."""
    denied_told: Mapped[int] = mapped_column(default=0, server_default="0")
    """How many refusals of its gate were announced."""
    reason: Mapped[str] = mapped_column(sa.Text, default="")
    exit_code: Mapped[int | None]
    capabilities: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime] = mapped_column(server_default=db_time())
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
