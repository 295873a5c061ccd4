"""Bring the database's tables to what this version needs."""

import importlib.resources
from typing import Any

import sqlalchemy as sa

from shopfloor.kit.db import Database, sqlite_pragmas
from shopfloor.kit.errors import Unavailable

MIGRATION_LOCK = 0x5F01


class DatabaseUnreachable(Unavailable):
    """The database cannot be reached."""


def upgrade(database: Database) -> None:
    """Run every migration that is missing; several processes may start at once. Blocks: call it before the event loop is busy."""
    from alembic import command

    url = database.url.set(drivername="sqlite" if database.sqlite else "postgresql+psycopg")
    engine = sa.create_engine(url)
    if database.sqlite:
        database.path.parent.mkdir(parents=True, exist_ok=True)
        sa.event.listen(engine, "connect", lambda connection, _record: sqlite_pragmas(connection))
    try:
        with engine.connect() as connection:
            if not database.sqlite:
                connection.execute(sa.select(sa.func.pg_advisory_lock(MIGRATION_LOCK)))
                connection.commit()
            command.upgrade(config(connection), "head")
            connection.commit()
    except sa.exc.OperationalError as error:
        where = database.url.render_as_string(hide_password=True)
        raise DatabaseUnreachable(
            f"{where}: {error.orig}", hint="Start the database or correct database_url."
        ) from error
    finally:
        engine.dispose()


def config(connection: sa.Connection) -> Any:
    """Alembic's configuration over an open connection."""
    from alembic.config import Config

    settings = Config()
    settings.set_main_option("script_location", str(importlib.resources.files("shopfloor.migrations")))
    settings.attributes["connection"] = connection
    return settings
