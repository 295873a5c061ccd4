"""The durable engine: workflows of short steps that continue where they stopped after any crash. The only module that knows DBOS.

Claiming and caps are the caller's own statements; here a workflow is started by id (starting twice is starting once), its finished
steps are never repeated, and the workflows of a dead engine process are adopted by a living one.
"""

import asyncio
import math
import os
import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from shopfloor.kit import log
from shopfloor.kit.db import Base, Database, Session, db_time, sqlite_pragmas

logger = log.get(__name__)

APPLICATION_VERSION = "shopfloor-1"
"""Bumped only when the steps change order or meaning: unfinished workflows of another version are not resumed. The host is part
    of it, because a sandbox can only be watched from its own host."""

type Workflow = Callable[[str], Awaitable[None]]


ADOPT_SECONDS = 2.0
"""How often DBOS looks for workflows that `adopt` put into its internal queue; nothing else is put there."""

UNUSED_SECONDS = 60.0
"""How often DBOS looks for delayed workflows and expired deadlines (SQLite); Shopfloor has neither."""

NOTICE_LOSS = {
    "connect_timeout": "3",
    "tcp_user_timeout": "10000",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
}
"""How libpq notices a network that swallows packets: without these it waits for a quarter of an hour."""


class State(StrEnum):
    """What became of a workflow."""

    RUNS = "runs"
    ENDED = "ended without its attempt being concluded"
    FOREIGN = "begun by a version of Shopfloor that ordered its steps differently"


class EngineRow(Base):
    """An engine process and when it was last alive, by the database's clock."""

    __tablename__ = "engines"

    id: Mapped[str] = mapped_column(sa.String(80), primary_key=True)
    host_id: Mapped[str] = mapped_column(sa.String(40))
    seen_at: Mapped[datetime] = mapped_column(server_default=db_time())


