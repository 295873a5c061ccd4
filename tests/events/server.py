"""The small app these tests drive: the real routes, hub and ingest over the test's database. In this process or as a server to be killed."""

import argparse
import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from shopfloor.auth import models as _auth_models  # noqa: F401 - its tables
from shopfloor.auth.guard import SandboxDoor
from shopfloor.events.bus import Hub
from shopfloor.events.ingest import Ingest
from shopfloor.events.routes import router as event_router
from shopfloor.events.store import Store, store_for
from shopfloor.kit.config import Settings
from shopfloor.kit.db import Database
from shopfloor.kit.http import install_problems
from shopfloor.messages.routes import router as message_router

ROOT = Path(__file__).resolve().parents[2]


@asynccontextmanager
async def opened(
    database: Database,
    *,
    settings: Settings | None = None,
    store: Callable[[Database], Store] = store_for,
    owner_of: Any = None,
) -> AsyncIterator[FastAPI]:
    """The app with its hub and ingest running, over a database that exists."""
    app = FastAPI()
    install_problems(app)
    app.add_middleware(SandboxDoor)
    app.include_router(event_router)
    app.include_router(message_router)
    hub = Hub(database)
    ingest = Ingest(store(database), owner_of=owner_of, stored=hub.wake)
    app.state.database, app.state.hub, app.state.ingest = database, hub, ingest
    app.state.settings = settings or Settings(data_dir=Path("/nonexistent"))
    await hub.start()
    await ingest.start()
    try:
        yield app
    finally:
        await ingest.close()
        await hub.close()


def listening(port: int) -> socket.socket:
    """A TCP socket that says so: else asyncio leaves Nagle's delay on, 40 ms a request."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(512)
    return listener


@asynccontextmanager
async def serving(app: FastAPI, **options: Any) -> AsyncIterator[str]:
    """The app behind a real uvicorn in this process; yields its address without the scheme."""
    listener = listening(0)
    config = uvicorn.Config(
        app,
        log_level="error",
        lifespan="off",
        ws_ping_interval=None,
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        **options,
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:  # noqa: ASYNC110 - uvicorn offers no event
        await asyncio.sleep(0.005)
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = server.force_exit = True
    await task
    listener.close()


class Killable:
    """A server process that can be killed and started again at the same port."""

    def __init__(self, url: str) -> None:
        self.url = url
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
        command = [sys.executable, "-m", "tests.events.server", "--url", self.url, "--port", str(self.port)]
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE)
        assert self.process.stdout
        assert self.process.stdout.readline() == b"ready\n"

    def kill(self) -> None:
        if self.process:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process.stdout.close()  # type: ignore[union-attr]
            self.process = None


@contextmanager
def killable(url: str) -> Iterator[Killable]:
    server = Killable(url)
    server.start()
    try:
        yield server
    finally:
        server.kill()


async def _main(url: str, port: int) -> None:
    database = Database(url)
    async with opened(database) as app:
        listener = listening(port)
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="error", lifespan="off", ws="websockets-sansio", ws_per_message_deflate=False)
        )
        print("ready", flush=True)
        await server.serve(sockets=[listener])
    await database.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    asyncio.run(_main(options.url, options.port))
