"""Criteria, requests and the ledger on both databases; who may write what, and how often."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from shopfloor.events.models import EventRow
from shopfloor.evidence import queries, service
from shopfloor.evidence.models import CheckRun, Criterion
from shopfloor.evidence.queries import Finding
from shopfloor.evidence.rules import MOST_ATTEMPTS, MOST_CRITERIA, BadCheck, Verdict
from shopfloor.kit.config import Settings
from shopfloor.kit.db import Database, db_time
from shopfloor.kit.engine import EngineRow
from shopfloor.kit.errors import Forbidden, Problem
from shopfloor.sandboxes.service import CapacityExhausted, Sandboxes
from tests.evidence.conftest import project
from tests.support.between import between

A, B = "a" * 40, "b" * 40
COMMAND = {"kind": "command", "command": "true"}
AGENT_REVIEW = {"kind": "review", "by": "agent"}
PROJECT = project(Path("/r"))


async def added(database: Database, *checks: Any, subject: str = "TKT-1") -> list[Criterion]:
    async with database.transaction() as session:
        items = [{"text": f"number {number}", "check": check} for number, check in enumerate(checks)]
        return await service.add_criteria(session, subject, items)


async def asked(database: Database, commit: str = A, subject: str = "TKT-1", **how: Any) -> CheckRun | None:
    wish: dict[str, Any] = {"purpose": "criteria", "project": PROJECT, "base_commit": B, **how}
    async with database.transaction() as session:
        return await service.request_run(session, subject_id=subject, commit=commit, **wish)


async def claimed(database: Database, house: Sandboxes, engine: str = "e1") -> CheckRun | None:
    async with database.transaction() as session:
        return await service.claim(session, house, engine, sandbox_type="local")


async def found(database: Database, run: CheckRun, verdict: str = "passed", number: int = 0) -> bool:
    async with database.transaction() as session:
        item = run.checks[number]
        return await service.record_finding(session, run.run_id, run.attempts, item, Finding(Verdict(verdict), verdict))


async def ended(database: Database, run: CheckRun) -> bool:
    async with database.transaction() as session:
        return await service.end_run(session, run.run_id, run.attempts)


async def stands(database: Database, commit: str | None, subject: str = "TKT-1") -> list[str]:
    async with database.reading() as session:
        return [one.verdict for one in (await queries.standings(session, {subject: commit}))[subject]]


async def said(database: Database, criterion_id: str, commit: str, verdict: str, by: str = "person:ann") -> None:
    async with database.transaction() as session:
        await service.record_review(session, criterion_id, commit, verdict, by, "looked")


async def facts(database: Database, event_type: str) -> list[str]:
    async with database.reading() as session:
        query = sa.select(EventRow.payload).where(EventRow.event_type == event_type).order_by(EventRow.id)
        return list(await session.scalars(query))


@pytest.fixture
def house(database: Database, tmp_path: Path) -> Sandboxes:
    return Sandboxes(Settings(data_dir=tmp_path, max_sandboxes=2), database, "host-test")


async def test_criteria_keep_their_order_and_tell_of_themselves(database: Database) -> None:
    first = await added(database, None, COMMAND)
    second = await added(database, AGENT_REVIEW)
    assert [one.position for one in (*first, *second)] == [0, 1, 2]
    assert len(await facts(database, "criteria.changed")) == 3


@pytest.mark.parametrize("items", [[{"text": " "}], [{"text": "x" * 4001}], [{"text": "x"}] * (MOST_CRITERIA + 1)])
async def test_what_is_no_criterion_is_refused(database: Database, items: list[dict[str, Any]]) -> None:
    with pytest.raises(Problem) as refused:
        async with database.transaction() as session:
            await service.add_criteria(session, "TKT-1", items)
    assert refused.value.hint


async def test_a_bad_check_is_refused_with_its_place(database: Database) -> None:
    with pytest.raises(BadCheck, match="command"):
        await added(database, {"kind": "command"})


async def test_a_new_commit_makes_what_was_proven_stale(database: Database) -> None:
    (one,) = await added(database, None)
    await said(database, one.criterion_id, A, "passed")
    assert [await stands(database, commit) for commit in (A, B, None)] == [["passed"], ["stale"], ["stale"]]


async def test_another_check_makes_what_was_proven_stale(database: Database) -> None:
    (one,) = await added(database, COMMAND)
    await said(database, one.criterion_id, A, "passed")
    async with database.transaction() as session:
        await service.change_criterion(session, one.criterion_id, check={**COMMAND, "command": "false"})
    assert await stands(database, A) == ["stale"]


async def test_words_may_be_mended_without_losing_what_a_check_proved(database: Database) -> None:
    checked, judged = await added(database, COMMAND, None)
    for one in (checked, judged):
        await said(database, one.criterion_id, A, "passed")
        async with database.transaction() as session:
            await service.change_criterion(session, one.criterion_id, text="said better")
    assert await stands(database, A) == ["passed", "stale"]


async def test_the_newest_word_on_a_commit_counts(database: Database) -> None:
    (one,) = await added(database, None)
    for verdict in ("passed", "failed"):
        await said(database, one.criterion_id, A, verdict)
    assert await stands(database, A) == ["failed"]


async def test_a_retired_criterion_no_longer_counts_and_its_proofs_stay(database: Database) -> None:
    one, _ = await added(database, None, None)
    await said(database, one.criterion_id, A, "passed")
    for _ in range(2):
        async with database.transaction() as session:
            await service.retire(session, one.criterion_id)
    assert await stands(database, A) == ["missing"]
    async with database.reading() as session:
        assert len(await queries.of_criterion(session, one.criterion_id)) == 1
    assert len(await facts(database, "criteria.changed")) == 3


@pytest.mark.parametrize("check", [None, COMMAND, {"kind": "review", "by": "person"}])
async def test_an_agents_word_proves_nothing_where_it_was_not_asked(database: Database, check: Any) -> None:
    (one,) = await added(database, check)
    with pytest.raises(Forbidden):
        await said(database, one.criterion_id, A, "passed", by="agent:wo-1")
    assert await stands(database, A) == ["missing"]


async def test_an_agent_asked_for_its_review_is_heard(database: Database) -> None:
    (one,) = await added(database, AGENT_REVIEW)
    await said(database, one.criterion_id, A, "passed", by="agent:wo-1")
    assert await stands(database, A) == ["passed"]


async def test_proven_means_every_criterion(database: Database) -> None:
    one, two = await added(database, None, None)
    async with database.reading() as session:
        assert await queries.proven(session, "TKT-none", A)
    for criterion, whole in ((one, False), (two, True)):
        await said(database, criterion.criterion_id, A, "passed")
        async with database.reading() as session:
            assert await queries.proven(session, "TKT-1", A) is whole


async def test_asking_again_while_a_run_is_open_is_the_same_run(database: Database) -> None:
    await added(database, COMMAND)
    runs = [run for run in await asyncio.gather(*(asked(database) for _ in range(8))) if run]
    assert (len(runs), len({run.run_id for run in runs})) == (8, 1)
    other = await asked(database, B)
    assert other
    assert other.run_id != runs[0].run_id


async def test_who_asks_while_another_does_is_told_of_that_run(database: Database) -> None:
    if database.sqlite:
        pytest.skip("SQLite has one writer")
    await added(database, COMMAND)
    others: list[CheckRun | None] = []

    async def meanwhile() -> None:
        others.append(await asked(database))

    with between(database, lambda statement, _: "FROM check_runs" in statement, meanwhile, writing=True):
        mine = await asked(database)
    assert mine
    assert [one and one.run_id for one in others] == [mine.run_id]


async def test_only_what_a_run_can_judge_and_nobody_knows_is_run(database: Database) -> None:
    _, known, _, unknown = await added(database, None, COMMAND, AGENT_REVIEW, COMMAND)
    await said(database, known.criterion_id, A, "failed")
    run = await asked(database)
    assert run
    assert [one["criterion_id"] for one in run.checks] == [unknown.criterion_id]
    assert await stands(database, A) == ["missing", "failed", "missing", "running"]


async def test_there_is_no_run_of_nothing(database: Database) -> None:
    await added(database, None)
    assert await asked(database) is None


async def test_checks_of_no_criterion_are_run_too(database: Database, house: Sandboxes) -> None:
    """The project's check on a merged tree."""
    await asked(database, purpose="union", checks=[{"check": COMMAND}])
    run = await claimed(database, house)
    assert run
    assert await found(database, run, "failed")
    assert await ended(database, run)
    async with database.reading() as session:
        done = await queries.run(session, run.run_id)
    assert (done.state, done.verdict, done.reason) == ("done", "failed", "failed")


