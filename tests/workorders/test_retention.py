"""Policy on both databases: what is over for long enough goes, said beforehand and written down; nothing else goes."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from shopfloor.events.bus import Hub
from shopfloor.events.ingest import Ingest
from shopfloor.events.models import EventRow
from shopfloor.events.store import store_for
from shopfloor.forges.service import Repositories
from shopfloor.kit.blobs import BlobStore
from shopfloor.kit.config import Retention, Settings
from shopfloor.kit.db import Database, db_time
from shopfloor.sandboxes.models import SandboxRow
from shopfloor.sandboxes.service import Sandboxes
from shopfloor.workorders import queries, service
from shopfloor.workorders.models import Attempt, Pin, WorkOrder
from shopfloor.workorders.steps import Tools
from shopfloor.workorders.steps.retain import sweep
from tests.workorders.test_service import WISH

DAY = 86_400


@pytest.fixture
def tools(database: Database, tmp_path: Path) -> Tools:
    policy = Retention(completed=1, failed=10, cancelled=5, no_order=2, logs=3)
    settings = Settings(data_dir=tmp_path, retention=policy)
    return Tools(
        settings=settings,
        database=database,
        hub=Hub(database),
        sandboxes=Sandboxes(settings, database, "host-1"),
        repositories=Repositories(tmp_path / "repositories"),
        blobs=BlobStore(tmp_path / "blobs"),
        ingest=Ingest(store_for(database)),
    )


async def stored(tools: Tools, content: bytes) -> str:
    """A blob that was not stored just now."""

    async def chunks() -> AsyncIterator[bytes]:
        yield content

    sha256, _ = await tools.blobs.put(chunks(), limit=1000)
    os.utime(tools.blobs.path(sha256), (0, 0))
    return sha256


async def left(
    tools: Tools, status: str, age_days: float, *, content: str = "", kind: str = "files", host: str = "host-1"
) -> int:
    """An order that ended so many days ago, and a pin of its sandbox; answers the pin's number."""
    ended = db_time(-age_days * DAY)
    async with tools.database.transaction() as session:
        order = await service.create(session, **WISH, initial_prompt="")
        order_id = order.agent_work_order_id
        sandbox = f"local-{order_id}-1"
        for row in (
            Attempt(
                attempt_id=f"{order_id}-1",
                work_order_id=order_id,
                number=1,
                state="failed",
                engine_id="e",
                sandbox_id=sandbox,
                concluded=True,
            ),
            SandboxRow(sandbox_id=sandbox, sandbox_type="local", state="TERMINATED", host_id=host),
        ):
            session.add(row)
        pin = Pin(
            sandbox_id=sandbox,
            work_order_id=order_id,
            kind=kind,
            content=content,
            refs=[],
            facts={},
            size=1,
            reason="",
            note="",
        )
        await service.record_pins(session, [pin])
        moved: Any = sa.update(WorkOrder).where(WorkOrder.agent_work_order_id == order_id)
        await session.execute(moved.values(status=status, execution_completed_at=ended))
        await session.execute(sa.update(Pin).where(Pin.id == pin.id).values(created_at=ended))
    for name in (f"homes/{order_id}", f"spools/{sandbox}"):
        (tools.settings.data_dir / name).mkdir(parents=True)
    return pin.id


async def gone(tools: Tools, pin_id: int) -> bool:
    async with tools.database.reading() as session:
        return (await queries.pin(session, None, pin_id)).gone_at is not None


@pytest.mark.parametrize(
    ("status", "age", "goes"),
    [
        ("failed", 9, False),
        ("failed", 11, True),
        ("cancelled", 4, False),
        ("cancelled", 6, True),
        ("completed", 0.5, False),
        ("completed", 2, True),
        ("running", 1000, False),
        ("pending", 1000, False),
    ],
)
async def test_a_pin_goes_when_its_orders_days_are_over(tools: Tools, status: str, age: float, goes: bool) -> None:
    number = await left(tools, status, age)
    named = [one.pin for one in await sweep(tools, dry_run=True) if one.what == "pin"]
    assert named == ([number] if goes else [])
    assert not await gone(tools, number)
    await sweep(tools)
    assert await gone(tools, number) == goes


