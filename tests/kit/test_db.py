"""The database under processes that are cut off."""

from collections.abc import Iterator

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
