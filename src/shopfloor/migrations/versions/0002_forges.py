"""The forge's own number of a change; what forges tell."""

import sqlalchemy as sa
from alembic import op

from shopfloor.kit.db import Instant, db_time

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("changes", sa.Column("number", sa.Integer(), nullable=True))
    op.create_table(
        "change_reviews",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("change_id", sa.String(length=40), nullable=False),
        sa.Column("head_commit", sa.String(length=64), nullable=False),
        sa.Column("author", sa.String(length=100), nullable=False),
        sa.Column("verdict", sa.String(length=20), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", Instant(), server_default=db_time(), nullable=False),
        sa.ForeignKeyConstraint(["change_id"], ["changes.change_id"], name=op.f("fk_change_reviews_change_id_changes")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_change_reviews")),
    )
    op.create_index(op.f("ix_change_reviews_change_id"), "change_reviews", ["change_id"])
    op.create_table(
        "forge_deliveries",
        sa.Column("delivery_id", sa.String(length=250), nullable=False),
        sa.Column("repository_url", sa.Text(), nullable=False),
        sa.Column("event", sa.String(length=80), nullable=False),
        sa.Column("signal_key", sa.String(length=250), nullable=True),
        sa.Column("number", sa.BigInteger(), nullable=True),
        sa.Column("signal", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("received_at", Instant(), server_default=db_time(), nullable=False),
        sa.Column("handled_at", Instant(), nullable=True),
        sa.Column("work_order_id", sa.String(length=40), nullable=True),
        sa.Column("reaction", sa.String(length=40), nullable=False),
        sa.PrimaryKeyConstraint("delivery_id", name=op.f("pk_forge_deliveries")),
        sa.UniqueConstraint("repository_url", "signal_key", name=op.f("uq_forge_deliveries_repository_url")),
    )
    unanswered = sa.text("state = 'handled' AND reaction = ''")
    op.create_index(
        "ix_forge_deliveries_unanswered",
        "forge_deliveries",
        ["handled_at"],
        sqlite_where=unanswered,
        postgresql_where=unanswered,
    )
    waiting = sa.text("state = 'waiting'")
    op.create_index(
        "ix_forge_deliveries_waiting",
        "forge_deliveries",
        ["received_at"],
        sqlite_where=waiting,
        postgresql_where=waiting,
    )
    op.create_index("ix_forge_deliveries_subject", "forge_deliveries", ["repository_url", "number", "received_at"])


def downgrade() -> None:
    op.drop_table("forge_deliveries")
    op.drop_table("change_reviews")
    op.drop_column("changes", "number")