@pytest.mark.parametrize(
    ("status", "age", "goes"),
    [("completed", 0, True), ("failed", 9, False), ("failed", 11, True), ("running", 99, False)],
)
async def test_homes_and_spools_go_with_policy_and_at_once_when_all_is_delivered(
    tools: Tools, status: str, age: float, goes: bool
) -> None:
    await left(tools, status, age)
    await sweep(tools)
    for kind in ("homes", "spools"):
        assert (not os.listdir(tools.settings.data_dir / kind)) == goes


async def test_a_folder_that_no_order_knows_is_not_touched(tools: Tools) -> None:
    (tools.settings.data_dir / "homes" / "wo-stranger").mkdir(parents=True)
    assert await sweep(tools) == []
    assert (tools.settings.data_dir / "homes" / "wo-stranger").exists()


async def test_a_pin_that_goes_says_so_in_the_log_once(tools: Tools) -> None:
    number = await left(tools, "failed", 11)
    for _ in range(2):
        await sweep(tools)
    async with tools.database.reading() as session:
        rows = await session.scalars(sa.select(EventRow.payload).where(EventRow.event_type == "work.pin_expired"))
    told = list(rows)
    assert len(told) == 1
    assert f'"pin":{number}' in told[0]
    assert "policy keeps 10" in told[0]


async def test_bytes_that_another_pin_names_stay_until_that_goes_too(tools: Tools) -> None:
    sha256 = await stored(tools, b"shared")
    old, young = await left(tools, "failed", 11, content=sha256), await left(tools, "failed", 1, content=sha256)
    await sweep(tools)
    assert (await gone(tools, old), await gone(tools, young), tools.blobs.has(sha256)) == (True, False, True)
    tools.settings.retention.failed = 0
    await sweep(tools)
    assert (await gone(tools, young), tools.blobs.has(sha256)) == (True, False)


async def test_bytes_that_were_handed_out_stay(tools: Tools) -> None:
    sha256 = await stored(tools, b"handed out")
    number = await left(tools, "failed", 11, content=sha256)
    async with tools.database.transaction() as session:
        pin = await queries.pin(session, None, number)
        await service.add_artifact(session, pin.sandbox_id, name="transcript", sha256=sha256, size=1)
    await sweep(tools)
    assert (await gone(tools, number), tools.blobs.has(sha256)) == (True, True)


async def test_what_a_killed_sweep_left_is_removed_by_the_next(tools: Tools) -> None:
    sha256 = await stored(tools, b"left over")
    number = await left(tools, "failed", 11, content=sha256)
    async with tools.database.transaction() as session:
        await service.let_go(session, number, "killed right after this")
    assert tools.blobs.has(sha256)
    await sweep(tools)
    assert not tools.blobs.has(sha256)


async def test_commits_of_another_host_are_left_to_it(tools: Tools) -> None:
    number = await left(tools, "failed", 11, kind="commits", host="host-2")
    await sweep(tools)
    assert not await gone(tools, number)


async def test_logs_go_by_their_day(tools: Tools) -> None:
    for name in ("2001-01-01", "not-a-day"):
        (tools.settings.data_dir / "logs" / name).mkdir(parents=True)
    assert [(one.what, one.name) for one in await sweep(tools)] == [("log", "2001-01-01")]
    assert os.listdir(tools.settings.data_dir / "logs") == ["not-a-day"]


async def test_the_same_thing_is_written_down_once(tools: Tools) -> None:
    number = await left(tools, "failed", 1, content="a" * 64)
    async with tools.database.transaction() as session:
        first = await queries.pin(session, None, number)
        again = Pin(
            sandbox_id=first.sandbox_id, kind="files", content="a" * 64, refs=[], facts={}, size=1, reason="", note=""
        )
        await service.record_pins(session, [again])
    async with tools.database.reading() as session:
        assert (await queries.pins(session, None))[1] == 1
