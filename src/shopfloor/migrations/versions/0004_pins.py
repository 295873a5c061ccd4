"""What is kept of sandboxes that were removed."""

import sqlalchemy as sa
from alembic import op

from shopfloor.kit.db import Instant, db_time

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "pins",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sandbox_id", sa.String(length=255), nullable=False),
        sa.Column("work_order_id", sa.String(length=40), nullable=True),
        sa.Column("attempt_id", sa.String(length=50), nullable=True),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("content", sa.String(length=64), nullable=False),
        sa.Column("refs", sa.JSON(), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("created_at", Instant(), server_default=db_time(), nullable=False),
        sa.Column("gone_at", Instant(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pins")),
        sa.UniqueConstraint("sandbox_id", "kind", "content", name="uq_pins_sandbox_id"),
    )
    with op.batch_alter_table("pins", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_pins_work_order_id"), ["work_order_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_pins_content"), ["content"], unique=False)


def downgrade() -> None:
    op.drop_table("pins")
