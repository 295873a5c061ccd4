"""Raw connections that read what is new in the log: the hub has one."""

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import asyncpg

from shopfloor.events.log import COLUMNS, Position
from shopfloor.kit.db import Database, sqlite_pragmas

CHANNEL = "shopfloor_events"


class Tail(Protocol):
    """A raw connection that reads what is new."""

    async def read(self, after: Position, limit: int) -> tuple[list[Sequence[Any]], bool]:
        """Settled rows after a position, and whether more are there that are not settled yet."""

    async def announce(self) -> None:
        """Tell other processes that there is something new."""

    async def close(self) -> None:
        """Let go of the connection; `read` opens it again."""


def tail_of(database: Database, wake: Callable[[], None]) -> Tail:
    """The tail of this database's log; `wake` is called when another process announces something."""
    return SqliteTail(database) if database.sqlite else PostgresTail(database, wake)


class SqliteTail:
    """One process only: its own wake-ups are all there are.

    Reads on the event loop: what was just written lies in memory, a page takes less than a millisecond, and a thread would
    fight for the interpreter's lock at every row.
    """

    QUERY = f"SELECT {', '.join(COLUMNS)} FROM events WHERE id > ? ORDER BY id LIMIT ?"  # noqa: S608 - only our own words

    def __init__(self, database: Database) -> None:
        self._path = database.path
        self._connection: sqlite3.Connection | None = None

    async def read(self, after: Position, limit: int) -> tuple[list[Sequence[Any]], bool]:
        """Rows after a position."""
        if self._connection is None:
            self._connection = sqlite3.connect(self._path, isolation_level=None)
            sqlite_pragmas(self._connection)
            self._connection.execute("PRAGMA busy_timeout=20")
        return self._connection.execute(self.QUERY, (after.id, limit)).fetchall(), False

    async def announce(self) -> None:
        """Nobody else is there to be told."""

    async def close(self) -> None:
        """See Tail."""
        connection, self._connection = self._connection, None
        if connection:
            connection.close()


class PostgresTail:
    """Reads below the oldest open transaction: a plain `id > last` would lose what commits late."""

    QUERY = f"""
        SELECT {", ".join(COLUMNS)}, xid < pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS settled
        FROM events WHERE (xid, id) > ($1, $2) ORDER BY xid, id LIMIT $3
    """  # noqa: S608 - only our own words

    def __init__(self, database: Database, wake: Callable[[], None]) -> None:
        self._dsn = database.url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._wake = wake
        self._reader: asyncpg.Connection | None = None
        self._speaker: asyncpg.Connection | None = None

    async def read(self, after: Position, limit: int) -> tuple[list[Sequence[Any]], bool]:
        """Rows after a position."""
        if self._reader is None or self._reader.is_closed():
            self._reader = await asyncpg.connect(self._dsn, timeout=3, command_timeout=30)
            await self._reader.add_listener(CHANNEL, lambda *_: self._wake())
        rows = await self._reader.fetch(self.QUERY, after.xid, after.id, limit)
        settled = [row for row in rows if row["settled"]]
        return [tuple(row)[:-1] for row in settled], len(settled) < len(rows)

    async def announce(self) -> None:
        """See Tail."""
        if self._speaker is None or self._speaker.is_closed():
            self._speaker = await asyncpg.connect(self._dsn, timeout=3, command_timeout=30)
        await self._speaker.execute(f"NOTIFY {CHANNEL}")

    async def close(self) -> None:
        """See Tail."""
        for connection in (self._reader, self._speaker):
            if connection:
                connection.terminate()
        self._reader = self._speaker = None
