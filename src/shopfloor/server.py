"""Run the processes: `up` is everything in one, `serve` the API, `engine` the work."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

from shopfloor import app as application
from shopfloor.gateway.service import settle_cut_calls
from shopfloor.gateway.steps import Gateway
from shopfloor.kit import log, schema
from shopfloor.kit.config import Settings
from shopfloor.kit.db import AWAY, Database
from shopfloor.kit.engine import migrate as migrate_engine
from shopfloor.kit.errors import Misconfigured

logger = log.get(__name__)


SWITCH_SECONDS = 0.0005
"""Python's default of 5 ms lets the database's thread hold up the fan-out of events."""


class AddressTaken(Misconfigured):
    """The address is in use."""


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling, for one process has several servers, and told to end instead of asking ten times a second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ending = asyncio.Event()

    def end(self) -> None:
        self.should_exit = True
        self._ending.set()

    async def main_loop(self) -> None:
        """Keep the date of the answers' headers right until told to end."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), 1)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `run`."""
        yield


def listener(settings: Settings) -> socket.socket:
    """The TCP socket of the API; raises AddressTaken."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    opened = socket.socket(
        family, socket.SOCK_STREAM, socket.IPPROTO_TCP
    )  # asyncio sets TCP_NODELAY only if it is told
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((settings.host, settings.port))
    except OSError as error:
        opened.close()
        raise AddressTaken(
            f"{settings.host}:{settings.port}: {error.strerror}",
            hint="Another Shopfloor may be running (shopfloor status), or choose another port (--port).",
        ) from error
    opened.listen(1024)
    opened.setblocking(False)
    return opened


async def run(settings: Settings, *, api: bool = True, engine: bool = True) -> None:
    """Run until SIGINT or SIGTERM."""
    sys.setswitchinterval(SWITCH_SECONDS)
    await asyncio.to_thread(_migrate, settings, engine=engine)
    application.door_path(settings)
    tcp = listener(settings) if api else None
    stop = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    async with application.assemble(settings) as app, contextlib.AsyncExitStack() as stack:
        servers: list[_Server] = []
        served = [asyncio.create_task(_serve_door(app, settings, servers))]
        if tcp is not None:
            served.append(asyncio.create_task(_serve(app, tcp, servers)))
        if engine:
            from shopfloor.engine import working

            await stack.enter_async_context(working(app.state.tools))
        logger.info("server_started", host=settings.host, port=tcp.getsockname()[1] if tcp else None, pid=os.getpid())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({stopping, *served}, return_when=asyncio.FIRST_COMPLETED)
        if not stopping.done():  # a server ended by itself: nobody could reach what it served, so all ends
            failed = next(task for task in served if task.done())
            logger.error("server_failed", exc_info=failed.exception())
            logging.shutdown()
            os._exit(1)
        logger.info("server_stopping")
        for server in servers:
            server.end()
        served[0].cancel()
        await asyncio.wait(served, timeout=5)
    logger.info("server_stopped")
    # Unfinished workflows must end as in a crash, to be adopted: an orderly end of the loop would record them as cancelled.
    logging.shutdown()
    os._exit(0)


def _migrate(settings: Settings, *, engine: bool) -> None:
    database = Database(settings.database)
    with application.locked(settings):
        schema.upgrade(database)
        if engine:
            migrate_engine(database)


async def _serve(app: FastAPI, opened: socket.socket, servers: list[_Server]) -> None:
    config = uvicorn.Config(
        app,
        lifespan="off",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=3,
        server_header=False,
    )
    server = _Server(config)
    servers.append(server)
    await server.serve(sockets=[opened])


async def _serve_door(app: FastAPI, settings: Settings, servers: list[_Server]) -> None:
    """Serve sandboxes; when another process of this host does, stand by to take over."""
    while (opened := application.door(settings)) is None:  # noqa: ASYNC110 - another process's lock sends no event
        await asyncio.sleep(0.5)
    with contextlib.closing(opened[1]):
        await settle(app.state.gateway)
        await _serve(app, opened[0], servers)


async def settle(gateway: Gateway) -> None:
    """Write down what calls of this host's gateway before us were cut off: whoever has the door is its only one. Waits for a database that is away."""
    while True:
        try:
            async with gateway.database.transaction() as session:
                return await settle_cut_calls(session, gateway.host_id)
        except AWAY as error:
            logger.warning("door_not_opened", reason=str(error)[:500])
            await asyncio.sleep(0.5)
