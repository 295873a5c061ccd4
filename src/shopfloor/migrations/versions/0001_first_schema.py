"""The first schema."""

import sqlalchemy as sa
from alembic import op

from shopfloor.kit.db import Instant, db_time

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "changes",
        sa.Column("change_id", sa.String(length=40), nullable=False),
        sa.Column("work_order_id", sa.String(length=40), nullable=False),
        sa.Column("forge", sa.String(length=40), nullable=False),
        sa.Column("repository_url", sa.Text(), nullable=False),
        sa.Column("base_branch", sa.String(length=255), nullable=False),
        sa.Column("base_commit", sa.String(length=64), nullable=False),
        sa.Column("head_branch", sa.String(length=255), nullable=False),
        sa.Column("head_commit", sa.String(length=64), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("mergeable", sa.String(length=10), nullable=False),
        sa.Column("conflicts", sa.JSON(), nullable=False),
        sa.Column("checked_at", Instant(), nullable=True),
        sa.Column("planned_commit", sa.String(length=64), nullable=True),
        sa.Column("merge_commit", sa.String(length=64), nullable=True),
        sa.Column("url", sa.Text(), nullable=True),
        sa.Column("created_at", Instant(), server_default=db_time(), nullable=False),
        sa.Column("updated_at", Instant(), server_default=db_time(), nullable=False),
        sa.Column("merged_at", Instant(), nullable=True),
        sa.Column("closed_at", Instant(), nullable=True),
        sa.PrimaryKeyConstraint("change_id", name=op.f("pk_changes")),
    )
    with op.batch_alter_table("changes", schema=None) as batch_op:
        batch_op.create_index("ix_changes_created_at", ["created_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_changes_work_order_id"), ["work_order_id"], unique=False)
        batch_op.create_index(
            "uq_changes_open",
            ["work_order_id", "head_branch"],
            unique=True,
            sqlite_where=sa.text("state = 'open'"),
            postgresql_where=sa.text("state = 'open'"),
        )

    op.create_table(
        "engines",
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("host_id", sa.String(length=40), nullable=False),
        sa.Column("seen_at", Instant(), server_default=db_time(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_engines")),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("xid", sa.BigInteger(), nullable=False),
        sa.Column("event_type", sa.String(length=100), nullable=False),
        sa.Column("entity_type", sa.String(length=50), nullable=False),
        sa.Column("entity_id", sa.String(length=255), nullable=False),
        sa.Column("source", sa.String(length=50), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("sandbox_id", sa.String(length=255), nullable=True),
        sa.Column("seq", sa.BigInteger(), nullable=True),
        sa.Column("work_order_id", sa.String(length=40), nullable=True),
        sa.Column("spec_id", sa.String(length=40), nullable=True),
        sa.Column("occurred_at", Instant(), nullable=True),
        sa.Column("recorded_at", Instant(), server_default=db_time(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
        sa.UniqueConstraint("sandbox_id", "seq", name=op.f("uq_events_sandbox_id")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.create_index("ix_events_entity", ["entity_id", "xid", "id"], unique=False)
        batch_op.create_index("ix_events_position", ["xid", "id"], unique=False)
        batch_op.create_index(
            "ix_events_spec_id",
            ["spec_id", "id"],
            unique=False,
            sqlite_where=sa.text("spec_id IS NOT NULL"),
            postgresql_where=sa.text("spec_id IS NOT NULL"),
        )
        batch_op.create_index(
            "ix_events_work_order_id",
            ["work_order_id", "id"],
            unique=False,
            sqlite_where=sa.text("work_order_id IS NOT NULL"),
            postgresql_where=sa.text("work_order_id IS NOT NULL"),
        )

    op.create_table(
        "messages",
        sa.Column("position", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("sandbox_id", sa.String(length=255), nullable=False),
        sa.Column("message_type", sa.String(length=40), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("sender", sa.String(length=100), nullable=False),
        sa.Column("idempotency_key", sa.String(length=200), nullable=True),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("lease_until", Instant(), nullable=True),
        sa.Column("leases", sa.Integer(), nullable=False),
        sa.Column("created_at", Instant(), server_default=db_time(), nullable=False),
        sa.Column("delivered_at", Instant(), nullable=True),
        sa.Column("seen_at", Instant(), nullable=True),
        sa.Column("ended_at", Instant(), nullable=True),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_messages")),
        sa.UniqueConstraint("id", name=op.f("uq_messages_id")),
        sa.UniqueConstraint("sandbox_id", "idempotency_key", name=op.f("uq_messages_sandbox_id")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("messages", schema=None) as batch_op:
        batch_op.create_index("ix_messages_sandbox", ["sandbox_id", "state", "position"], unique=False)

    op.create_table(
        "sandbox_tokens",
        sa.Column("sandbox_id", sa.String(length=255), nullable=False),
        sa.Column("token_hash", sa.String(length=64), nullable=False),
        sa.Column("fencing", sa.Integer(), nullable=False),
        sa.Column("revoked", sa.Boolean(), nullable=False),
        sa.Column("created_at", Instant(), server_default=db_time(), nullable=False),
        sa.PrimaryKeyConstraint("sandbox_id", name=op.f("pk_sandbox_tokens")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_sandbox_tokens_token_hash")),
    )
    op.create_table(
        "sandboxes",
        sa.Column("sandbox_id", sa.String(length=255), nullable=False),
        sa.Column("sandbox_type", sa.String(length=40), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("host_id", sa.String(length=40), nullable=False),
        sa.Column("work_order_id", sa.String(length=40), nullable=True),
        sa.Column("attempt_id", sa.String(length=50), nullable=True),
        sa.Column("task_id", sa.String(length=255), nullable=True),
        sa.Column("agent_id", sa.String(length=255), nullable=True),
        sa.Column("fencing", sa.Integer(), nullable=False),
        sa.Column("missed_heartbeats", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("capabilities", sa.JSON(), nullable=False),
        sa.Column("created_at", Instant(), server_default=db_time(), nullable=False),
        sa.Column("started_at", Instant(), nullable=True),
        sa.Column("ended_at", Instant(), nullable=True),
        sa.PrimaryKeyConstraint("sandbox_id", name=op.f("pk_sandboxes")),
    )
    with op.batch_alter_table("sandboxes", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_sandboxes_attempt_id"), ["attempt_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_sandboxes_state"), ["state"], unique=False)
        batch_op.create_index(batch_op.f("ix_sandboxes_task_id"), ["task_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_sandboxes_work_order_id"), ["work_order_id"], unique=False)

    op.create_table(
        "work_orders",
        sa.Column("agent_work_order_id", sa.String(length=40), nullable=False),
        sa.Column("repository_url", sa.Text(), nullable=False),
        sa.Column("workflow_type", sa.String(length=40), nullable=False),
        sa.Column("sandbox_type", sa.String(length=40), nullable=False),
        sa.Column("agent", sa.String(length=60), nullable=False),
        sa.Column("model", sa.String(length=200), nullable=True),
        sa.Column("agent_options", sa.JSON(), nullable=False),
        sa.Column("initial_prompt", sa.Text(), nullable=False),
        sa.Column("prompts", sa.JSON(), nullable=False),
        sa.Column("github_issue_number", sa.Integer(), nullable=True),
        sa.Column("base_branch", sa.String(length=255), nullable=True),
        sa.Column("base_commit", sa.String(length=64), nullable=True),
        sa.Column("git_branch_name", sa.String(length=255), nullable=True),
        sa.Column("agent_session_id", sa.String(length=255), nullable=True),
        sa.Column("sandbox_identifier", sa.String(length=255), nullable=True),
        sa.Column("allow_no_isolation", sa.Boolean(), nullable=False),
        sa.Column("request_hash", sa.String(length=64), nullable=False),
        sa.Column("idempotency_key", sa.String(length=200), nullable=True),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("current_phase", sa.String(length=20), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("timeout_seconds", sa.Double(), nullable=False),
        sa.Column("not_before", Instant(), server_default=db_time(), nullable=False),
        sa.Column("cancel_requested_at", Instant(), nullable=True),
        sa.Column("git_commit_count", sa.Integer(), nullable=False),
        sa.Column("git_files_changed", sa.Integer(), nullable=False),
        sa.Column("git_lines_added", sa.Integer(), nullable=False),
        sa.Column("git_lines_removed", sa.Integer(), nullable=False),
        sa.Column("head_commit", sa.String(length=64), nullable=True),
        sa.Column("change_id", sa.String(length=40), nullable=True),
        sa.Column("github_pull_request_url", sa.Text(), nullable=True),
        sa.Column("cost_usd", sa.Double(), nullable=True),
        sa.Column("created_at", Instant(), server_default=db_time(), nullable=False),
        sa.Column("updated_at", Instant(), server_default=db_time(), nullable=False),
        sa.Column("execution_started_at", Instant(), nullable=True),
        sa.Column("execution_completed_at", Instant(), nullable=True),
        sa.PrimaryKeyConstraint("agent_work_order_id", name=op.f("pk_work_orders")),
        sa.UniqueConstraint("idempotency_key", name=op.f("uq_work_orders_idempotency_key")),
    )
    with op.batch_alter_table("work_orders", schema=None) as batch_op:
        batch_op.create_index("ix_work_orders_queue", ["status", "not_before", "created_at"], unique=False)

    op.create_table(
        "attempts",
        sa.Column("attempt_id", sa.String(length=50), nullable=False),
        sa.Column("work_order_id", sa.String(length=40), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("engine_id", sa.String(length=80), nullable=False),
        sa.Column("sandbox_id", sa.String(length=255), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.Column("concluded", sa.Boolean(), nullable=False),
        sa.Column("stop_ms", sa.Integer(), nullable=True),
        sa.Column("stop_forced", sa.Boolean(), nullable=True),
        sa.Column("created_at", Instant(), server_default=db_time(), nullable=False),
        sa.Column("ended_at", Instant(), nullable=True),
        sa.ForeignKeyConstraint(
            ["work_order_id"], ["work_orders.agent_work_order_id"], name=op.f("fk_attempts_work_order_id_work_orders")
        ),
        sa.PrimaryKeyConstraint("attempt_id", name=op.f("pk_attempts")),
        sa.UniqueConstraint("sandbox_id", name=op.f("uq_attempts_sandbox_id")),
        sa.UniqueConstraint("work_order_id", "number", name=op.f("uq_attempts_work_order_id")),
    )
    with op.batch_alter_table("attempts", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_attempts_engine_id"), ["engine_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_attempts_work_order_id"), ["work_order_id"], unique=False)

    op.create_table(
        "artifacts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("work_order_id", sa.String(length=40), nullable=False),
        sa.Column("attempt_id", sa.String(length=50), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("head_commit", sa.String(length=64), nullable=True),
        sa.Column("imported", sa.Boolean(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("created_at", Instant(), server_default=db_time(), nullable=False),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.attempt_id"], name=op.f("fk_artifacts_attempt_id_attempts")),
        sa.ForeignKeyConstraint(
            ["work_order_id"], ["work_orders.agent_work_order_id"], name=op.f("fk_artifacts_work_order_id_work_orders")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_artifacts")),
    )
    with op.batch_alter_table("artifacts", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_artifacts_attempt_id"), ["attempt_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_artifacts_work_order_id"), ["work_order_id"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("artifacts", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_artifacts_work_order_id"))
        batch_op.drop_index(batch_op.f("ix_artifacts_attempt_id"))

    op.drop_table("artifacts")
    with op.batch_alter_table("attempts", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_attempts_work_order_id"))
        batch_op.drop_index(batch_op.f("ix_attempts_engine_id"))

    op.drop_table("attempts")
    with op.batch_alter_table("work_orders", schema=None) as batch_op:
        batch_op.drop_index("ix_work_orders_queue")

    op.drop_table("work_orders")
    with op.batch_alter_table("sandboxes", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_sandboxes_work_order_id"))
        batch_op.drop_index(batch_op.f("ix_sandboxes_task_id"))
        batch_op.drop_index(batch_op.f("ix_sandboxes_state"))
        batch_op.drop_index(batch_op.f("ix_sandboxes_attempt_id"))

    op.drop_table("sandboxes")
    op.drop_table("sandbox_tokens")
    with op.batch_alter_table("messages", schema=None) as batch_op:
        batch_op.drop_index("ix_messages_sandbox")

    op.drop_table("messages")
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_events_work_order_id",
            sqlite_where=sa.text("work_order_id IS NOT NULL"),
            postgresql_where=sa.text("work_order_id IS NOT NULL"),
        )
        batch_op.drop_index(
            "ix_events_spec_id",
            sqlite_where=sa.text("spec_id IS NOT NULL"),
            postgresql_where=sa.text("spec_id IS NOT NULL"),
        )
        batch_op.drop_index("ix_events_position")
        batch_op.drop_index("ix_events_entity")

    op.drop_table("events")
    op.drop_table("engines")
    with op.batch_alter_table("changes", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_changes_open", sqlite_where=sa.text("state = 'open'"), postgresql_where=sa.text("state = 'open'")
        )
        batch_op.drop_index(batch_op.f("ix_changes_work_order_id"))
        batch_op.drop_index("ix_changes_created_at")

    op.drop_table("changes")
