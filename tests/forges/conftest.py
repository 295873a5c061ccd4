"""A house of repositories in a folder with a difficult name, and an honest origin."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from fastapi import FastAPI

from shopfloor.events import models as _events  # noqa: F401 - its table must exist
from shopfloor.forges import routes
from shopfloor.forges.models import Change
from shopfloor.forges.service import Repositories
from shopfloor.kit import http
from shopfloor.kit.db import Database
from tests.forges.support import Sandbox, Tripwire, bare, deliver, repository
from tests.support import git_http

PROTOCOLS = frozenset({"https", "http", "file"})


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "mit Leerzeichen und ünïcode"
    folder.mkdir()
    return folder


@pytest.fixture
def house(place: Path) -> Repositories:
    return Repositories(place / "repositories", protocols=PROTOCOLS)


@pytest.fixture
def work(place: Path) -> Path:
    """The person's own clone."""
    return repository(place / "work")


@pytest.fixture
def origin(place: Path, work: Path) -> Path:
    return bare(work, place / "origin.git")


@pytest.fixture
def tripwire(place: Path) -> Tripwire:
    return Tripwire(place)


@pytest.fixture
def server(place: Path, origin: Path) -> Iterator[git_http.GitServer]:
    with git_http.serving(origin.parent) as running:
        yield running


@pytest.fixture
async def client(database: Database, house: Repositories) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    app.include_router(routes.router)
    http.install_problems(app)
    app.state.database, app.state.repositories = database, house
    app.state.settings = SimpleNamespace(api_key="", host="127.0.0.1")
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1/api/v1", timeout=60) as opened:
        yield opened


@pytest.fixture
async def box(house: Repositories, origin: Path, place: Path) -> Sandbox:
    """A sandbox over the honest origin, in the hands of a hostile agent."""
    base = await house.resolve(str(origin))
    return Sandbox(await house.golden(str(origin), base.commit), place / "sandbox")


@pytest.fixture
async def change(house: Repositories, database: Database, box: Sandbox, origin: Path) -> Change:
    """An open change of the honest origin, reached by its path."""
    return await deliver(house, database, box, origin, {"new.txt": "new\n"})
