"""When a person cleared a ticket's way, and what the forge was told of its change."""

import sqlalchemy as sa
from alembic import op

from shopfloor.kit.db import Instant

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("tickets", schema=None) as batch_op:
        batch_op.add_column(sa.Column("unblocked_at", Instant(), nullable=True))
        batch_op.add_column(sa.Column("offered", sa.String(length=64), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("tickets", schema=None) as batch_op:
        batch_op.drop_column("offered")
        batch_op.drop_column("unblocked_at")
