"""The tables of work orders."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from shopfloor.kit.db import Base, db_time


class WorkOrder(Base):
    """One piece of agent work. Git numbers are those of the newest imported bundle, computed by git."""

    __tablename__ = "work_orders"
    __table_args__ = (sa.Index("ix_work_orders_queue", "status", "not_before", "created_at"),)

    agent_work_order_id: Mapped[str] = mapped_column(sa.String(40), primary_key=True)
    repository_url: Mapped[str] = mapped_column(sa.Text)
    workflow_type: Mapped[str] = mapped_column(sa.String(40))
    sandbox_type: Mapped[str] = mapped_column(sa.String(40))
    agent: Mapped[str] = mapped_column(sa.String(60))
    model: Mapped[str | None] = mapped_column(sa.String(200))
    project_id: Mapped[str | None] = mapped_column(sa.String(40), index=True)
    task_id: Mapped[str | None] = mapped_column(sa.String(40), index=True)
    """The task it is the work of."""
    ticket_id: Mapped[str | None] = mapped_column(sa.String(40), index=True)
    spec_id: Mapped[str | None] = mapped_column(sa.String(40))
    offers: Mapped[bool] = mapped_column(default=True, server_default=sa.true())
    """Whether its branch is offered for review by itself; a ticket's work is offered as a whole."""
    question: Mapped[str | None] = mapped_column(sa.String(150), index=True)
    """What wants an answer of it, such as `title:TASK`: then nothing is delivered but that answer."""
    answer: Mapped[str | None] = mapped_column(sa.Text)
    answer_taken: Mapped[bool] = mapped_column(default=False, server_default=sa.false())
    account: Mapped[str | None] = mapped_column(sa.String(60))
    """The model account it uses through the gateway; None: its agent asks no model, or by itself."""
    budget_usd: Mapped[float | None]
    agent_options: Mapped[dict[str, Any]] = mapped_column(default=dict)
    initial_prompt: Mapped[str] = mapped_column(sa.Text, default="")
    prompts: Mapped[list[str]] = mapped_column(default=list)
    """Said before the agent started or with a retry; the next attempt begins with them."""
    github_issue_number: Mapped[int | None]
    base_branch: Mapped[str | None] = mapped_column(sa.String(255))
    base_commit: Mapped[str | None] = mapped_column(sa.String(64))
    git_branch_name: Mapped[str | None] = mapped_column(sa.String(255))
    agent_session_id: Mapped[str | None] = mapped_column(sa.String(255))
    sandbox_identifier: Mapped[str | None] = mapped_column(sa.String(255))
    allow_no_isolation: Mapped[bool] = mapped_column(default=False)
    idempotency_key: Mapped[str | None] = mapped_column(sa.String(200), unique=True)
    request_hash: Mapped[str] = mapped_column(sa.String(64), default="")
    """Of what was asked for with the key; the columns themselves change while the order lives."""

    status: Mapped[str] = mapped_column(sa.String(20))
    current_phase: Mapped[str | None] = mapped_column(sa.String(20))
    reason: Mapped[str] = mapped_column(sa.Text, default="")
    attempts: Mapped[int] = mapped_column(default=0)
    max_attempts: Mapped[int] = mapped_column(default=3)
    timeout_seconds: Mapped[float]
    not_before: Mapped[datetime] = mapped_column(server_default=db_time())
    cancel_requested_at: Mapped[datetime | None]

    git_commit_count: Mapped[int] = mapped_column(default=0)
    git_files_changed: Mapped[int] = mapped_column(default=0)
    git_lines_added: Mapped[int] = mapped_column(default=0)
    git_lines_removed: Mapped[int] = mapped_column(default=0)
    head_commit: Mapped[str | None] = mapped_column(sa.String(64))
    change_id: Mapped[str | None] = mapped_column(sa.String(40))
    github_pull_request_url: Mapped[str | None] = mapped_column(sa.Text)
    cost_usd: Mapped[float | None]
    """What its agents said they spent, where the gateway does not count."""

    created_at: Mapped[datetime] = mapped_column(server_default=db_time())
    updated_at: Mapped[datetime] = mapped_column(server_default=db_time(), onupdate=db_time())
    execution_started_at: Mapped[datetime | None]
    execution_completed_at: Mapped[datetime | None]


