"""The event log."""

import asyncio
import contextlib
import sqlite3

import pytest
import sqlalchemy as sa

from shopfloor.events import log
from shopfloor.events.catalog.work_orders import WorkOrderCreated
from shopfloor.events.models import EventRow
from shopfloor.events.store import Row, SqliteStore
from shopfloor.kit.db import Database


async def test_an_appended_fact_is_stored_with_its_entity(database: Database) -> None:
    async with database.transaction() as session:
        await log.append(session, WorkOrderCreated(work_order_id="wo-1", repository_url="/r", workflow_type="plan"))
    async with database.reading() as session:
        row = (await session.scalars(sa.select(EventRow))).one()
    assert (row.event_type, row.entity_id, row.work_order_id) == ("work_order.created", "wo-1", "wo-1")


async def test_a_cancelled_batch_keeps_the_write_lock_until_its_thread_has_ended(database: Database) -> None:
    if not database.sqlite:
        pytest.skip("PostgreSQL orders its own writers")
    store = SqliteStore(database)
    row = Row("agent.message", "sb-1", "{}", "agent", 1, None, None, None)
    with contextlib.closing(sqlite3.connect(database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        task = asyncio.create_task(store.write([[row]]))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert isinstance(database.write_lock, asyncio.Lock)
        assert database.write_lock.locked()
        other.execute("COMMIT")
        with pytest.raises(asyncio.CancelledError):
            await task
    await store.close()
    async with database.reading() as session:
        assert await session.scalar(sa.select(sa.func.count()).select_from(EventRow)) == 1
