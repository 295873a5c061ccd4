"""Fixtures: its own door, workspace and worker for every test. A conftest imports the names it wants."""

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from shopfloor.agents import service as agents
from tests.support.door import Door
from tests.support.workers import Bench, oldest_python


@pytest.fixture(scope="session")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return asyncio.run(agents.worker_zipapp(tmp_path_factory.mktemp("worker")))


@pytest.fixture(scope="session")
def python() -> str:
    return oldest_python()


@pytest.fixture
def door() -> Iterator[Door]:
    with Door(sandbox_id=f"sb-{uuid.uuid4().hex[:8]}") as door:
        yield door


@pytest.fixture
def bench(tmp_path: Path, door: Door, pyz: Path, python: str) -> Iterator[Bench]:
    bench = Bench(tmp_path, door, pyz, python)
    yield bench
    bench.close()
