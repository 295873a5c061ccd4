"""Runs under random interleavings of requests, claims, findings, dying engines and late writers, on both databases."""

import asyncio
import contextlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from shopfloor.evidence import queries, service
from shopfloor.evidence.models import CheckRun, Evidence
from shopfloor.evidence.queries import Finding
from shopfloor.evidence.rules import OPEN, RunState, Stand, Verdict
from shopfloor.kit.config import Settings
from shopfloor.kit.db import Base, Database
from shopfloor.sandboxes.models import SandboxRow
from shopfloor.sandboxes.rules import LIVE, SandboxState
from shopfloor.sandboxes.service import Sandboxes
from tests.evidence.conftest import project

CAP = 2
SUBJECTS = st.sampled_from(["TKT-1", "TKT-2"])
COMMITS = st.sampled_from(["a" * 40, "b" * 40])
VERDICTS = st.sampled_from(list(Verdict))
WHICH = st.integers(0, 30)


class Runs(RuleBasedStateMachine):
    """Whatever happens in whatever order, the law of evidence holds."""

    database: Database
    loop: asyncio.AbstractEventLoop
    folder: Path

    def __init__(self) -> None:
        super().__init__()
        self.house = Sandboxes(Settings(data_dir=self.folder, max_sandboxes=CAP), self.database, "host-q")
        self.held: list[CheckRun] = []
        """Every claim ever made, also those whose engine is dead: they may wake up at any time."""
        self.run(self._fresh())

    def run[T](self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    async def _fresh(self) -> None:
        async with self.database.transaction() as session:
            for table in reversed(Base.metadata.sorted_tables):
                await session.execute(sa.delete(table))
            for subject in ("TKT-1", "TKT-2"):
                items = [{"text": f"{n}", "check": {"kind": "command", "command": f"test {n}"}} for n in range(2)]
                await service.add_criteria(session, subject, items)

    async def _ask(self, subject: str, commit: str) -> None:
        async with self.database.transaction() as session:
            await service.request_run(
                session,
                subject_id=subject,
                purpose="criteria",
                project=project(Path("/r")),
                base_commit="c" * 40,
                commit=commit,
                again=True,
            )

    async def _claim(self, engine: str) -> CheckRun | None:
        async with self.database.transaction() as session:
            return await service.claim(session, self.house, engine, sandbox_type="local")

    @rule(subject=SUBJECTS, commit=COMMITS, times=st.integers(1, 3))
    def clients_ask(self, subject: str, commit: str, times: int) -> None:
        async def at_once() -> None:
            await asyncio.gather(*(self._ask(subject, commit) for _ in range(times)))

        self.run(at_once())

    @rule(engines=st.integers(1, 3))
    def engines_claim(self, engines: int) -> None:
        async def at_once() -> None:
            got = await asyncio.gather(*(self._claim(f"e{n}") for n in range(engines)))
            self.held += [run for run in got if run]

        self.run(at_once())

    @rule(which=WHICH, number=st.integers(0, 1), verdict=VERDICTS)
    def somebody_found_something(self, which: int, number: int, verdict: Verdict) -> None:
        async def write(run: CheckRun) -> None:
            async with self.database.transaction() as session:
                await service.record_finding(session, run.run_id, run.attempts, run.checks[number], Finding(verdict))

        if self.held:
            self.run(write(self.held[which % len(self.held)]))

    @rule(which=WHICH)
    def somebody_is_through(self, which: int) -> None:
        async def end(run: CheckRun) -> None:
            async with self.database.transaction() as session:
                found = await queries.run(session, run.run_id)
                if queries.numbers_done(found) == {0, 1}:
                    await service.end_run(session, run.run_id, run.attempts)

        if self.held:
            self.run(end(self.held[which % len(self.held)]))

    @rule(which=WHICH)
    def an_engine_is_found_dead(self, which: int) -> None:
        async def give_back(run: CheckRun) -> None:
            async with self.database.transaction() as session:
                await service.give_back(session, run.run_id, run.attempts, why="gone")

        if self.held:
            self.run(give_back(self.held[which % len(self.held)]))

    @rule()
    def places_are_swept(self) -> None:
        async def sweep() -> None:
            async with self.database.reading() as session:
                left = await queries.abandoned(session, "host-q")
            for sandbox_id, _ in left:
                await self.house.move(sandbox_id, SandboxState.TERMINATED)

        self.run(sweep())

    @invariant()
    def the_law_holds(self) -> None:
        self.run(self._check())

    async def _check(self) -> None:
        async with self.database.reading() as session:
            runs = (await session.scalars(sa.select(CheckRun))).all()
            rows = (await session.scalars(sa.select(Evidence))).all()
            places = list(await session.scalars(sa.select(SandboxRow.sandbox_id).where(SandboxRow.state.in_(LIVE))))
            stands = {c * 40: await queries.standings(session, dict.fromkeys(("TKT-1", "TKT-2"), c * 40)) for c in "ab"}
        assert len(places) <= CAP
        opened = Counter((run.subject_id, run.commit) for run in runs if run.state in OPEN)
        assert all(count == 1 for count in opened.values())
        assert all(run.sandbox_id in places for run in runs if run.state == RunState.RUNNING)
        written = Counter((row.run_id, row.criterion_id) for row in rows)
        assert all(count == 1 for count in written.values())
        assert sum(len(run.results) for run in runs) == len(rows)
        for run in runs:
            assert (run.verdict is not None) == (run.state == RunState.DONE)
            if run.verdict == Verdict.PASSED:
                assert [one["verdict"] for one in run.results] == ["passed", "passed"]
        for commit, found in stands.items():
            for one in (one for all_ in found.values() for one in all_ if one.verdict == Stand.PASSED):
                mine = [row for row in rows if (row.criterion_id, row.commit) == (one.criterion.criterion_id, commit)]
                assert max(mine, key=lambda row: row.id).verdict == Verdict.PASSED


@pytest.fixture
def machine(database_url: str) -> Iterator[type[Runs]]:
    """The machine over one database, emptied for each example."""
    loop, folder = asyncio.new_event_loop(), Path(tempfile.mkdtemp())
    database = Database(database_url)
    loop.run_until_complete(database.create_all())
    yield type("RunsHere", (Runs,), {"database": database, "loop": loop, "folder": folder})
    loop.run_until_complete(database.close())
    loop.close()
    with contextlib.suppress(OSError):
        shutil.rmtree(folder)


def test_whatever_happens_the_law_of_evidence_holds(machine: type[Runs]) -> None:
    few = settings(max_examples=12, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(machine, settings=few)
