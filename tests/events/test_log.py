"""The event log."""

import sqlalchemy as sa

from shopfloor.events import log
from shopfloor.events.catalog.work_orders import WorkOrderCreated
from shopfloor.events.models import EventRow
from shopfloor.kit.db import Database


async def test_an_appended_fact_is_stored_with_its_entity(database: Database) -> None:
    async with database.transaction() as session:
        await log.append(session, WorkOrderCreated(work_order_id="wo-1", repository_url="/r", workflow_type="plan"))
    async with database.reading() as session:
        row = (await session.scalars(sa.select(EventRow))).one()
    assert (row.event_type, row.entity_id, row.work_order_id) == ("work_order.created", "wo-1", "wo-1")
