"""Engines that die over a run: nothing is judged twice, nothing is forgotten, no place and no process is left behind."""

import asyncio
from pathlib import Path

import sqlalchemy as sa

from shopfloor.events.bus import Hub
from shopfloor.events.log import Filters
from shopfloor.events.models import EventRow
from shopfloor.evidence import queries, service
from shopfloor.evidence.models import CheckRun
from shopfloor.kit.db import Database
from shopfloor.sandboxes import queries as sandboxes
from tests.evidence.conftest import PATIENCE, RIGHT, Code, House, engine_over, project
from tests.evidence.engine import started
from tests.sandboxes.support import processes

SLOW = "sleep 5; echo done"


async def requested(database: Database, code: Code, commit: str, *commands: str) -> CheckRun:
    async with database.transaction() as session:
        items = [{"text": line, "check": {"kind": "command", "command": line}} for line in commands]
        await service.add_criteria(session, "TKT-1", items)
        run = await service.request_run(
            session,
            subject_id="TKT-1",
            purpose="criteria",
            project=project(code.origin),
            base_commit=code.base,
            commit=commit,
        )
    assert run
    return run


async def heard(database: Database, event_type: str, times: int = 1) -> None:
    """Wait until so many such facts are in the log."""
    hub = Hub(database)
    await hub.start()
    try:
        async with asyncio.timeout(PATIENCE), hub.subscribe(Filters(event_types=frozenset({event_type}))) as news:
            while True:
                async with database.reading() as session:
                    query = sa.select(sa.func.count()).where(EventRow.event_type == event_type)
                    if (await session.scalar(query) or 0) >= times:
                        return
                await news.take(0.5)
    finally:
        await hub.close()


async def test_a_run_whose_engine_is_killed_goes_on_where_it_was(
    database: Database, place: Path, code: Code, database_url: str
) -> None:
    """kill -9 between two checks: the first finding stands, the second is found by the next engine, each once."""
    data = place / f"crash-{database.sqlite}"
    run = await requested(database, code, code.commit(RIGHT), "echo quick", SLOW)
    engine = started(database_url, data)
    try:
        await heard(database, "evidence.recorded")
    finally:
        engine.kill()
        engine.wait()
    async with engine_over(database, data) as (checks, hub):
        house = House(database, checks, checks.bench, project(code.origin), code, hub)
        done = await house.done(run.run_id)
        await checks.idle()
        assert (done.verdict, done.attempts, [one["number"] for one in done.results]) == ("passed", 2, [0, 1])
        async with database.reading() as session:
            rows = [row for item in run.checks for row in await queries.of_criterion(session, item["criterion_id"])]
            assert await sandboxes.live_count(session, "host-test") == 0
        assert [row.output for row in rows] == ["quick", "done"]
        assert await checks.bench.sandboxes.adapter("local").list() == []
    assert processes(data / "sandboxes") == []


async def test_a_run_that_its_own_engine_dropped_is_taken_up_again(house: House) -> None:
    """Whatever breaks while a run is driven (here its task is cancelled): the run is not left standing."""
    run = await requested(house.database, house.code, house.code.commit(RIGHT), SLOW)
    await heard(house.database, "check_run.state_changed", 2)
    for task in asyncio.all_tasks():
        if task.get_name() == f"check_run {run.run_id}":
            task.cancel()
    done = await house.done(run.run_id)
    assert (done.verdict, done.attempts) == ("passed", 2)


async def test_a_run_is_not_taken_from_its_engine_by_a_look_right_after_its_claim(house: House) -> None:
    """Whenever something is committed, a claim too, it is looked at once what nobody drives."""
    looks: list[asyncio.Task[None]] = []
    house.database.on_commit.append(lambda _: looks.append(asyncio.create_task(house.checks.tend())))
    run = await requested(house.database, house.code, house.code.commit(RIGHT), "echo quick")
    done = await house.done(run.run_id)
    house.database.on_commit.pop()
    await asyncio.gather(*looks)
    assert (done.verdict, done.attempts) == ("passed", 1)