async def test_many_engines_never_claim_a_run_twice_nor_more_places_than_there_are(
    database: Database, house: Sandboxes
) -> None:
    """W09"""
    await added(database, COMMAND)
    for number in range(6):
        await asked(database, f"{number}" * 40)
    taken = await asyncio.gather(*(claimed(database, house, f"e{number}") for number in range(8)))
    assert len({run.run_id for run in taken if run}) == len([run for run in taken if run]) == 2


async def test_orders_without_end_leave_the_next_place_to_a_run_that_waits(
    database: Database, house: Sandboxes
) -> None:
    await added(database, COMMAND)
    await asked(database)
    house.promised = 1
    async with database.transaction() as session:
        await house.reserve(session, "order-1", "local")
        with pytest.raises(CapacityExhausted):
            await house.reserve(session, "order-2", "local")
    assert await claimed(database, house)


async def test_a_check_is_written_down_once(database: Database, house: Sandboxes) -> None:
    (one,) = await added(database, COMMAND)
    await asked(database)
    run = await claimed(database, house)
    assert run
    assert await asyncio.gather(*(found(database, run) for _ in range(4))) == [True] * 4
    async with database.reading() as session:
        assert len(await queries.of_criterion(session, one.criterion_id)) == 1
    assert len(await facts(database, "evidence.recorded")) == 1


