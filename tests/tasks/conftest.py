"""The platform over the test's database, without an engine."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from shopfloor.kit.db import Database
from tests.tasks.world import World, opened


@pytest.fixture
async def world(database: Database, database_url: str, tmp_path: Path) -> AsyncIterator[World]:
    async with opened(database_url, tmp_path) as made:
        yield made


@pytest.fixture
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(world.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1/api/v1") as made:
        yield made