class Engine:
    """One engine process. Register workflows and steps, `launch`, then `start` workflows by id."""

    def __init__(self, database: Database, *, host_id: str, lease_seconds: float) -> None:
        self.database = database
        self.host_id = host_id
        self.lease_seconds = lease_seconds
        self.id = f"{host_id}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
        self._last_beat: float | None = None
        self._steady_since = -math.inf
        self._version = f"{APPLICATION_VERSION}@{host_id}"
        self._workflows: dict[str, Any] = {}
        from dbos import DBOS, DBOSConfig
        from dbos._serialization import DBOSPortableJSON

        self._dbos = DBOS
        config = DBOSConfig(
            name="shopfloor",
            system_database_url=_sync_url(database),
            system_database_engine=_sqlite_engine(database) if database.sqlite else None,
            executor_id=self.id,
            application_version=self._version,
            serializer=DBOSPortableJSON,
            log_level="ERROR",
            sys_db_idle_transaction_timeout_sec=max(1.0, lease_seconds - 1),
            notification_listener_polling_interval_sec=10.0,
            max_executor_threads=8,
            use_listen_notify=False,
        )
        DBOS(config=config)

    def step(self, name: str, work: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """Make `work` a step: its answer (plain JSON values) is kept and it is not run again once it has answered."""

        async def step(*arguments: Any) -> Any:
            return await work(*arguments)

        step.__qualname__ = name
        wrapped: Callable[..., Awaitable[Any]] = self._dbos.step(name=name)(step)
        return wrapped

    def workflow(self, name: str, work: Workflow) -> None:
        """Register a workflow; its only argument is its id."""
        self._workflows[name] = self._dbos.workflow(name=name, max_recovery_attempts=1000)(work)

    async def launch(self) -> None:
        """Begin to work: announce this process, then let the engine run."""
        await self.beat()
        _slow_down(self.database)
        self._dbos.launch()  # on the loop: it remembers this one

    async def start(self, name: str, workflow_id: str) -> None:
        """Run a workflow in this process; the same id again changes nothing."""
        from dbos import SetWorkflowID

        with SetWorkflowID(workflow_id):
            await self._dbos.start_workflow_async(self._workflows[name], workflow_id)

    async def beat(self) -> None:
        """Say that this process is alive. After a silence of our own, such as a database that was away, others were silent too:
        they get a whole lease to be heard again before they count as dead.
        """
        async with self.database.transaction() as session:
            updated = await session.execute(
                sa.update(EngineRow).where(EngineRow.id == self.id).values(seen_at=db_time()).returning(EngineRow.id)
            )
            if updated.first() is None:
                await session.execute(sa.insert(EngineRow).values(id=self.id, host_id=self.host_id))
        now = time.monotonic()
        if self._last_beat is not None and now - self._last_beat > self.lease_seconds / 2:
            self._steady_since = now
        self._last_beat = now

    @property
    def steady_seconds(self) -> float:
        """For how long this process has been heard without a gap; infinite when there never was one. 0 during a gap."""
        now = time.monotonic()
        if self._last_beat is not None and now - self._last_beat > self.lease_seconds / 2:
            return 0.0
        return now - self._steady_since

    async def dead(self) -> list[str]:
        """Engines of this host that have been silent for longer than the lease. With SQLite: every other one."""
        if not self.database.sqlite and self.steady_seconds < self.lease_seconds:
            return []
        silent = EngineRow.id != self.id if self.database.sqlite else EngineRow.seen_at < db_time(-self.lease_seconds)
        async with self.database.reading() as session:
            found = await session.scalars(
                sa.select(EngineRow.id).where(EngineRow.host_id == self.host_id, EngineRow.id != self.id, silent)
            )
            return list(found)

    async def adopt(self, dead: list[str]) -> int:
        """Take over the unfinished workflows of dead engines; answers how many."""
        handles = await asyncio.to_thread(self._dbos._recover_pending_workflows, dead)  # noqa: SLF001 - DBOS has no public name for it
        if handles:
            logger.info("workflows_adopted", engines=dead, count=len(handles))
        return len(handles)

    async def state(self, workflow_id: str) -> State | None:
        """What became of a workflow; None when it was never started."""
        found = await self._dbos.get_workflow_status_async(workflow_id)
        if found is None:
            return None
        if found.status not in {"PENDING", "ENQUEUED"}:
            return State.ENDED
        return State.RUNS if found.app_version == self._version else State.FOREIGN

    async def owes(self, engines: list[str]) -> bool:
        """Whether dead engines still own unfinished workflows."""
        rows = await self._dbos.list_workflows_async(status="PENDING", executor_id=engines, limit=1)
        return bool(rows)

    async def forget(self, engines: list[str]) -> None:
        """Remove the rows of dead engines that own nothing any more."""
        async with self.database.transaction() as session:
            await session.execute(sa.delete(EngineRow).where(EngineRow.id.in_(engines), EngineRow.id != self.id))


async def any_alive(session: Session, silent_seconds: float) -> bool:
    """Whether any engine of any host was heard of in the last so many seconds."""
    alive = sa.select(EngineRow.id).where(EngineRow.seen_at > db_time(-silent_seconds)).limit(1)
    return await session.scalar(alive) is not None


def _slow_down(database: Database) -> None:
    """DBOS polls every second for each thing it can do and has no setting for it: most of what an idle `up` would cost.

    On PostgreSQL it holds a transaction open between two looks for deadlines, which may not last: there it keeps its pace.
    """
    from dbos import _workflow_commands
    from dbos._dbos import _get_dbos_instance

    if database.sqlite:
        _workflow_commands._BACKGROUND_JOBS_INTERVAL_SEC = UNUSED_SECONDS  # noqa: SLF001 - DBOS has no public name for it
    queue = _get_dbos_instance()._registry.get_internal_queue()  # noqa: SLF001 - the same
    queue._polling_interval_sec = ADOPT_SECONDS  # noqa: SLF001 - the same


def migrate(database: Database) -> None:
    """Bring the tables of DBOS to what it needs, before anything else of this process uses PostgreSQL.

    Blocks: it waits for open transactions to end, and would for ever if those were of the loop that it blocks.
    """
    if database.sqlite:
        return
    from dbos._serialization import DBOSPortableJSON
    from dbos._sys_db import SystemDatabase  # DBOS.migrate would make triggers that we do not listen to

    tables = SystemDatabase.create(
        system_database_url=_sync_url(database),
        engine_kwargs={"pool_size": 2},
        engine=None,
        schema="dbos",
        serializer=DBOSPortableJSON,
        executor_id=None,
        use_listen_notify=False,
    )
    try:
        tables.run_migrations()
    finally:
        tables.destroy()


def _sync_url(database: Database) -> str:
    driver = "sqlite" if database.sqlite else "postgresql+psycopg"
    url = database.url.set(drivername=driver)
    return (url if database.sqlite else url.update_query_dict(NOTICE_LOSS)).render_as_string(hide_password=False)


def _sqlite_engine(database: Database) -> sa.Engine:
    """The engine's own connections to the one file. `unixepoch` exists only since SQLite 3.42 and DBOS needs it."""
    engine = sa.create_engine(f"sqlite:///{database.path}")

    @sa.event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = "IMMEDIATE"
        connection.create_function("unixepoch", -1, lambda *_: time.time())
        sqlite_pragmas(connection)

    return engine