async def test_who_lost_a_run_can_write_nothing_more(database: Database, house: Sandboxes) -> None:
    await added(database, COMMAND)
    await asked(database)
    old = await claimed(database, house)
    assert old
    async with database.transaction() as session:
        assert await service.give_back(session, old.run_id, old.attempts, why="gone")
    assert not await found(database, old)
    new = await claimed(database, house, "e2")
    assert new
    assert (new.run_id, new.attempts) == (old.run_id, 2)
    assert (await found(database, old), await ended(database, old)) == (False, False)
    assert (await found(database, new, "failed"), await ended(database, new)) == (True, True)
    assert await stands(database, A) == ["failed"]


async def test_a_finding_that_comes_between_two_reads_is_not_overlooked(database: Database, house: Sandboxes) -> None:
    """Neither as an open run nor as a verdict: a gate would pass on the one before."""
    (one,) = await added(database, COMMAND)
    await said(database, one.criterion_id, A, "passed")
    await asked(database, again=True)
    run = await claimed(database, house)
    assert run

    async def fails() -> None:
        await found(database, run, "failed")
        await ended(database, run)

    with between(database, lambda text, _: "FROM check_runs" in text or "FROM evidence" in text, fails):
        assert await stands(database, A) == ["running"]
    assert await stands(database, A) == ["failed"]


async def test_only_a_silent_engine_loses_its_run_however_old_the_run_is(database: Database, house: Sandboxes) -> None:
    """W08: liveness is the lease, never the age."""
    await added(database, COMMAND)
    await asked(database)
    run = await claimed(database, house, "e1")
    assert run
    async with database.transaction() as session:
        await session.execute(sa.update(CheckRun).values(created_at=db_time(-9e5), started_at=db_time(-9e5)))
        session.add(EngineRow(id="e1", host_id="host-test"))
    for silent, lost in ((0.0, []), (600.0, [run.run_id])):
        async with database.transaction() as session:
            await session.execute(sa.update(EngineRow).values(seen_at=db_time(-silent)))
        async with database.reading() as session:
            found = await queries.orphans(session, "e2", silent_seconds=60)
        assert [one.run_id for one in found] == lost


async def test_a_commit_that_one_host_alone_has_is_checked_there(database: Database, house: Sandboxes) -> None:
    await added(database, COMMAND)
    run = await asked(database, host_id="host-other")
    assert run
    async with database.transaction() as session:
        session.add(EngineRow(id="other.1", host_id="host-other"))
    assert await claimed(database, house) is None
    async with database.reading() as session:
        assert not await queries.anything_queued(session, "host-test")
        assert await queries.anything_queued(session, "host-other")


async def test_what_a_silent_host_alone_has_is_taken_up_by_another(database: Database, house: Sandboxes) -> None:
    """Which finds the commit missing, and has it made anew."""
    await added(database, COMMAND)
    run = await asked(database, host_id="host-other")
    assert run
    async with database.transaction() as session:
        session.add(EngineRow(id="other.1", host_id="host-other", seen_at=db_time(-600)))
    taken = await claimed(database, house)
    assert taken
    assert taken.run_id == run.run_id


async def test_a_run_that_kills_its_engines_is_given_up_as_not_judged(database: Database, tmp_path: Path) -> None:
    await added(database, COMMAND, COMMAND)
    await asked(database)
    house = Sandboxes(Settings(data_dir=tmp_path, max_sandboxes=99), database, "host-test")
    for number in range(MOST_ATTEMPTS):
        run = await claimed(database, house)
        assert run
        if number == 0:
            await found(database, run, number=1)
        async with database.transaction() as session:
            await service.give_back(session, run.run_id, run.attempts, why="its engine died")
    assert await stands(database, A) == ["error", "passed"]
    assert await claimed(database, house) is None


async def test_standings_of_many_subjects_take_as_many_statements_as_of_one(database: Database) -> None:
    subjects: dict[str, str | None] = {f"TKT-{number}": A for number in range(30)}
    for subject in subjects:
        for one in await added(database, None, COMMAND, subject=subject):
            await said(database, one.criterion_id, A, "passed")
    statements: list[str] = []
    sa.event.listen(database.reader.sync_engine, "before_cursor_execute", lambda *a: statements.append(a[2]))
    counts = []
    for wanted in ({"TKT-1": A}, subjects):
        before = len(statements)
        async with database.reading() as session:
            assert len(await queries.standings(session, dict(wanted))) == len(wanted)
        counts.append(len(statements) - before)
    assert counts[0] == counts[1]


async def test_the_table_for_a_change_says_what_was_found_by_whom(database: Database) -> None:
    one, _ = await added(database, None, COMMAND)
    await said(database, one.criterion_id, A, "passed")
    async with database.reading() as session:
        table = await queries.evidence_table(session, "TKT-1", A)
    assert table == [("number 0", f"passed, on {A[:12]}, by person:ann, looked"), ("number 1", "missing")]
