"""Rows of sandboxes that nobody watches, and the host's own name."""

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from shopfloor.kit.config import Settings
from shopfloor.kit.db import Database, db_time
from shopfloor.sandboxes import queries
from shopfloor.sandboxes.models import SandboxRow
from shopfloor.sandboxes.rules import SandboxState
from shopfloor.sandboxes.service import Sandboxes, host_id


@pytest.mark.parametrize("state", [SandboxState.PENDING, SandboxState.CREATING])
async def test_a_sandbox_whose_maker_died_gives_its_place_back(
    database: Database, tmp_path: Path, state: SandboxState
) -> None:
    house = Sandboxes(Settings(data_dir=tmp_path), database, "host-1")
    async with database.transaction() as session:
        await house.reserve(session, "local-1", "local")
        made: Any = sa.update(SandboxRow).values(state=state, created_at=db_time(-2 * queries.START_SECONDS))
        await session.execute(made)
    await house.settle()
    async with database.reading() as session:
        row = await queries.get(session, "local-1")
        assert (row.state, await queries.live_count(session, "host-1")) == (SandboxState.TERMINATED, 0)


async def test_a_sandbox_that_is_just_being_made_is_left_alone(database: Database, tmp_path: Path) -> None:
    house = Sandboxes(Settings(data_dir=tmp_path), database, "host-1")
    async with database.transaction() as session:
        await house.reserve(session, "local-1", "local")
    await house.settle()
    async with database.reading() as session:
        assert (await queries.get(session, "local-1")).state == SandboxState.PENDING


def test_a_host_keeps_its_name_and_an_empty_one_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "host-id").touch()
    name = host_id(tmp_path)
    assert name.startswith("host-")
    assert host_id(tmp_path) == name
    assert [p.name for p in tmp_path.iterdir()] == ["host-id"]
