"""All live branches of a project together."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("projects", schema=None) as batch_op:
        batch_op.add_column(sa.Column("union_check", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_table(
        "unions",
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("commit", sa.String(length=64), nullable=False),
        sa.Column("ticket_ids", sa.JSON(), nullable=False),
        sa.Column("run_id", sa.String(length=40), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.project_id"]),
        sa.PrimaryKeyConstraint("project_id"),
    )


def downgrade() -> None:
    op.drop_table("unions")
    with op.batch_alter_table("projects", schema=None) as batch_op:
        batch_op.drop_column("union_check")
