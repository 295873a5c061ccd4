"""A repository with tests, commits by agents of every kind, and an engine's checking part over real sandboxes."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from shopfloor.events.bus import Hub
from shopfloor.events.log import Filters
from shopfloor.evidence import queries, service
from shopfloor.evidence.jobs import Checks
from shopfloor.evidence.models import CheckRun, Criterion
from shopfloor.evidence.queries import Standing
from shopfloor.evidence.steps import Bench
from shopfloor.forges.service import Repositories
from shopfloor.kit.background import Background
from shopfloor.kit.blobs import BlobStore
from shopfloor.kit.config import Settings
from shopfloor.kit.db import Database
from shopfloor.kit.engine import Engine
from shopfloor.projects.models import Project
from shopfloor.sandboxes.service import Sandboxes
from tests.support.platform import folder, git, sample_repository

TEST = (
    "import unittest, app\n\nclass T(unittest.TestCase):\n    def test_add(self):\n        assert app.add(2, 2) == 4\n"
)
FILES = {
    "app.py": "def add(a, b):\n    return 0\n",
    "tests/__init__.py": "",
    "tests/test_app.py": TEST,
    "verify.sh": "python3 -m unittest tests.test_app\n",
    "package.json": '{"name": "app", "scripts": {"test": "node test.js"}}',
}
RIGHT = {"app.py": "def add(a, b):\n    return a + b\n"}
PATIENCE = 120.0


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with folder() as found:
        yield found


@dataclass
class Code:
    """An origin, and agents that push to it."""

    origin: Path
    base: str = ""
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def commit(self, files: Mapping[str, str | bytes | Path | None], *, on: str | None = None) -> str:
        """A commit on its own branch: these files written (None: deleted, a path: a link to it)."""
        branch = f"b{next(self.numbers)}"
        clone = self.origin.parent / f"clone-{branch}"
        git("clone", "-q", str(self.origin), str(clone), cwd=self.origin.parent)
        git("checkout", "-qb", branch, on or self.base, cwd=clone)
        for name, content in files.items():
            if content is None:
                (clone / name).unlink()
            elif isinstance(content, Path):
                (clone / name).symlink_to(content)
            else:
                (clone / name).parent.mkdir(parents=True, exist_ok=True)
                (clone / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        git("add", "-A", cwd=clone)
        git("commit", "--allow-empty", "-qm", "work", cwd=clone)
        git("push", "-q", "origin", branch, cwd=clone)
        return git("rev-parse", "HEAD", cwd=clone)


@pytest.fixture(scope="module")
def code(place: Path) -> Code:
    origin = sample_repository(place, FILES)
    return Code(origin, git("rev-parse", "HEAD", cwd=origin))


@dataclass
class House:
    """A database, and one engine's checking part over it."""

    database: Database
    checks: Checks
    bench: Bench
    project: Project
    code: Code
    hub: Hub

    async def criterion(self, subject_id: str, **check: Any) -> Criterion:
        async with self.database.transaction() as session:
            return (await service.add_criteria(session, subject_id, [{"text": "It holds", "check": check or None}]))[0]

    async def ask(self, subject_id: str, commit: str, **how: Any) -> CheckRun:
        wish: dict[str, Any] = {"purpose": "criteria", "base_commit": self.code.base, **how}
        async with self.database.transaction() as session:
            run = await service.request_run(session, subject_id=subject_id, project=self.project, commit=commit, **wish)
        assert run is not None
        return run

    async def done(self, run_id: str) -> CheckRun:
        """The run, once it has ended."""
        async with asyncio.timeout(PATIENCE), self.hub.subscribe(Filters(entity_ids=frozenset({run_id}))) as news:
            while True:
                async with self.database.reading() as session:
                    run = await queries.run(session, run_id)
                if run.state == "done":
                    return run
                await news.take()

    async def standing(self, subject_id: str, commit: str) -> list[Standing]:
        async with self.database.reading() as session:
            return (await queries.standings(session, {subject_id: commit}))[subject_id]

    async def verdict(self, commit: str, **check: Any) -> tuple[str, str]:
        """What one check finds of a commit: (verdict, reason)."""
        subject = f"ticket-{next(self.code.numbers)}"
        await self.criterion(subject, **check)
        await self.done((await self.ask(subject, commit)).run_id)
        (found,) = await self.standing(subject, commit)
        assert found.evidence is not None
        assert found.evidence.verdict == found.verdict
        return found.evidence.verdict, found.evidence.reason


@contextlib.asynccontextmanager
async def engine_over(database: Database, data: Path, **settings: Any) -> AsyncIterator[tuple[Checks, Hub]]:
    """One engine's checking part, at work."""
    found = Settings(data_dir=data, max_sandboxes=2, **settings)
    hub, background = Hub(database), Background()
    await hub.start()
    sandboxes = Sandboxes(found, database, "host-test")
    engine = Engine(database, host_id="host-test", lease_seconds=2)
    await engine.beat()
    background.keep("beat", lambda: _beat(engine))
    bench = Bench(
        settings=found,
        database=database,
        sandboxes=sandboxes,
        repositories=Repositories(data / "repositories"),
        blobs=BlobStore(found.blobs),
        engine_id=engine.id,
    )
    checks = Checks(bench, hub, engine, background)
    await checks.launch()
    try:
        yield checks, hub
    finally:
        await background.close()
        await hub.close()


async def _beat(engine: Engine) -> None:
    while True:
        await asyncio.sleep(engine.lease_seconds / 5)
        await engine.beat()


def project(origin: Path, **columns: Any) -> Project:
    wish = {"test_command": "python3 -m unittest {test}", **columns}
    return Project(project_id="prj-1", name="p", repository_url=str(origin), **wish)


@pytest.fixture
async def house(database: Database, place: Path, code: Code) -> AsyncIterator[House]:
    async with engine_over(database, place / "data") as (checks, hub):
        yield House(database, checks, checks.bench, project(code.origin), code, hub)
