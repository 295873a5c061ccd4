"""Migrations bring an empty database to exactly what the models say."""

import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

import shopfloor.features
import shopfloor.kit.engine  # noqa: F401 - its table too
from shopfloor.kit import schema
from shopfloor.kit.db import Base, Database


def differences(database: Database) -> list[object]:
    url = database.url.set(drivername="sqlite" if database.sqlite else "postgresql+psycopg")
    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            found = compare_metadata(MigrationContext.configure(connection), Base.metadata)
    finally:
        engine.dispose()
    return [d for d in found if not (isinstance(d, tuple) and d[0] == "remove_table" and "dbos" in str(d[1]))]


async def test_a_migrated_database_is_what_the_models_say(database_url: str) -> None:
    database = Database(database_url)
    await asyncio.to_thread(schema.upgrade, database)
    assert await asyncio.to_thread(differences, database) == []
    await database.close()


async def test_several_processes_may_migrate_at_once(database_url: str) -> None:
    if database_url.startswith("sqlite"):
        pytest.skip("one process owns a SQLite database")
    await asyncio.gather(*(asyncio.to_thread(schema.upgrade, Database(database_url)) for _ in range(4)))


async def test_an_unreachable_database_is_named_without_its_password(tmp_path: Path) -> None:
    database = Database(f"postgresql://someone:hush@/none?host={tmp_path}")
    with pytest.raises(schema.DatabaseUnreachable) as refused:
        await asyncio.to_thread(schema.upgrade, database)
    assert "hush" not in refused.value.message
    assert refused.value.hint
