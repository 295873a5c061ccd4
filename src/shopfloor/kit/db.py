"""One SQL database is the truth: SQLite for one process, PostgreSQL for many. Same code, one URL."""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, AsyncSessionTransaction, create_async_engine
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeDecorator

from shopfloor.kit.errors import Problem, Unavailable

Session = AsyncSession

NAMING = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Instant(TypeDecorator[datetime]):
    """A moment in UTC: timestamptz on PostgreSQL, seconds since 1970 on SQLite."""

    impl = sa.Double
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> Any:
        """The column type on this database."""
        return dialect.type_descriptor(sa.TIMESTAMP(timezone=True) if dialect.name == "postgresql" else sa.Double())

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> Any:
        """Python to database."""
        return value if value is None or dialect.name == "postgresql" else value.timestamp()

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> datetime | None:
        """Database to Python."""
        return value if value is None or dialect.name == "postgresql" else datetime.fromtimestamp(value, UTC)


class Base(DeclarativeBase):
    """Base of every table."""

    metadata = sa.MetaData(naming_convention=NAMING)
    type_annotation_map = {datetime: Instant(), dict[str, Any]: sa.JSON(), list[str]: sa.JSON(), list[Any]: sa.JSON()}  # noqa: RUF012 - SQLAlchemy reads it as a plain class attribute


class DatabaseTime(sa.sql.functions.FunctionElement[datetime]):
    """The database's own clock plus some seconds: leases never compare two machines' clocks."""

    type = Instant()
    inherit_cache = True


def db_time(seconds: float = 0) -> sa.ColumnElement[datetime]:
    """The moment `seconds` from now (negative: ago) by the database's clock, for use inside statements."""
    return DatabaseTime(sa.literal(float(seconds)))


@compiles(DatabaseTime, "postgresql")
def _postgres_time(element: DatabaseTime, compiler: Any, **kw: Any) -> str:
    return f"(clock_timestamp() + make_interval(secs => {compiler.process(element.clauses, **kw)}))"


@compiles(DatabaseTime, "sqlite")
def _sqlite_time(element: DatabaseTime, compiler: Any, **kw: Any) -> str:
    # Rounded to what Python's times hold: a time that was read finds its own row again.
    return f"round((julianday('now') - 2440587.5) * 86400.0 + {compiler.process(element.clauses, **kw)}, 6)"


CUT_OFF_SECONDS = 5.0
"""A process that was cut off in the middle of a transaction must not hold its locks: PostgreSQL ends it after so long."""
SERVER_SETTINGS = {
    "application_name": "shopfloor",
    "idle_in_transaction_session_timeout": str(round(1000 * CUT_OFF_SECONDS)),
}
END_CUT_OFF = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND usename = current_user AND application_name = 'shopfloor'
AND state = 'active' AND wait_event = 'ClientRead' AND state_change < clock_timestamp() - make_interval(secs => :seconds)
"""
"""Between a statement's preparation and its execution the driver owes PostgreSQL nothing that its own limit would count."""


class DatabaseAway(Unavailable):
    """The database cannot be reached."""

    hint = "Nothing was half done; try again when the database is back."


AWAY = (sa.exc.InterfaceError, sa.exc.OperationalError, sa.exc.TimeoutError, DatabaseAway)
"""The database did not do it, for a reason that passes: locked, full, restarting, not to be reached."""


def _passes(error: Exception) -> bool:
    """Whether an error of PostgreSQL's driver means that the server is away, however deep SQLAlchemy wrapped it."""
    import asyncpg  # only where PostgreSQL is used

    away = (
        OSError,
        TimeoutError,
        asyncpg.PostgresConnectionError,
        asyncpg.OperatorInterventionError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,  # PostgreSQL ended the connection while a statement was on its way
    )
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, away):
            return True
        cause = cause.__cause__
    return False


async def to_its_end[T](work: Awaitable[T]) -> T:
    """The result of work that must not stop half way: a cancellation is kept, and raised when the work has ended."""
    running, cancelled = asyncio.ensure_future(work), None
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled:
        raise cancelled from None if running.cancelled() else running.exception()
    return running.result()


class _NoLock:
    """PostgreSQL orders its own writers."""

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *_: object) -> None:
        return None


class _SqliteConnection(sqlite3.Connection):
    """A connection that is free of locks when it is closed, whatever it was doing."""

    def close(self) -> None:
        """Roll back, then close: SQLite keeps a connection closed in the middle of a SELECT, locks and all, until its last cursor goes."""
        with suppress(sqlite3.Error):  # closed before, or beyond saving
            self.rollback()
        super().close()


class _Alone:
    """A connection of SQLite in a thread of its own, for single statements: one change of threads each."""

    def __init__(self, path: Path) -> None:
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="single-writer")
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def run(self, statement: str, parameters: Mapping[str, Any]) -> Sequence[Any] | None:
        if self._connection is None:
            self._connection = sqlite3.connect(self._path, isolation_level=None)
            sqlite_pragmas(self._connection)
        rows = self._connection.execute(statement, parameters).fetchall()
        return rows[0] if rows else None

    async def close(self) -> None:
        def close() -> None:
            if self._connection:
                self._connection.close()
            self._connection = None

        await asyncio.get_running_loop().run_in_executor(self.thread, close)
        self.thread.shutdown()


