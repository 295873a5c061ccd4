"""The tables of evidence: what must hold, what was checked, what was proven."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from shopfloor.kit.db import Base, db_time

_OPEN = sa.text("state IN ('queued', 'running')")
OPEN_ONLY: Any = {"postgresql_where": _OPEN, "sqlite_where": _OPEN}
"""Of the same subject, purpose and commit there is one open run at a time."""


class Criterion(Base):
    """Something that must hold before its subject is done."""

    __tablename__ = "criteria"
    __table_args__ = (sa.Index("ix_criteria_subject", "subject_id", "position"),)

    criterion_id: Mapped[str] = mapped_column(sa.String(40), primary_key=True)
    subject_id: Mapped[str] = mapped_column(sa.String(40))
    """A ticket."""
    position: Mapped[int] = mapped_column(default=0)
    text: Mapped[str] = mapped_column(sa.Text)
    check: Mapped[dict[str, Any] | None] = mapped_column(sa.JSON)
    """How it is checked; None: only a person can say."""
    check_hash: Mapped[str] = mapped_column(sa.String(64))
    """What a finding must be a finding of to be fresh."""
    created_at: Mapped[datetime] = mapped_column(server_default=db_time())
    retired_at: Mapped[datetime | None]
    """When it stopped counting; what was proven of it stays."""


class Evidence(Base):
    """The ledger: what was found of one criterion on one commit. Rows are only ever added."""

    __tablename__ = "evidence"
    __table_args__ = (
        sa.Index("ix_evidence_criterion_id_commit", "criterion_id", "commit", "id"),
        sa.UniqueConstraint("run_id", "criterion_id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    criterion_id: Mapped[str] = mapped_column(sa.ForeignKey("criteria.criterion_id"))
    commit: Mapped[str] = mapped_column(sa.String(64))
    verdict: Mapped[str] = mapped_column(sa.String(20))
    reason: Mapped[str] = mapped_column(sa.Text, default="")
    output: Mapped[str] = mapped_column(sa.Text, default="")
    """The end of what it printed."""
    output_sha256: Mapped[str | None] = mapped_column(sa.String(64))
    """The blob with all of it."""
    check_hash: Mapped[str] = mapped_column(sa.String(64), default="")
    """Of the check as it was: another check proves nothing of this."""
    run_id: Mapped[str | None] = mapped_column(sa.ForeignKey("check_runs.run_id"))
    said_by: Mapped[str] = mapped_column(sa.String(200))
    """`check`, `person:NAME` or `agent:WORK_ORDER`."""
    took_ms: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(server_default=db_time())


class CheckRun(Base):
    """Checks that run together in sandboxes of their own on one commit."""

    __tablename__ = "check_runs"
    __table_args__ = (
        sa.Index("ix_check_runs_subject_id_commit", "subject_id", "commit"),
        sa.Index("ix_check_runs_state", "state", "created_at"),
        sa.Index("uq_check_runs_open", "subject_id", "purpose", "commit", unique=True, **OPEN_ONLY),
    )

    run_id: Mapped[str] = mapped_column(sa.String(40), primary_key=True)
    subject_id: Mapped[str] = mapped_column(sa.String(40))
    """A ticket, or whatever wants to know."""
    purpose: Mapped[str] = mapped_column(sa.String(20))
    """`criteria`, `merged`, `union` (of a merge queue) or `live branches`."""
    project_id: Mapped[str | None] = mapped_column(sa.String(40), index=True)
    repository_url: Mapped[str] = mapped_column(sa.Text)
    base_commit: Mapped[str] = mapped_column(sa.String(64))
    """What may not be changed to pass is compared with this one."""
    commit: Mapped[str] = mapped_column(sa.String(64))
    host_id: Mapped[str | None] = mapped_column(sa.String(40))
    """The host that has this commit, when no origin has it."""
    checks: Mapped[list[Any]] = mapped_column(default=list)
    """Of `{number, criterion_id?, check, check_hash, line?, allow?}`; `line` is the shell line that is run, `allow` the hosts it may reach."""
    state: Mapped[str] = mapped_column(sa.String(20))
    verdict: Mapped[str | None] = mapped_column(sa.String(20))
    reason: Mapped[str] = mapped_column(sa.Text, default="")
    results: Mapped[list[Any]] = mapped_column(default=list)
    """Of `{number, criterion_id?, verdict, reason, output_sha256, took_ms}`, as they are found."""
    attempts: Mapped[int] = mapped_column(default=0)
    """Its fencing number: who took it up with an earlier one can write nothing more."""
    engine_id: Mapped[str | None] = mapped_column(sa.String(80))
    sandbox_id: Mapped[str | None] = mapped_column(sa.String(255))
    created_at: Mapped[datetime] = mapped_column(server_default=db_time())
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
