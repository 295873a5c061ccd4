"""Fixtures every test may use."""

import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog

from shopfloor.kit.db import Database
from tests.support import postgres

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A shell starts what it sends to the background deaf to Ctrl-C, and so would be every program the tests send one to.
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Its own way prints every frame's variables: seconds in which nothing else runs, and PostgreSQL ends a transaction that is idle for five.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)


@pytest.fixture(scope="session")
def postgres_folder() -> Iterator[str]:
    with postgres.cluster() as folder:
        yield folder


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Every storage test runs on both databases."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'shopfloor.db'}"
    return postgres.new_database(request.getfixturevalue("postgres_folder"), f"t{uuid.uuid4().hex}")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An empty database with every table of the imported models."""
    database = Database(database_url)
    await database.create_all()
    yield database
    await database.close()
