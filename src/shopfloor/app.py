"""The HTTP process: one app, served to people on TCP and to sandboxes through a door of their own."""

import asyncio
import contextlib
import fcntl
import functools
import os
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import IO, Any

import sqlalchemy as sa
from fastapi import FastAPI, Response

from shopfloor import __version__
from shopfloor.agents import rules as agent_rules
from shopfloor.agents import service as agents
from shopfloor.auth.guard import SandboxDoor
from shopfloor.board import queries as tickets
from shopfloor.board import service as board
from shopfloor.events.bus import Hub
from shopfloor.events.ingest import Ingest
from shopfloor.events.store import store_for
from shopfloor.features import ROUTERS
from shopfloor.forges.connections import Connections
from shopfloor.forges.mirrors.sources import tokens
from shopfloor.forges.service import Repositories
from shopfloor.forges.steps import hear, poll
from shopfloor.gateway.steps import Gateway
from shopfloor.kit import http, log
from shopfloor.kit.background import Background
from shopfloor.kit.blobs import BlobStore
from shopfloor.kit.config import Settings
from shopfloor.kit.db import Database
from shopfloor.kit.errors import Misconfigured
from shopfloor.messages.rules import MessageType
from shopfloor.sandboxes import queries as sandbox_queries
from shopfloor.sandboxes.rules import LIVE
from shopfloor.sandboxes.service import Sandboxes, host_id
from shopfloor.workorders.journal import Journal
from shopfloor.workorders.steps import Tools
from shopfloor.workorders.steps.pin import pin

logger = log.get(__name__)

OWN_LIMIT = re.compile(r"/api/v1/sandbox(es)?/[^/]+/(events|artifacts/[^/]+)|/(models|git)/.*")
"""Routes that read their bodies in pieces, or count them themselves."""


class DataDirectoryLocked(Misconfigured):
    """Another server uses this data directory."""

    hint = "Stop it, or give this one another data_dir (--data-dir)."


@contextlib.asynccontextmanager
async def assemble(settings: Settings) -> AsyncIterator[FastAPI]:
    """Open everything an app needs, in order; close it in reverse."""
    with locked(settings):
        database = Database(settings.database)
        background = Background()
        hub = Hub(database)
        ingest = Ingest(store_for(database), owner_of=_owner(database), stored=hub.wake)
        await hub.start()
        await ingest.start()
        gateway = Gateway(
            settings=settings, database=database, background=background, host_id=host_id(settings.data_dir)
        )
        try:
            app = build(settings, gateway, hub, ingest)
            if settings.forges:
                _hear(app, background)
            yield app
        finally:
            await gateway.http.aclose()
            await background.close()
            await ingest.close()
            await hub.close()
            await database.close()


def build(settings: Settings, gateway: Gateway, hub: Hub, ingest: Ingest) -> FastAPI:
    """The app with its state and routes."""
    app = FastAPI(title="Shopfloor", version=__version__, docs_url="/docs", redoc_url=None)
    database = gateway.database
    sandboxes = Sandboxes(settings, database, gateway.host_id)
    house = repositories(settings)
    tools = Tools(
        settings=settings,
        database=database,
        hub=hub,
        sandboxes=sandboxes,
        repositories=house,
        blobs=BlobStore(settings.blobs),
        ingest=ingest,
    )
    sandboxes.keep = functools.partial(pin, tools)
    log.also_to(Journal(settings.data_dir / "logs"))
    state: dict[str, Any] = {
        "settings": settings,
        "database": database,
        "background": gateway.background,
        "gateway": gateway,
        "hub": hub,
        "ingest": ingest,
        "sandboxes": sandboxes,
        "repositories": house,
        "tools": tools,
        "sandbox_ended": _ended(database),
        "message_refused": _refused(settings, database),
        "ticket_terms": board.terms,
        "ticket_allows": board.check_allows,
        "ticket": tickets.get,
    }
    for name, value in state.items():
        setattr(app.state, name, value)
    _open(app, database)
    return app


