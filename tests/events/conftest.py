"""An app over the test's database, and a client for it."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from shopfloor.kit.db import Database
from tests.events import server


@pytest.fixture
async def app(database: Database) -> AsyncIterator[FastAPI]:
    async with server.opened(database) as app:
        yield app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        yield client


@pytest.fixture
async def address(app: FastAPI) -> AsyncIterator[str]:
    """The same app behind a real uvicorn."""
    async with server.serving(app) as address:
        yield address
