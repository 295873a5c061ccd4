"""For which task, ticket and spec a model was called."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

WHOSE = ("task_id", "ticket_id", "spec_id")


def upgrade() -> None:
    for table in ("tasks", "work_orders"):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.add_column(sa.Column("spec_id", sa.String(length=40), nullable=True))
    for table in ("model_grants", "model_calls"):
        with op.batch_alter_table(table, schema=None) as batch_op:
            for whose in WHOSE:
                batch_op.add_column(sa.Column(whose, sa.String(length=40), nullable=True))
    for whose in WHOSE:
        there = sa.text(f"{whose} IS NOT NULL")
        op.create_index(f"ix_model_calls_{whose}", "model_calls", [whose], sqlite_where=there, postgresql_where=there)


def downgrade() -> None:
    for whose in WHOSE:
        op.drop_index(f"ix_model_calls_{whose}", table_name="model_calls")
    for table in ("model_calls", "model_grants"):
        with op.batch_alter_table(table, schema=None) as batch_op:
            for whose in WHOSE:
                batch_op.drop_column(whose)
    for table in ("work_orders", "tasks"):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.drop_column("spec_id")
