"""The forge's own number of a change."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("changes", sa.Column("number", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("changes", "number")