class Database:
    """Connections to the one database. Every write goes through `transaction`, every read through `reading`."""

    def __init__(self, url: str, *, pool_size: int = 8) -> None:
        self.url = make_url(url)
        self.sqlite = self.url.get_backend_name() == "sqlite"
        self.on_commit: list[Callable[[dict[Any, Any]], None]] = []
        """Called after each commit with what the session gathered in `session.info`."""
        self.write_lock: asyncio.Lock | _NoLock = asyncio.Lock() if self.sqlite else _NoLock()
        """Held by whoever writes to SQLite, so that writers queue here and not on file locks."""
        if self.sqlite:
            self.writer = _sqlite_engine(self.url, pool_size=1, begin="BEGIN IMMEDIATE")
            self.reader = _sqlite_engine(self.url, pool_size=4, begin="BEGIN")
            self._alone = _Alone(self.path)
        else:
            self.writer = create_async_engine(
                self.url.set(drivername="postgresql+asyncpg"),
                pool_size=pool_size,
                max_overflow=pool_size,
                pool_pre_ping=True,
                connect_args={"timeout": 3, "command_timeout": 10, "server_settings": SERVER_SETTINGS},
            )
            self.reader = self.writer

    @property
    def path(self) -> Path:
        """The SQLite file."""
        return Path(self.url.database or "")

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """One write transaction: committed at the end, rolled back by any exception. Do no I/O but SQL inside."""
        async with self.write_lock, self._reached(), AsyncSession(self.writer, expire_on_commit=False) as session:
            begun = await session.begin().__aenter__()
            try:
                yield session
            except BaseException as error:
                await to_its_end(begun.__aexit__(type(error), error, error.__traceback__))
                raise
            await to_its_end(self._commit(session, begun))

    async def _commit(self, session: AsyncSession, begun: AsyncSessionTransaction) -> None:
        await begun.__aexit__(None, None, None)
        for tell in self.on_commit:
            tell(session.info)

    async def at_once(self, statement: str, parameters: Mapping[str, Any]) -> Sequence[Any] | None:
        """The first row of one writing statement of SQLite, a transaction by itself, past all layers: for what somebody waits for."""
        async with self.write_lock:
            loop = asyncio.get_running_loop()
            return await to_its_end(loop.run_in_executor(self._alone.thread, self._alone.run, statement, parameters))

    @asynccontextmanager
    async def reading(self, *, one_moment: bool = False) -> AsyncIterator[AsyncSession]:
        """A view for reading. `one_moment`: all its statements see the same; else those of PostgreSQL may each see more (SQLite's never do)."""
        async with self._reached(), AsyncSession(self.reader, expire_on_commit=False) as session:
            if one_moment and not self.sqlite:
                await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            yield session

    @asynccontextmanager
    async def _reached(self) -> AsyncIterator[None]:
        """Raises DatabaseAway for what says, in one of the driver's many ways, that PostgreSQL cannot be reached."""
        try:
            yield
        except Exception as error:
            if self.sqlite or isinstance(error, Problem) or not _passes(error):
                raise
            raise DatabaseAway(f"{type(error).__name__}: {error}"[:500]) from error

    async def end_cut_off(self, seconds: float = CUT_OFF_SECONDS) -> int:
        """End the transactions of ours whose process says nothing in the middle of a statement; answers how many. PostgreSQL only."""
        async with self.transaction() as session:
            return await session.scalar(sa.text(END_CUT_OFF), {"seconds": seconds}) or 0

    async def create_all(self) -> None:
        """Create the tables of every imported model. For tests; the product runs migrations."""
        async with self.write_lock, self.writer.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)

    async def close(self) -> None:
        """Give the connections back."""
        if self.sqlite:
            await self._alone.close()
        await self.writer.dispose()
        await self.reader.dispose()


def sqlite_pragmas(connection: Any) -> None:
    """What every SQLite connection of ours needs: durable commits, foreign keys, patience, small letters of all alphabets."""
    connection.create_function("lower", 1, _small, deterministic=True)
    cursor = connection.cursor()
    for pragma in ("busy_timeout=30000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _small(text: Any) -> Any:
    """SQLite's own `lower` knows the letters of ASCII only."""
    return text if text is None else str(text).lower()


def _sqlite_engine(url: sa.URL, *, pool_size: int, begin: str) -> AsyncEngine:
    if url.database:
        os.makedirs(os.path.dirname(os.path.abspath(url.database)), mode=0o700, exist_ok=True)
    engine = create_async_engine(
        url.set(drivername="sqlite+aiosqlite"),
        pool_size=pool_size,
        max_overflow=0,
        poolclass=sa.AsyncAdaptedQueuePool,
        connect_args={"isolation_level": None, "factory": _SqliteConnection},
    )

    @sa.event.listens_for(engine.sync_engine, "connect")
    def _connected(connection: Any, _record: Any) -> None:
        sqlite_pragmas(connection)

    @sa.event.listens_for(engine.sync_engine, "begin")
    def _begun(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine
