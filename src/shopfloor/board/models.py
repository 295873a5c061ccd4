"""The tables of the board."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from shopfloor.kit.db import Base, db_time


class Ticket(Base):
    """A card. Its work gathers on one branch; it is done when its criteria are proven on that branch's head."""

    __tablename__ = "tickets"
    __table_args__ = (
        sa.Index("ix_tickets_board", "project_id", "archived_at", "status", "rank", "ticket_id"),
        sa.Index("ix_tickets_approval", "approval", "approval_deadline"),
    )

    ticket_id: Mapped[str] = mapped_column(sa.String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(sa.ForeignKey("projects.project_id"))
    spec_id: Mapped[str | None] = mapped_column(sa.String(40), index=True)
    owner: Mapped[str | None] = mapped_column(sa.String(200), index=True)
    title: Mapped[str] = mapped_column(sa.String(500))
    description: Mapped[str] = mapped_column(sa.Text, default="")
    kind: Mapped[str] = mapped_column(sa.String(20), default="feat")
    """What its branch is called after: feat, fix, …"""
    priority: Mapped[str] = mapped_column(sa.String(20))
    rank: Mapped[float] = mapped_column(default=0.0)
    """Its place in a column, lower first."""
    github_issue_number: Mapped[int | None]

    status: Mapped[str] = mapped_column(sa.String(20))
    previous_status: Mapped[str | None] = mapped_column(sa.String(20))
    reason: Mapped[str] = mapped_column(sa.Text, default="")
    """Why it stands where it stands."""
    is_blocked: Mapped[bool] = mapped_column(default=False)
    blocked_class: Mapped[str | None] = mapped_column(sa.String(40))
    blocked_reason: Mapped[str] = mapped_column(sa.Text, default="")
    blocked_who: Mapped[str | None] = mapped_column(sa.String(200))
    """Who said so: what the board found goes away by itself, what a person said does not."""
    blocked_at: Mapped[datetime | None]
    unblocked_at: Mapped[datetime | None]
    """When a person last said that nothing is in its way: what failed before is tried again."""
    approval: Mapped[str] = mapped_column(sa.String(20))
    approval_deadline: Mapped[datetime | None]
    approval_by: Mapped[str | None] = mapped_column(sa.String(200))
    approval_reason: Mapped[str] = mapped_column(sa.Text, default="")

    context: Mapped[dict[str, Any]] = mapped_column(default=dict)
    context_summary: Mapped[str] = mapped_column(sa.Text, default="")
    branch: Mapped[str | None] = mapped_column(sa.String(255))
    base_branch: Mapped[str | None] = mapped_column(sa.String(255))
    base_commit: Mapped[str | None] = mapped_column(sa.String(64))
    """Where its branch left the base."""
    head_commit: Mapped[str | None] = mapped_column(sa.String(64))
    """The newest commit of its branch; evidence counts on this one only."""
    change_id: Mapped[str | None] = mapped_column(sa.String(40))
    offered: Mapped[str | None] = mapped_column(sa.String(64))
    """The hash of what the forge was last told of its change: the same is not told again."""
    merge_commit: Mapped[str | None] = mapped_column(sa.String(64))
    conflicts: Mapped[list[Any]] = mapped_column(default=list)
    """Of `{with, paths}`: what its branch does not merge with, by the newest union check."""
    behind: Mapped[int] = mapped_column(default=0)
    """How many commits its base has that it has not."""

    created_at: Mapped[datetime] = mapped_column(server_default=db_time())
    updated_at: Mapped[datetime] = mapped_column(server_default=db_time(), onupdate=db_time())
    progressed_at: Mapped[datetime] = mapped_column(server_default=db_time())
    """When something of it last got further: blocking is counted from here."""
    done_at: Mapped[datetime | None]
    archived_at: Mapped[datetime | None]


class TicketDependency(Base):
    """One ticket waits for another."""

    __tablename__ = "ticket_dependencies"

    ticket_id: Mapped[str] = mapped_column(sa.ForeignKey("tickets.ticket_id"), primary_key=True)
    blocked_by: Mapped[str] = mapped_column(sa.ForeignKey("tickets.ticket_id"), primary_key=True, index=True)


class TicketMove(Base):
    """One step of a ticket over the board, by whomever. Rows are only ever added."""

    __tablename__ = "ticket_moves"

    id: Mapped[int] = mapped_column(primary_key=True)
    ticket_id: Mapped[str] = mapped_column(sa.ForeignKey("tickets.ticket_id"), index=True)
    before: Mapped[str] = mapped_column(sa.String(20))
    after: Mapped[str] = mapped_column(sa.String(20))
    how: Mapped[str] = mapped_column(sa.String(20))
    moved_by: Mapped[str] = mapped_column(sa.String(200))
    reason: Mapped[str] = mapped_column(sa.Text, default="")
    overridden: Mapped[list[Any]] = mapped_column(default=list)
    """The gates that did not hold and were overridden, with what was missing."""
    created_at: Mapped[datetime] = mapped_column(server_default=db_time())


class Union(Base):
    """A project's live branches as they were last merged together in memory, to be checked."""

    __tablename__ = "unions"

    project_id: Mapped[str] = mapped_column(sa.ForeignKey("projects.project_id"), primary_key=True)
    commit: Mapped[str] = mapped_column(sa.String(64))
    ticket_ids: Mapped[list[str]] = mapped_column(default=list)
    """Whose branches are in it; those that conflict are not."""
    run_id: Mapped[str] = mapped_column(sa.String(40))


class QueuedMerge(Base):
    """A ticket waiting to be merged; one of a project at a time is tried."""

    __tablename__ = "queued_merges"
    __table_args__ = (sa.Index("ix_queued_merges_project_id", "project_id", "state", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(sa.ForeignKey("projects.project_id"))
    ticket_id: Mapped[str] = mapped_column(sa.ForeignKey("tickets.ticket_id"), index=True)
    head_commit: Mapped[str] = mapped_column(sa.String(64))
    state: Mapped[str] = mapped_column(sa.String(20))
    reason: Mapped[str] = mapped_column(sa.Text, default="")
    batch: Mapped[int] = mapped_column(default=0)
    """How many are tried together with it at most, after a failure; 0: all that wait."""
    candidate: Mapped[str | None] = mapped_column(sa.String(64))
    """The merged commit that is being checked."""
    run_id: Mapped[str | None] = mapped_column(sa.String(40))
    created_at: Mapped[datetime] = mapped_column(server_default=db_time())
    ended_at: Mapped[datetime | None]
