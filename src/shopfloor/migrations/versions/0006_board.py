"""Tickets, tasks, criteria and evidence."""

import sqlalchemy as sa
from alembic import op

from shopfloor.kit.db import Instant, db_time

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "check_runs",
        sa.Column("run_id", sa.String(length=40), nullable=False),
        sa.Column("subject_id", sa.String(length=40), nullable=False),
        sa.Column("purpose", sa.String(length=20), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=True),
        sa.Column("repository_url", sa.Text(), nullable=False),
        sa.Column("base_commit", sa.String(length=64), nullable=False),
        sa.Column("commit", sa.String(length=64), nullable=False),
        sa.Column("checks", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("verdict", sa.String(length=20), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("results", sa.JSON(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("engine_id", sa.String(length=80), nullable=True),
        sa.Column("sandbox_id", sa.String(length=255), nullable=True),
        sa.Column("created_at", Instant(), server_default=db_time(), nullable=False),
        sa.Column("started_at", Instant(), nullable=True),
        sa.Column("ended_at", Instant(), nullable=True),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_check_runs")),
    )
    with op.batch_alter_table("check_runs", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_check_runs_project_id"), ["project_id"], unique=False)
        batch_op.create_index("ix_check_runs_state", ["state", "created_at"], unique=False)
        batch_op.create_index("ix_check_runs_subject_id_commit", ["subject_id", "commit"], unique=False)
        batch_op.create_index(
            "uq_check_runs_open",
            ["subject_id", "purpose", "commit"],
            unique=True,
            postgresql_where=sa.text("state IN ('queued', 'running')"),
            sqlite_where=sa.text("state IN ('queued', 'running')"),
        )

    op.create_table(
        "criteria",
        sa.Column("criterion_id", sa.String(length=40), nullable=False),
        sa.Column("subject_id", sa.String(length=40), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("check", sa.JSON(), nullable=True),
        sa.Column("check_hash", sa.String(length=64), nullable=False),
        sa.Column("created_at", Instant(), server_default=db_time(), nullable=False),
        sa.Column("retired_at", Instant(), nullable=True),
        sa.PrimaryKeyConstraint("criterion_id", name=op.f("pk_criteria")),
    )
    with op.batch_alter_table("criteria", schema=None) as batch_op:
        batch_op.create_index("ix_criteria_subject", ["subject_id", "position"], unique=False)

    op.create_table(
        "evidence",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("criterion_id", sa.String(length=40), nullable=False),
        sa.Column("commit", sa.String(length=64), nullable=False),
        sa.Column("verdict", sa.String(length=20), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("output", sa.Text(), nullable=False),
        sa.Column("output_sha256", sa.String(length=64), nullable=True),
        sa.Column("check_hash", sa.String(length=64), nullable=False),
        sa.Column("run_id", sa.String(length=40), nullable=True),
        sa.Column("said_by", sa.String(length=200), nullable=False),
        sa.Column("took_ms", sa.Integer(), nullable=True),
        sa.Column("created_at", Instant(), server_default=db_time(), nullable=False),
        sa.ForeignKeyConstraint(
            ["criterion_id"], ["criteria.criterion_id"], name=op.f("fk_evidence_criterion_id_criteria")
        ),
        sa.ForeignKeyConstraint(["run_id"], ["check_runs.run_id"], name=op.f("fk_evidence_run_id_check_runs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evidence")),
        sa.UniqueConstraint("run_id", "criterion_id", name=op.f("uq_evidence_run_id")),
    )
    with op.batch_alter_table("evidence", schema=None) as batch_op:
        batch_op.create_index("ix_evidence_criterion_id_commit", ["criterion_id", "commit", "id"], unique=False)

    op.create_table(
        "tasks",
        sa.Column("task_id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("ticket_id", sa.String(length=40), nullable=True),
        sa.Column("phase", sa.String(length=20), nullable=False),
        sa.Column("title", sa.String(length=500), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("workflow_type", sa.String(length=40), nullable=False),
        sa.Column("agent", sa.String(length=60), nullable=True),
        sa.Column("model", sa.String(length=200), nullable=True),
        sa.Column("agent_options", sa.JSON(), nullable=False),
        sa.Column("base_branch", sa.String(length=255), nullable=True),
        sa.Column("owned_paths", sa.JSON(), nullable=False),
        sa.Column("priority", sa.String(length=20), nullable=False),
        sa.Column("deadline", Instant(), nullable=True),
        sa.Column("rank", sa.Double(), nullable=False),
        sa.Column("timeout_seconds", sa.Double(), nullable=True),
        sa.Column("max_retries", sa.Integer(), nullable=False),
        sa.Column("retries", sa.Integer(), nullable=False),
        sa.Column("not_before", Instant(), nullable=True),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("stopping", sa.String(length=20), nullable=True),
        sa.Column("held", sa.Boolean(), nullable=False),
        sa.Column("forced", sa.Boolean(), nullable=False),
        sa.Column("open_dependencies", sa.Integer(), nullable=False),
        sa.Column("work_order_id", sa.String(length=40), nullable=True),
        sa.Column("sandbox_id", sa.String(length=255), nullable=True),
        sa.Column("conversation_id", sa.String(length=255), nullable=True),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.Column("gathered", sa.Boolean(), nullable=False),
        sa.Column("created_at", Instant(), server_default=db_time(), nullable=False),
        sa.Column("updated_at", Instant(), server_default=db_time(), nullable=False),
        sa.Column("started_at", Instant(), nullable=True),
        sa.Column("ended_at", Instant(), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.project_id"], name=op.f("fk_tasks_project_id_projects")),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_tasks")),
    )
    with op.batch_alter_table("tasks", schema=None) as batch_op:
        batch_op.create_index("ix_tasks_created_at", ["created_at", "task_id"], unique=False)
        batch_op.create_index("ix_tasks_not_before", ["status", "not_before"], unique=False)
        batch_op.create_index(
            "ix_tasks_queue",
            ["project_id", "status", "forced", "held", "open_dependencies", "rank", "task_id"],
            unique=False,
        )
        batch_op.create_index(batch_op.f("ix_tasks_sandbox_id"), ["sandbox_id"], unique=False)
        batch_op.create_index("ix_tasks_status", ["status", "created_at"], unique=False)
        batch_op.create_index("ix_tasks_ticket_id_phase", ["ticket_id", "phase", "status"], unique=False)
        batch_op.create_index(batch_op.f("ix_tasks_work_order_id"), ["work_order_id"], unique=False)

    op.create_table(
        "tickets",
        sa.Column("ticket_id", sa.String(length=40), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("spec_id", sa.String(length=40), nullable=True),
        sa.Column("owner", sa.String(length=200), nullable=True),
        sa.Column("title", sa.String(length=500), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("priority", sa.String(length=20), nullable=False),
        sa.Column("rank", sa.Double(), nullable=False),
        sa.Column("github_issue_number", sa.Integer(), nullable=True),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("previous_status", sa.String(length=20), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("is_blocked", sa.Boolean(), nullable=False),
        sa.Column("blocked_class", sa.String(length=40), nullable=True),
        sa.Column("blocked_reason", sa.Text(), nullable=False),
        sa.Column("blocked_who", sa.String(length=200), nullable=True),
        sa.Column("blocked_at", Instant(), nullable=True),
        sa.Column("approval", sa.String(length=20), nullable=False),
        sa.Column("approval_deadline", Instant(), nullable=True),
        sa.Column("approval_by", sa.String(length=200), nullable=True),
        sa.Column("approval_reason", sa.Text(), nullable=False),
        sa.Column("context", sa.JSON(), nullable=False),
        sa.Column("context_summary", sa.Text(), nullable=False),
        sa.Column("branch", sa.String(length=255), nullable=True),
        sa.Column("base_branch", sa.String(length=255), nullable=True),
        sa.Column("base_commit", sa.String(length=64), nullable=True),
        sa.Column("head_commit", sa.String(length=64), nullable=True),
        sa.Column("change_id", sa.String(length=40), nullable=True),
        sa.Column("merge_commit", sa.String(length=64), nullable=True),
        sa.Column("conflicts", sa.JSON(), nullable=False),
        sa.Column("behind", sa.Integer(), nullable=False),
        sa.Column("created_at", Instant(), server_default=db_time(), nullable=False),
        sa.Column("updated_at", Instant(), server_default=db_time(), nullable=False),
        sa.Column("progressed_at", Instant(), server_default=db_time(), nullable=False),
        sa.Column("done_at", Instant(), nullable=True),
        sa.Column("archived_at", Instant(), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.project_id"], name=op.f("fk_tickets_project_id_projects")),
        sa.PrimaryKeyConstraint("ticket_id", name=op.f("pk_tickets")),
    )
    with op.batch_alter_table("tickets", schema=None) as batch_op:
        batch_op.create_index("ix_tickets_approval", ["approval", "approval_deadline"], unique=False)
        batch_op.create_index(
            "ix_tickets_board", ["project_id", "archived_at", "status", "rank", "ticket_id"], unique=False
        )
        batch_op.create_index(batch_op.f("ix_tickets_owner"), ["owner"], unique=False)
        batch_op.create_index(batch_op.f("ix_tickets_spec_id"), ["spec_id"], unique=False)

    op.create_table(
        "queued_merges",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("ticket_id", sa.String(length=40), nullable=False),
        sa.Column("head_commit", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("batch", sa.Integer(), nullable=False),
        sa.Column("candidate", sa.String(length=64), nullable=True),
        sa.Column("run_id", sa.String(length=40), nullable=True),
        sa.Column("created_at", Instant(), server_default=db_time(), nullable=False),
        sa.Column("ended_at", Instant(), nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.project_id"], name=op.f("fk_queued_merges_project_id_projects")
        ),
        sa.ForeignKeyConstraint(["ticket_id"], ["tickets.ticket_id"], name=op.f("fk_queued_merges_ticket_id_tickets")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_queued_merges")),
    )
    with op.batch_alter_table("queued_merges", schema=None) as batch_op:
        batch_op.create_index("ix_queued_merges_project_id", ["project_id", "state", "id"], unique=False)
        batch_op.create_index(batch_op.f("ix_queued_merges_ticket_id"), ["ticket_id"], unique=False)

    op.create_table(
        "task_dependencies",
        sa.Column("task_id", sa.String(length=40), nullable=False),
        sa.Column("depends_on", sa.String(length=40), nullable=False),
        sa.ForeignKeyConstraint(["depends_on"], ["tasks.task_id"], name=op.f("fk_task_dependencies_depends_on_tasks")),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.task_id"], name=op.f("fk_task_dependencies_task_id_tasks")),
        sa.PrimaryKeyConstraint("task_id", "depends_on", name=op.f("pk_task_dependencies")),
    )
    with op.batch_alter_table("task_dependencies", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_task_dependencies_depends_on"), ["depends_on"], unique=False)

    op.create_table(
        "ticket_dependencies",
        sa.Column("ticket_id", sa.String(length=40), nullable=False),
        sa.Column("blocked_by", sa.String(length=40), nullable=False),
        sa.ForeignKeyConstraint(
            ["blocked_by"], ["tickets.ticket_id"], name=op.f("fk_ticket_dependencies_blocked_by_tickets")
        ),
        sa.ForeignKeyConstraint(
            ["ticket_id"], ["tickets.ticket_id"], name=op.f("fk_ticket_dependencies_ticket_id_tickets")
        ),
        sa.PrimaryKeyConstraint("ticket_id", "blocked_by", name=op.f("pk_ticket_dependencies")),
    )
    with op.batch_alter_table("ticket_dependencies", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_ticket_dependencies_blocked_by"), ["blocked_by"], unique=False)

    op.create_table(
        "ticket_moves",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("ticket_id", sa.String(length=40), nullable=False),
        sa.Column("before", sa.String(length=20), nullable=False),
        sa.Column("after", sa.String(length=20), nullable=False),
        sa.Column("how", sa.String(length=20), nullable=False),
        sa.Column("moved_by", sa.String(length=200), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("overridden", sa.JSON(), nullable=False),
        sa.Column("created_at", Instant(), server_default=db_time(), nullable=False),
        sa.ForeignKeyConstraint(["ticket_id"], ["tickets.ticket_id"], name=op.f("fk_ticket_moves_ticket_id_tickets")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ticket_moves")),
    )
    with op.batch_alter_table("ticket_moves", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_ticket_moves_ticket_id"), ["ticket_id"], unique=False)


def downgrade() -> None:
    op.drop_table("queued_merges")
    op.drop_table("ticket_moves")
    op.drop_table("ticket_dependencies")
    op.drop_table("tickets")
    op.drop_table("task_dependencies")
    op.drop_table("tasks")
    op.drop_table("evidence")
    op.drop_table("check_runs")
    op.drop_table("criteria")
