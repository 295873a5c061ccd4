"""The tables of tasks."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from shopfloor.kit.db import Base, db_time


class Task(Base):
    """One executable unit. It is run as a work order; its status follows that order."""

    __tablename__ = "tasks"
    __table_args__ = (
        sa.Index("ix_tasks_queue", "project_id", "status", "forced", "held", "open_dependencies", "rank", "task_id"),
        sa.Index("ix_tasks_ticket_id_phase", "ticket_id", "phase", "status"),
        sa.Index("ix_tasks_status", "status", "created_at"),
        sa.Index("ix_tasks_not_before", "status", "not_before"),
        sa.Index("ix_tasks_created_at", "created_at", "task_id"),
    )

    task_id: Mapped[str] = mapped_column(sa.String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(sa.ForeignKey("projects.project_id"))
    ticket_id: Mapped[str | None] = mapped_column(sa.String(40))
    spec_id: Mapped[str | None] = mapped_column(sa.String(40))
    phase: Mapped[str] = mapped_column(sa.String(20))
    """The column of the board that its work belongs to."""
    title: Mapped[str] = mapped_column(sa.String(500), default="")
    description: Mapped[str] = mapped_column(sa.Text, default="")
    """What its agent is told."""
    workflow_type: Mapped[str] = mapped_column(sa.String(40))
    agent: Mapped[str | None] = mapped_column(sa.String(60))
    model: Mapped[str | None] = mapped_column(sa.String(200))
    agent_options: Mapped[dict[str, Any]] = mapped_column(default=dict)
    base_branch: Mapped[str | None] = mapped_column(sa.String(255))
    """Where its work begins; None: the project's own base."""
    owned_paths: Mapped[list[str]] = mapped_column(default=list)
    """Globs of the files it may touch: tasks that share some do not run together."""
    priority: Mapped[str] = mapped_column(sa.String(20))
    deadline: Mapped[datetime | None]
    rank: Mapped[float] = mapped_column(default=0.0)
    """Its place in the queue, lower first: seconds since 1970 that priority and deadline have moved; waiting wins in the end."""
    timeout_seconds: Mapped[float | None]
    max_retries: Mapped[int] = mapped_column(default=3)
    retries: Mapped[int] = mapped_column(default=0)
    not_before: Mapped[datetime | None]

    status: Mapped[str] = mapped_column(sa.String(20))
    reason: Mapped[str] = mapped_column(sa.Text, default="")
    stopping: Mapped[str | None] = mapped_column(sa.String(20))
    """The status it gets once its agent has been stopped."""
    held: Mapped[bool] = mapped_column(default=False)
    """Not to be started yet: its ticket is not approved, blocked, or in another column."""
    forced: Mapped[bool] = mapped_column(default=False)
    """A person started it: its project need not be autonomous."""
    open_dependencies: Mapped[int] = mapped_column(default=0)
    """How many tasks it depends on are not completed."""
    work_order_id: Mapped[str | None] = mapped_column(sa.String(40), index=True)
    sandbox_id: Mapped[str | None] = mapped_column(sa.String(255), index=True)
    """Of its newest attempt (LIF-06)."""
    conversation_id: Mapped[str | None] = mapped_column(sa.String(255))
    result: Mapped[dict[str, Any] | None] = mapped_column(sa.JSON(none_as_null=True))
    gathered: Mapped[bool] = mapped_column(default=False)
    """Its work is in its ticket's branch, or need not be: nothing else of the ticket starts before."""
    created_at: Mapped[datetime] = mapped_column(server_default=db_time())
    updated_at: Mapped[datetime] = mapped_column(server_default=db_time(), onupdate=db_time())
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class TaskDependency(Base):
    """One task waits for another."""

    __tablename__ = "task_dependencies"

    task_id: Mapped[str] = mapped_column(sa.ForeignKey("tasks.task_id"), primary_key=True)
    depends_on: Mapped[str] = mapped_column(sa.ForeignKey("tasks.task_id"), primary_key=True, index=True)