class Attempt(Base):
    """One try at a work order in one sandbox; its number is its fencing number."""

    __tablename__ = "attempts"
    __table_args__ = (sa.UniqueConstraint("work_order_id", "number"),)

    attempt_id: Mapped[str] = mapped_column(sa.String(50), primary_key=True)
    work_order_id: Mapped[str] = mapped_column(sa.ForeignKey("work_orders.agent_work_order_id"), index=True)
    number: Mapped[int]
    state: Mapped[str] = mapped_column(sa.String(20))
    engine_id: Mapped[str] = mapped_column(sa.String(80), index=True)
    sandbox_id: Mapped[str] = mapped_column(sa.String(255), unique=True)
    reason: Mapped[str] = mapped_column(sa.Text, default="")
    result: Mapped[dict[str, Any] | None] = mapped_column(sa.JSON)
    """What the worker submitted, once."""
    concluded: Mapped[bool] = mapped_column(default=False)
    """Its sandbox is gone and the order knows its outcome."""
    stop_ms: Mapped[int | None]
    """How long the graceful stop of its sandbox took (FLT-03)."""
    stop_forced: Mapped[bool | None]
    created_at: Mapped[datetime] = mapped_column(server_default=db_time())
    ended_at: Mapped[datetime | None]


class Artifact(Base):
    """Something a sandbox handed out: a bundle of commits, a transcript. The bytes are a blob."""

    __tablename__ = "artifacts"

    id: Mapped[int] = mapped_column(primary_key=True)
    work_order_id: Mapped[str] = mapped_column(sa.ForeignKey("work_orders.agent_work_order_id"), index=True)
    attempt_id: Mapped[str] = mapped_column(sa.ForeignKey("attempts.attempt_id"), index=True)
    name: Mapped[str] = mapped_column(sa.String(100))
    sha256: Mapped[str] = mapped_column(sa.String(64))
    size: Mapped[int] = mapped_column(sa.BigInteger)
    head_commit: Mapped[str | None] = mapped_column(sa.String(64))
    imported: Mapped[bool] = mapped_column(default=False)
    note: Mapped[str] = mapped_column(sa.Text, default="")
    """Why it could not be imported."""
    created_at: Mapped[datetime] = mapped_column(server_default=db_time())


class Pin(Base):
    """Something a removed sandbox held beyond what was handed out, kept until policy lets it go."""

    __tablename__ = "pins"
    __table_args__ = (sa.UniqueConstraint("sandbox_id", "kind", "content"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    sandbox_id: Mapped[str] = mapped_column(sa.String(255))
    work_order_id: Mapped[str | None] = mapped_column(sa.String(40), index=True)
    attempt_id: Mapped[str | None] = mapped_column(sa.String(50))
    kind: Mapped[str] = mapped_column(sa.String(20))
    content: Mapped[str] = mapped_column(sa.String(64), index=True)
    """The blob's sha256; for commits, the hash of their names."""
    refs: Mapped[list[str]] = mapped_column(default=list)
    """References in the repository of the orders' commits."""
    facts: Mapped[dict[str, Any]] = mapped_column(default=dict)
    size: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    reason: Mapped[str] = mapped_column(sa.Text, default="")
    """Why the sandbox ended."""
    note: Mapped[str] = mapped_column(sa.Text, default="")
    """What could not be kept, or was left out by policy."""
    created_at: Mapped[datetime] = mapped_column(server_default=db_time())
    gone_at: Mapped[datetime | None]
    """When policy let it go."""
