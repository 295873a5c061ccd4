"""One at a time: who ends a change, or delivers it anew, holds its turn against tasks, processes and, on PostgreSQL, other hosts."""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from shopfloor.forges.mirrors.places import Place, RepositoryBusy
from shopfloor.kit.db import Database
from shopfloor.kit.errors import Conflict, Unavailable

TURNS = 0x5F10
"""First half of our PostgreSQL advisory locks; the second half is drawn from the change's id."""

Still = Callable[[], Awaitable[None]]
"""Asks whether the turn is still held; raises TurnLost. To be asked right before what cannot be taken back."""


class ChangeBusy(Conflict):
    """This change is being merged, closed or delivered by another request."""

    hint = "Look at the change in a moment; then repeat what is still to do."


class TurnLost(Unavailable):
    """The database does not answer, so another host might be ending this change."""

    hint = "Nothing was pushed; try again when the database is back."


@contextlib.asynccontextmanager
async def turn(database: Database, place: Place, change_id: str, *, patience: float) -> AsyncIterator[Still]:
    """Hold the turn of a change; raises ChangeBusy after `patience` seconds (0: at once), TurnLost without a database."""
    until = time.monotonic() + patience
    async with contextlib.AsyncExitStack() as held:
        try:
            await held.enter_async_context(place.locked(_name(change_id), patience=patience))
            still = (
                _alone if database.sqlite else await held.enter_async_context(_everywhere(database, change_id, until))
            )
        except RepositoryBusy as error:
            raise ChangeBusy from error
        yield still


def forget(place: Place, change_id: str) -> None:
    """The change has ended for good: whoever still waits for its turn finds nothing left to do."""
    place.forget(_name(change_id))


def _name(change_id: str) -> str:
    return f"change-{change_id}"


async def _alone() -> None:
    """SQLite serves one host, and the lock on the file lasts as long as we do."""


@contextlib.asynccontextmanager
async def _everywhere(database: Database, change_id: str, until: float) -> AsyncIterator[Still]:
    """An advisory lock, held by a connection of its own: a merge takes as long as its origin likes, and the pool has few places."""
    key = int.from_bytes(hashlib.sha256(change_id.encode()).digest()[:4], "big", signed=True)
    async with contextlib.AsyncExitStack() as held:
        with _answering():
            connection = await held.enter_async_context(database.writer.connect())
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.run_sync(sa.Connection.detach)
            await _acquire(connection, key, until)

        async def still() -> None:
            with _answering():
                await connection.execute(sa.text("SELECT 1"))

        yield still


async def _acquire(connection: AsyncConnection, key: int, until: float) -> None:
    pause = 0.02
    while not await connection.scalar(sa.select(sa.func.pg_try_advisory_lock(TURNS, key))):
        if time.monotonic() >= until:
            raise ChangeBusy
        await asyncio.sleep(pause)
        pause = min(pause * 2, 0.5)


@contextlib.contextmanager
def _answering() -> Iterator[None]:
    """Translate a driver's many ways to say that the database is away."""
    try:
        yield
    except (sa.exc.SQLAlchemyError, OSError) as error:
        raise TurnLost from error
