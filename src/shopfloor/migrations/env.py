"""How Alembic reaches our database: the connection is handed in by kit.schema."""

from alembic import context

from shopfloor.kit.db import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
