"""Models through the gateway: grants, calls, pauses; projects; what orders know of both."""

import sqlalchemy as sa
from alembic import op

from shopfloor.kit.db import Instant, db_time

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _books()
    _projects()


def _books() -> None:
    op.create_table(
        "account_pauses",
        sa.Column("account", sa.String(length=60), nullable=False),
        sa.Column("paused_until", Instant(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("paused_at", Instant(), server_default=db_time(), nullable=False),
        sa.PrimaryKeyConstraint("account", name=op.f("pk_account_pauses")),
    )
    op.create_table(
        "model_calls",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sandbox_id", sa.String(length=255), nullable=False),
        sa.Column("attempt_id", sa.String(length=50), nullable=False),
        sa.Column("work_order_id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=True),
        sa.Column("account", sa.String(length=60), nullable=False),
        sa.Column("model", sa.String(length=200), nullable=False),
        sa.Column("host_id", sa.String(length=40), nullable=False),
        sa.Column("most_usd", sa.Double(), nullable=True),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("refusal", sa.Text(), nullable=False),
        sa.Column("input_tokens", sa.Integer(), nullable=False),
        sa.Column("cache_read_tokens", sa.Integer(), nullable=False),
        sa.Column("cache_write_tokens", sa.Integer(), nullable=False),
        sa.Column("output_tokens", sa.Integer(), nullable=False),
        sa.Column("cost_usd", sa.Double(), nullable=True),
        sa.Column("estimated", sa.Boolean(), nullable=False),
        sa.Column("first_byte_ms", sa.Integer(), nullable=True),
        sa.Column("took_ms", sa.Integer(), nullable=True),
        sa.Column("opened_at", Instant(), server_default=db_time(), nullable=False),
        sa.Column("ended_at", Instant(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_calls")),
    )
    with op.batch_alter_table("model_calls", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_model_calls_attempt_id"), ["attempt_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_model_calls_opened_at"), ["opened_at"], unique=False)
        batch_op.create_index("ix_model_calls_order", ["work_order_id", "cost_usd"], unique=False)
        batch_op.create_index(batch_op.f("ix_model_calls_project_id"), ["project_id"], unique=False)
        batch_op.create_index(
            "ix_model_calls_running",
            ["work_order_id", "project_id", "most_usd"],
            unique=False,
            sqlite_where=sa.text("ended_at IS NULL"),
            postgresql_where=sa.text("ended_at IS NULL"),
        )

    op.create_table(
        "model_grants",
        sa.Column("sandbox_id", sa.String(length=255), nullable=False),
        sa.Column("attempt_id", sa.String(length=50), nullable=False),
        sa.Column("work_order_id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=True),
        sa.Column("account", sa.String(length=60), nullable=False),
        sa.Column("order_budget_usd", sa.Double(), nullable=True),
        sa.Column("project_budget_usd", sa.Double(), nullable=True),
        sa.Column("created_at", Instant(), server_default=db_time(), nullable=False),
        sa.PrimaryKeyConstraint("sandbox_id", name=op.f("pk_model_grants")),
    )
    op.create_table(
        "model_totals",
        sa.Column("whose", sa.String(length=60), nullable=False),
        sa.Column("spent_usd", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("whose", name=op.f("pk_model_totals")),
    )


def _projects() -> None:
    op.create_table(
        "projects",
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("repository_url", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("agent", sa.String(length=60), nullable=True),
        sa.Column("sandbox_type", sa.String(length=40), nullable=True),
        sa.Column("budget_usd", sa.Double(), nullable=True),
        sa.Column("work_order_budget_usd", sa.Double(), nullable=True),
        sa.Column("allow", sa.JSON(), nullable=False),
        sa.Column("branch_template", sa.String(length=200), nullable=True),
        sa.Column("created_at", Instant(), server_default=db_time(), nullable=False),
        sa.Column("updated_at", Instant(), server_default=db_time(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", name=op.f("pk_projects")),
        sa.UniqueConstraint("name", name=op.f("uq_projects_name")),
        sa.UniqueConstraint("repository_url", name=op.f("uq_projects_repository_url")),
    )
    with op.batch_alter_table("sandboxes", schema=None) as batch_op:
        batch_op.add_column(sa.Column("denied_told", sa.Integer(), server_default="0", nullable=False))

    with op.batch_alter_table("work_orders", schema=None) as batch_op:
        batch_op.add_column(sa.Column("project_id", sa.String(length=40), nullable=True))
        batch_op.add_column(sa.Column("account", sa.String(length=60), nullable=True))
        batch_op.add_column(sa.Column("budget_usd", sa.Double(), nullable=True))
        batch_op.create_index(batch_op.f("ix_work_orders_project_id"), ["project_id"], unique=False)
