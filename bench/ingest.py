"""Durable event ingest over HTTP against the same route with storage switched off, and the raw database limit in the same run."""

import argparse
import asyncio
import multiprocessing
import os
import socket
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import uvicorn
import uvloop
from fastapi import FastAPI

from shopfloor.auth import models as _auth  # noqa: F401 - its tables
from shopfloor.auth.guard import SandboxDoor
from shopfloor.events.bus import Hub
from shopfloor.events.ingest import Ingest
from shopfloor.events.routes import router
from shopfloor.events.store import Row, Store, store_for
from shopfloor.kit.config import Settings
from shopfloor.kit.db import Database
from shopfloor.kit.http import install_problems

CONNECTIONS = 32
DATA = {"text": "x" * 200, "kind": "read", "id": "call-1"}


class NoStore:
    """Storage switched off: the same route, nothing kept."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def open(self, app: FastAPI) -> None:
        """Add routes of its own."""

    async def write(self, batches: Sequence[Sequence[Row]]) -> list[int]:
        return [len(batch) for batch in batches]

    async def close(self) -> None:
        return None


StoreOf = Callable[[Database], Store]


async def serve(url: str, listener: socket.socket, ready: Any, store_of: StoreOf) -> None:
    database = Database(url)
    await database.create_all()
    app = FastAPI()
    install_problems(app)
    app.add_middleware(SandboxDoor)
    app.include_router(router)
    hub, store = Hub(database), store_of(database)
    if isinstance(store, NoStore):
        store.open(app)
    ingest = Ingest(store, stored=None if isinstance(store, NoStore) else hub.wake)
    state = app.state
    state.database, state.hub, state.ingest, state.settings = (
        database,
        hub,
        ingest,
        Settings(data_dir=Path("/nonexistent")),
    )
    await hub.start()
    await ingest.start()
    options: Any = {"ws": "websockets-sansio", "ws_per_message_deflate": False, "ws_ping_interval": None}
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", http="httptools", **options))
    ready.set()
    await server.serve(sockets=[listener])


def server_process(url: str, listener: socket.socket, ready: Any, store_of: StoreOf) -> None:
    sys.setswitchinterval(0.0005)  # as the product does: the writer's thread must not wait 5 ms for each statement
    uvloop.run(serve(url, listener, ready, store_of))


@contextmanager
def server(url: str, store_of: StoreOf = store_for) -> Iterator[int]:
    """A server process; yields its port."""
    context = multiprocessing.get_context("spawn")
    listener, ready = socket.create_server(("127.0.0.1", 0), backlog=512), context.Event()
    process = context.Process(target=server_process, args=(url, listener, ready, store_of))
    process.start()
    ready.wait(60)
    try:
        yield listener.getsockname()[1]
    finally:
        process.kill()
        process.join()
        listener.close()


def request(sandbox: str, first: int, count: int) -> bytes:
    """A post as bytes on the wire: the client must cost little, it shares the machine."""
    events = [
        {
            "seq": n,
            "event_type": "agent.tool_use",
            "event_data": DATA,
            "source": "worker",
            "occurred_at": "2026-01-01T00:00:00Z",
        }
        for n in range(first, first + count)
    ]
    body = orjson.dumps({"events": events} if count > 1 else events[0])
    head = f"POST /api/v1/sandboxes/{sandbox}/events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def _post_for(port: int, sandbox: str, batch: int, seconds: float) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    done, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        writer.write(request(sandbox, done + 1, batch))
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head.decode())
        done += batch
    writer.close()
    return done


async def _load(port: int, batch: int, seconds: float) -> float:
    run = f"{os.getpid()}-{time.monotonic_ns()}"
    counts = await asyncio.gather(*(_post_for(port, f"sb-{run}-{n}", batch, seconds) for n in range(CONNECTIONS)))
    return sum(counts) / seconds


def events_a_second(port: int, batch: int, seconds: float) -> float:
    return uvloop.run(_load(port, batch, seconds))


def raw_limit(seconds: float) -> float:
    """Rows a second of a bare driver loop: 1000 rows a commit, the same durability and indexes as ours."""
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{folder}/raw.db")
        asyncio.run(database.create_all())
        store = store_for(database)
        payload, done, end = orjson.dumps(DATA).decode(), 0, time.perf_counter() + seconds
        connection = sqlite3.connect(f"{folder}/raw.db", isolation_level=None)
        connection.execute("PRAGMA synchronous=FULL")
        statement = (
            "INSERT INTO events (xid, event_type, entity_type, entity_id, payload, source, sandbox_id, seq) "
            "VALUES (0, 'agent.tool_use', 'sandbox', ?, ?, 'worker', ?, ?)"
        )
        while time.perf_counter() < end:
            rows = [(f"sb-{n % CONNECTIONS}", payload, f"sb-{n % CONNECTIONS}", n) for n in range(done, done + 1000)]
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(statement, rows)
            connection.execute("COMMIT")
            done += 1000
        connection.close()
        asyncio.run(store.close())
        return done / seconds


def measure(url: str, batch: int, seconds: float, rounds: int) -> tuple[float, float]:
    """Events a second (with storage, without), measured in turns so that both meet the same machine."""
    found: dict[bool, list[float]] = {True: [], False: []}
    with server(url) as durable, server(url, NoStore) as off:
        for port in (durable, off):
            events_a_second(port, batch, 0.5)
        for _ in range(rounds):
            for storage, port in ((True, durable), (False, off)):
                found[storage].append(events_a_second(port, batch, seconds))
    middle = {storage: sorted(values)[len(values) // 2] for storage, values in found.items()}
    return middle[True], middle[False]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="a PostgreSQL database to fill; default: a fresh SQLite file")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    options, _ = parser.parse_known_args()
    print(f"ingest, {CONNECTIONS} connections, acknowledged after a durable commit (ratios count, not figures)")
    print(f"{'post':<14}{'durable ev/s':>14}{'storage off':>14}{'ratio':>8}{'goal':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for batch, goal in ((1, 0.6), (50, 0.3)):
            url = options.url or f"sqlite:///{folder}/bench-{batch}.db"
            durable, off = measure(url, batch, options.seconds, options.rounds)
            name = "single" if batch == 1 else f"batch of {batch}"
            print(f"{name:<14}{durable:>14,.0f}{off:>14,.0f}{durable / off:>8.2f}{goal:>8.2f}")
    if not options.url:
        print(f"raw limit of the file, 1000 rows a commit: {raw_limit(2):,.0f} rows/s")


if __name__ == "__main__":
    main()
