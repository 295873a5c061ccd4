"""Raw driver statements that put batches of events into the log: one commit for many posts, each event stored once."""

import asyncio
import sqlite3
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple, Protocol

import asyncpg

from shopfloor.kit.db import Database, sqlite_pragmas, to_its_end


class Row(NamedTuple):
    """An event on its way into the log."""

    event_type: str
    sandbox_id: str
    payload: str
    source: str
    seq: int | None
    work_order_id: str | None
    spec_id: str | None
    occurred_at: datetime | None


class Store(Protocol):
    """Where batches go."""

    async def write(self, batches: Sequence[Sequence[Row]]) -> list[int]:
        """Store all batches in one commit; answers how many rows of each were new. Raises Away when it cannot."""

    async def close(self) -> None:
        """Let go of the connection; `write` opens it again."""


class Away(Exception):
    """The database cannot take a commit now: disk full, connection lost, shutting down."""


def store_for(database: Database) -> Store:
    """The store of this database."""
    return SqliteStore(database) if database.sqlite else PostgresStore(database)


class SqliteStore:
    """One connection of its own in one thread, writing only while it holds the database's write lock."""

    CHUNKS = (100, 50, 20, 10, 5, 2, 1)

    def __init__(self, database: Database) -> None:
        self._database = database
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="event-writer")
        self._connection: sqlite3.Connection | None = None

    async def write(self, batches: Sequence[Sequence[Row]]) -> list[int]:
        """Store all batches in one commit."""
        async with self._database.write_lock:
            return await to_its_end(asyncio.get_running_loop().run_in_executor(self._thread, self._write, batches))

    async def close(self) -> None:
        """Close the connection and end the thread."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._drop)
        self._thread.shutdown()

    def _write(self, batches: Sequence[Sequence[Row]]) -> list[int]:
        try:
            if self._connection is None:
                self._connection = sqlite3.connect(self._database.path, isolation_level=None)
                sqlite_pragmas(self._connection)
            self._connection.execute("BEGIN IMMEDIATE")
            counts = self._insert(self._connection, batches)
            self._connection.execute("COMMIT")
            return counts
        except sqlite3.DatabaseError as error:
            self._drop()
            if isinstance(error, sqlite3.IntegrityError | sqlite3.DataError | sqlite3.ProgrammingError):
                raise
            raise Away(str(error)) from error
        except BaseException:
            self._drop()
            raise

    def _insert(self, connection: sqlite3.Connection, batches: Sequence[Sequence[Row]]) -> list[int]:
        """Everything at once when it is all new, which it nearly always is; batch by batch when something is not."""
        everything = [row for batch in batches for row in batch]
        if self._rows(connection, everything) == len(everything):
            return [len(batch) for batch in batches]
        connection.execute("ROLLBACK")
        connection.execute("BEGIN IMMEDIATE")
        return [self._rows(connection, batch) for batch in batches]

    def _rows(self, connection: sqlite3.Connection, rows: Sequence[Row]) -> int:
        inserted, at, moment = 0, 0, time.time()
        while at < len(rows):
            size = next(size for size in self.CHUNKS if size <= len(rows) - at)
            values: list[Any] = []
            for kind, sandbox_id, payload, source, seq, work_order_id, spec_id, occurred in rows[at : at + size]:
                sent = occurred.timestamp() if occurred else None
                values += (kind, sandbox_id, payload, source, sandbox_id, seq, work_order_id, spec_id, sent, moment)
            inserted += connection.execute(_sqlite_insert(size), values).rowcount
            at += size
        return inserted

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection:
            connection.close()


@cache
def _sqlite_insert(rows: int) -> str:
    """One statement for many rows: the interpreter's lock is let go once per statement, not once per row."""
    places = ", ".join(["(0, ?, 'sandbox', ?, ?, ?, ?, ?, ?, ?, ?, ?)"] * rows)
    return f"INSERT INTO events ({INSERTED}, recorded_at) VALUES {places} ON CONFLICT (sandbox_id, seq) DO NOTHING"  # noqa: S608 - only our own words


INSERTED = (
    "xid, event_type, entity_type, entity_id, payload, source, sandbox_id, seq, work_order_id, spec_id, occurred_at"
)
_POSTGRES_INSERT = f"""
    INSERT INTO events ({INSERTED})
    SELECT pg_current_xact_id()::text::bigint, t, 'sandbox', s, p, o, s, n, w, c, m
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::text[], $8::timestamptz[])
         WITH ORDINALITY AS rows(t, s, p, o, n, w, c, m, place)
    ORDER BY place
    ON CONFLICT (sandbox_id, seq) DO NOTHING
    RETURNING sandbox_id, seq
"""  # noqa: S608 - only our own words


class PostgresStore:
    """One connection of its own; a batch is one statement of arrays."""

    def __init__(self, database: Database) -> None:
        self._dsn = database.url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._connection: asyncpg.Connection | None = None

    async def write(self, batches: Sequence[Sequence[Row]]) -> list[int]:
        """Store all batches in one commit."""
        columns = list(zip(*(row for batch in batches for row in batch), strict=True))
        try:
            if self._connection is None:
                self._connection = await asyncpg.connect(self._dsn, timeout=3, command_timeout=30)
            stored = await self._connection.fetch(_POSTGRES_INSERT, *columns)
        except (ValueError, asyncpg.DataError, asyncpg.IntegrityConstraintViolationError):
            raise
        except Exception as error:  # away in one of the driver's many ways
            await self.close()
            raise Away(f"{type(error).__name__}: {error}") from error
        return _counts(batches, stored)

    async def close(self) -> None:
        """Close the connection, at once."""
        connection, self._connection = self._connection, None
        if connection:
            connection.terminate()


def _counts(batches: Sequence[Sequence[Row]], stored: Sequence[Any]) -> list[int]:
    if len(stored) == sum(map(len, batches)):
        return [len(batch) for batch in batches]
    new = {(s, n) for s, n in stored if n is not None}
    counts = []
    for batch in batches:
        count = 0
        for r in batch:
            key = (r.sandbox_id, r.seq)
            if r.seq is None or key in new:
                new.discard(key)
                count += 1
        counts.append(count)
    return counts
