"""The database under processes that are cut off, and under tasks that are cancelled."""

import asyncio
import contextlib
import random
import sqlite3
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import pq

from shopfloor.kit.db import Database

LOCK = 4711


@pytest.fixture
def held(database: Database) -> Iterator[None]:
    """A process of ours that was stopped after it asked PostgreSQL to prepare a statement, a lock in its hands."""
    if database.sqlite:
        pytest.skip("SQLite's writer is one process")
    url = database.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, application_name="shopfloor") as connection:
        inner = connection.pgconn
        inner.enter_pipeline_mode()
        for statement in (b"BEGIN", b"SELECT pg_advisory_xact_lock(%d)" % LOCK):
            inner.send_query_params(statement, None)
        inner.send_flush_request()
        while inner.flush():
            pass
        wait_for(inner)
        yield
        inner.finish()


def wait_for(inner: pq.abc.PGconn) -> None:
    """Until the lock is held: the answer to the second statement is here."""
    answered = 0
    while answered < 2:
        inner.consume_input()
        while not inner.is_busy() and (result := inner.get_result()):
            answered += result.status in {pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK}


async def free(database: Database) -> bool:
    async with database.transaction() as session:
        return bool(await session.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(LOCK))))


async def test_a_process_cut_off_while_it_prepares_a_statement_loses_its_locks(held: None, database: Database) -> None:
    """The server's own limit for idle transactions does not count this state."""
    assert not await free(database)
    while not await database.end_cut_off(seconds=0.2):
        pass
    while not await free(database):
        pass


async def test_a_process_that_works_is_left_alone(database: Database) -> None:
    if database.sqlite:
        pytest.skip("SQLite's writer is one process")
    async with database.transaction() as session:
        await session.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
        assert await database.end_cut_off(seconds=0) == 0
        assert not await free(database)


TIMES = 300
"""So many cancellations."""
INSERT = "INSERT INTO pairs VALUES (:n)"


@pytest.fixture
async def pairs(database: Database) -> Database:
    """A database whose transactions put each number in twice."""
    async with database.transaction() as session:
        await session.execute(sa.text("CREATE TABLE pairs (n INTEGER)"))
    return database


async def put(database: Database, n: int) -> int:
    async with database.transaction() as session:
        session.info["n"] = n
        await session.execute(sa.text(INSERT), {"n": n})
        await session.execute(sa.text("SELECT n FROM pairs"))
        await session.execute(sa.text(INSERT), {"n": n})
    return n


async def look(database: Database) -> dict[int, int]:
    """How often each number is there."""
    async with database.reading() as session:
        rows = (await session.execute(sa.text("SELECT n, count(*) AS times FROM pairs GROUP BY n"))).all()
    return {row.n: row.times for row in rows}


async def cut_off(task: asyncio.Task[Any], turns: int) -> Any:
    """Cancel a task after so many turns of the loop; what it ended with."""
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    return (await asyncio.gather(task, return_exceptions=True))[0]


async def test_transactions_cancelled_at_any_instant_are_whole_or_nothing_and_leave_no_lock(pairs: Database) -> None:
    """A lock that was left would make the next transaction fail after SQLite's patience."""
    told: list[int] = []
    pairs.on_commit.append(lambda gathered: told.append(gathered["n"]))
    chance = random.Random(11)
    ended = []  # the errors are kept: what hangs on them is not collected
    for n in range(TIMES):
        ended.append(await cut_off(asyncio.create_task(put(pairs, n)), chance.randrange(150)))
        await put(pairs, TIMES + n)
    done = {end for end in ended if isinstance(end, int)}
    there = await look(pairs)
    assert set(there.values()) == {2}
    assert done | set(range(TIMES, 2 * TIMES)) <= set(there)
    assert sorted(told) == sorted(there)
    assert {type(end) for end in ended} <= {int, asyncio.CancelledError}
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_reads_cancelled_at_any_instant_leave_every_place_in_the_pool(pairs: Database) -> None:
    await put(pairs, 0)
    chance = random.Random(12)
    ended = [await cut_off(asyncio.create_task(look(pairs)), chance.randrange(80)) for _ in range(TIMES)]
    assert await look(pairs) == {0: 2}
    assert pairs.reader.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert {type(end) for end in ended} <= {dict, asyncio.CancelledError}


async def test_a_cancelled_select_leaves_no_lock(pairs: Database) -> None:
    """SQLite keeps a connection that is closed in the middle of a SELECT, its locks too."""
    await put(pairs, 1)
    task = asyncio.create_task(put(pairs, 2))

    @sa.event.listens_for(pairs.writer.sync_engine, "before_cursor_execute")
    def cancel(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("SELECT n"):
            task.cancel()

    ended = await asyncio.gather(task, return_exceptions=True)
    sa.event.remove(pairs.writer.sync_engine, "before_cursor_execute", cancel)
    await put(pairs, 3)
    assert (type(ended[0]), await look(pairs)) == (asyncio.CancelledError, {1: 2, 3: 2})


async def test_a_commit_that_began_is_ended_and_told_before_the_cancellation(pairs: Database) -> None:
    told: list[Any] = []
    pairs.on_commit.append(told.append)
    task = asyncio.create_task(put(pairs, 1))
    sa.event.listen(pairs.writer.sync_engine, "commit", lambda _: task.cancel(), once=True)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await look(pairs), told) == ({1: 2}, [{"n": 1}])


async def test_a_single_statement_keeps_the_write_lock_until_its_thread_has_ended(pairs: Database) -> None:
    if not pairs.sqlite:
        pytest.skip("PostgreSQL orders its own writers")
    with contextlib.closing(sqlite3.connect(pairs.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        task = asyncio.create_task(pairs.at_once(INSERT, {"n": 1}))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert isinstance(pairs.write_lock, asyncio.Lock)
        assert pairs.write_lock.locked()
        other.execute("COMMIT")
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await look(pairs) == {1: 1}


async def test_sqlite_knows_the_small_letters_of_all_alphabets(database: Database) -> None:
    """A search finds them whatever their case."""
    if not database.sqlite:
        pytest.skip("PostgreSQL goes by its database's locale")
    text = sa.literal("Übersicht der ТОВАРЫ")
    found = sa.select(text.icontains("üBERSICHT"), text.icontains("товары"), text.icontains("ubersicht"))
    async with database.reading() as session:
        assert (await session.execute(found)).one() == (True, True, False)
        assert (await session.execute(sa.text("SELECT lower(NULL), lower(5)"))).one() == (None, "5")
