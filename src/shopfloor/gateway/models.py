"""The tables of the gateway."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from shopfloor.kit.db import Base, db_time


class ModelGrant(Base):
    """What a sandbox may ask of models, and for whom it does. Budgets in US dollars."""

    __tablename__ = "model_grants"

    sandbox_id: Mapped[str] = mapped_column(sa.String(255), primary_key=True)
    attempt_id: Mapped[str] = mapped_column(sa.String(50))
    work_order_id: Mapped[str] = mapped_column(sa.String(40))
    project_id: Mapped[str | None] = mapped_column(sa.String(40))
    task_id: Mapped[str | None] = mapped_column(sa.String(40))
    ticket_id: Mapped[str | None] = mapped_column(sa.String(40))
    spec_id: Mapped[str | None] = mapped_column(sa.String(40))
    account: Mapped[str] = mapped_column(sa.String(60))
    order_budget_usd: Mapped[float | None]
    project_budget_usd: Mapped[float | None]
    created_at: Mapped[datetime] = mapped_column(server_default=db_time())


class ModelTotal(Base):
    """What was spent for somebody: the sum of the calls that have ended, kept so that a budget costs one look."""

    __tablename__ = "model_totals"

    whose: Mapped[str] = mapped_column(sa.String(60), primary_key=True)
    """A work order's or a project's id."""
    spent_usd: Mapped[float] = mapped_column(default=0.0)


class ModelCall(Base):
    """One call of a model: opened before it is sent, closed when its answer has ended however it did."""

    __tablename__ = "model_calls"
    __table_args__ = (
        sa.Index("ix_model_calls_order", "work_order_id", "cost_usd"),
        sa.Index(
            "ix_model_calls_running",
            "work_order_id",
            "project_id",
            "most_usd",
            sqlite_where=sa.text("ended_at IS NULL"),
            postgresql_where=sa.text("ended_at IS NULL"),
        ),
        *(
            sa.Index(
                f"ix_model_calls_{whose}",
                whose,
                sqlite_where=sa.text(f"{whose} IS NOT NULL"),
                postgresql_where=sa.text(f"{whose} IS NOT NULL"),
            )
            for whose in ("task_id", "ticket_id", "spec_id")
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    sandbox_id: Mapped[str] = mapped_column(sa.String(255))
    attempt_id: Mapped[str] = mapped_column(sa.String(50), index=True)
    work_order_id: Mapped[str] = mapped_column(sa.String(40))
    project_id: Mapped[str | None] = mapped_column(sa.String(40), index=True)
    task_id: Mapped[str | None] = mapped_column(sa.String(40))
    ticket_id: Mapped[str | None] = mapped_column(sa.String(40))
    spec_id: Mapped[str | None] = mapped_column(sa.String(40))
    """The spec its ticket belonged to when the work began."""
    account: Mapped[str] = mapped_column(sa.String(60))
    model: Mapped[str] = mapped_column(sa.String(200))
    host_id: Mapped[str] = mapped_column(sa.String(40))
    """The host whose gateway carries it."""
    most_usd: Mapped[float | None]
    """What it can cost at most; None when there is no telling."""
    status: Mapped[int | None]
    """HTTP, of the provider's answer; None while there is none."""
    refusal: Mapped[str] = mapped_column(sa.Text, default="")
    """Why the gateway did not let it pass."""
    input_tokens: Mapped[int] = mapped_column(default=0)
    cache_read_tokens: Mapped[int] = mapped_column(default=0)
    cache_write_tokens: Mapped[int] = mapped_column(default=0)
    output_tokens: Mapped[int] = mapped_column(default=0)
    cost_usd: Mapped[float | None]
    """None while it runs, and when the model's price is unknown."""
    estimated: Mapped[bool] = mapped_column(default=False)
    """Whether it was cut before the provider said what it used."""
    first_byte_ms: Mapped[int | None]
    took_ms: Mapped[int | None]
    opened_at: Mapped[datetime] = mapped_column(server_default=db_time(), index=True)
    ended_at: Mapped[datetime | None]


class AccountPause(Base):
    """An account that its provider lets call again only later."""

    __tablename__ = "account_pauses"

    account: Mapped[str] = mapped_column(sa.String(60), primary_key=True)
    paused_until: Mapped[datetime]
    reason: Mapped[str] = mapped_column(sa.Text)
    paused_at: Mapped[datetime] = mapped_column(server_default=db_time())
