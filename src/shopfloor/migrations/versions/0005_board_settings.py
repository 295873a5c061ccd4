"""What projects and work orders need for a board."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("projects", schema=None) as batch_op:
        batch_op.add_column(sa.Column("base_branch", sa.String(length=255), nullable=True))
        batch_op.add_column(sa.Column("autonomy", sa.Boolean(), nullable=False, server_default=sa.false()))
        batch_op.add_column(sa.Column("approval", sa.Boolean(), nullable=False, server_default=sa.false()))
        batch_op.add_column(sa.Column("wip_limits", sa.JSON(), nullable=False, server_default="{}"))
        batch_op.add_column(sa.Column("gates", sa.JSON(), nullable=False, server_default="{}"))
        batch_op.add_column(sa.Column("max_running_tasks", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("test_command", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("check_command", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("merge_queue", sa.Boolean(), nullable=False, server_default=sa.false()))
    with op.batch_alter_table("work_orders", schema=None) as batch_op:
        batch_op.add_column(sa.Column("task_id", sa.String(length=40), nullable=True))
        batch_op.add_column(sa.Column("ticket_id", sa.String(length=40), nullable=True))
        batch_op.add_column(sa.Column("offers", sa.Boolean(), nullable=False, server_default=sa.true()))
        batch_op.create_index(batch_op.f("ix_work_orders_task_id"), ["task_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_work_orders_ticket_id"), ["ticket_id"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("work_orders", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_work_orders_ticket_id"))
        batch_op.drop_index(batch_op.f("ix_work_orders_task_id"))
        for name in ("offers", "ticket_id", "task_id"):
            batch_op.drop_column(name)
    with op.batch_alter_table("projects", schema=None) as batch_op:
        for name in (
            "merge_queue",
            "check_command",
            "test_command",
            "max_running_tasks",
            "gates",
            "wip_limits",
            "approval",
            "autonomy",
            "base_branch",
        ):
            batch_op.drop_column(name)