def _open(app: FastAPI, database: Database) -> None:
    """The doors, and who stands before them."""
    http.install_problems(app)
    for router in ROUTERS:
        app.include_router(router)
    app.add_api_route("/healthz", _healthz, tags=["operations"])
    app.add_api_route("/readyz", _readyz(database), tags=["operations"], response_model=None)
    app.add_middleware(http.BodyLimit, own=OWN_LIMIT)
    app.add_middleware(SandboxDoor)
    app.add_middleware(http.RequestId)


def _hear(app: FastAPI, background: Background) -> None:
    """React to what forges tell; only where one is connected."""
    state, awake = app.state, asyncio.Event()
    state.forge_inbox = awake
    background.keep("forge_inbox", lambda: hear.listen(state.database, state.repositories, awake=awake))
    background.keep("forge_poll", lambda: poll.keep_polling(state.database, state.repositories, awake=awake))


def repositories(settings: Settings) -> Repositories:
    """Every repository of a data directory, with the forges that the settings connect."""
    credentials = tokens(settings.origin_tokens)
    return Repositories(
        settings.data_dir / "repositories",
        protocols=settings.origin_protocols,
        credentials=credentials,
        connections=Connections(settings.forges, settings.origin_tokens),
    )


@contextlib.contextmanager
def locked(settings: Settings) -> Iterator[None]:
    """Hold the data directory: alone with SQLite, together with other processes of this host with PostgreSQL."""
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o711)
    alone = settings.database.startswith("sqlite")
    with (settings.data_dir / "lock").open("a") as file:
        if not _lock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH):
            raise DataDirectoryLocked(f"another server uses {settings.data_dir}")
        yield


def _lock(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def door_path(settings: Settings) -> Path:
    """Where the sandboxes' door is; raises Misconfigured when no socket can be there."""
    place = settings.data_dir / "door.sock"
    if len(os.fsencode(place)) > 100:
        raise Misconfigured(
            f"data_dir is too long for a socket: {place}", hint="Choose a data_dir of at most 85 letters."
        )
    return place


def door(settings: Settings) -> tuple[socket.socket, IO[str]] | None:
    """The Unix socket that sandboxes reach the API through, with the lock that proves it ours; None while another process has it."""
    place = door_path(settings)
    lock = (settings.data_dir / "door.lock").open("a")
    if not _lock(lock, fcntl.LOCK_EX):
        lock.close()
        return None
    place.unlink(missing_ok=True)
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    opened.bind(str(place))
    Path(place).chmod(0o600)
    opened.listen(512)
    return opened, lock


async def _healthz() -> dict[str, str]:
    """The process lives."""
    return {"status": "ok", "version": __version__}


def _readyz(database: Database) -> Callable[[], Awaitable[Response]]:
    async def readyz() -> Response:
        """The database answers."""
        try:
            async with asyncio.timeout(3), database.reading() as session:
                await session.execute(sa.text("SELECT 1"))
        except Exception as error:
            document = Misconfigured("the database does not answer", hint="See the server's log.").document()
            logger.warning("readiness_check_failed", error=str(error))
            return http.problem_response(document | {"status": 503, "code": "not_ready"})
        return Response('{"status":"ready"}', media_type="application/json")

    return readyz


def _owner(database: Database) -> Callable[[str], Awaitable[tuple[str | None, str | None] | None]]:
    async def owner(sandbox_id: str) -> tuple[str | None, str | None] | None:
        async with database.reading() as session:
            row = await sandbox_queries.find(session, sandbox_id)
        return (row.work_order_id, None) if row else None

    return owner


def _ended(database: Database) -> Callable[[str], Awaitable[bool]]:
    async def ended(sandbox_id: str) -> bool:
        async with database.reading() as session:
            row = await sandbox_queries.find(session, sandbox_id)
        return row is not None and row.state not in LIVE

    return ended


def _refused(settings: Settings, database: Database) -> Callable[[str, str], Awaitable[None]]:
    async def refused(sandbox_id: str, message_type: str) -> None:
        """Raise when the agent in a sandbox cannot take such a message."""
        async with database.reading() as session:
            row = await sandbox_queries.find(session, sandbox_id)
        if row is not None and row.agent_id and row.work_order_id:
            can = agents.capability(agents.profile(settings, row.agent_id))
            agent_rules.check_message(row.agent_id, can, interrupt=message_type == MessageType.INTERRUPT)

    return refused
