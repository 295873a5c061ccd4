"""Event posted -> received by 200 WebSocket clients, through durable storage; throughput against a bare fan-out loop in the same run."""

import argparse
import asyncio
import base64
import contextlib
import multiprocessing
import os
import selectors
import socket
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import uvloop
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from starlette.routing import WebSocketRoute

from bench.ingest import NoStore, server
from shopfloor.events.store import Row
from shopfloor.kit.db import Database

CLIENTS, SANDBOXES = 200, 50
Post = tuple[float, bytes]
SPAWN = multiprocessing.get_context("spawn")


class Client:
    """One raw WebSocket: cheap, because it shares the machine with what it measures."""

    def __init__(self, port: int, query: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        key = base64.b64encode(os.urandom(16)).decode()
        upgrade = f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13"
        head = f"GET /api/v1/ws/events?{query} HTTP/1.1\r\nHost: 127.0.0.1\r\n{upgrade}\r\n\r\n"
        self.socket.sendall(head.encode())
        self.buffer = bytearray()
        while b"\r\n\r\n" not in self.buffer:
            self.buffer += self.socket.recv(4096)
        status, self.buffer = bytes(self.buffer).split(b"\r\n\r\n", 1)[0], bytearray()
        if b" 101 " not in status:
            raise RuntimeError(status.decode())
        self.socket.setblocking(False)

    def frames(self) -> Iterator[bytes]:
        try:
            data = self.socket.recv(1 << 18)
        except BlockingIOError:
            return
        if not data:
            raise RuntimeError("the server closed a socket")
        self.buffer += data
        at, size = 0, len(self.buffer)
        while size - at >= 2:
            length, head = self.buffer[at + 1] & 127, 2
            if length == 126:
                length, head = int.from_bytes(self.buffer[at + 2 : at + 4], "big"), 4
            elif length == 127:
                length, head = int.from_bytes(self.buffer[at + 2 : at + 10], "big"), 10
            if size - at < head + length:
                break
            yield bytes(self.buffer[at + head : at + head + length])
            at += head + length
        del self.buffer[:at]


def receive(clients: list[Client], total: int, patience: float = 30) -> tuple[list[float], float]:
    """(latencies in ms, seconds from the first to the last frame) of `total` frames."""
    selector = selectors.DefaultSelector()
    for client in clients:
        selector.register(client.socket, selectors.EVENT_READ, client)
    waits: list[float] = []
    first = last = time.monotonic()
    while len(waits) < total and time.monotonic() - last < patience:
        for key, _ in selector.select(0.5):
            for frame in key.data.frames():
                if (at := frame.find(b'"sent":')) < 0:
                    continue
                last = time.monotonic()
                first = first if waits else last
                waits.append(last * 1000 - int(frame[at + 7 : frame.index(b"}", at)]) / 1e6)
    selector.close()
    if len(waits) < total:
        raise RuntimeError(f"{len(waits)} of {total} frames arrived")
    return waits, last - first


def body(count: int) -> bytes:
    event = {"event_type": "agent.message", "event_data": {"text": "x" * 200, "sent": time.monotonic_ns()}}
    return orjson.dumps({"events": [event] * count} if count > 1 else event)


def post(port: int, posts: int, batch: int, rate: float) -> None:
    """`posts` requests, at `rate` a second (0: as fast as they are answered), each sandbox on a connection of its own."""
    uvloop.run(_post(port, posts, batch, rate))


async def _post(port: int, posts: int, batch: int, rate: float) -> None:
    began = time.perf_counter()

    async def line(sandbox: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for n in range(sandbox, posts, SANDBOXES):
            if rate and (early := began + n / rate - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            data = body(batch)
            path = f"/api/v1/sandboxes/sb-{sandbox}/events"
            writer.write(
                b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%b"
                % (path.encode(), len(data), data)
            )
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            if b" 200 " not in head[:20]:
                raise RuntimeError(head.decode())
        writer.close()

    await asyncio.gather(*(line(sandbox) for sandbox in range(SANDBOXES)))


def run(port: int, *, follow_one: bool, posts: int, batch: int, rate: float) -> tuple[list[float], float]:
    clients = [Client(port, f"entity_ids=sb-{n % SANDBOXES}" if follow_one else "") for n in range(CLIENTS)]
    poster = SPAWN.Process(target=post, args=(port, posts, batch, rate))
    poster.start()
    try:
        return receive(clients, posts * batch * (CLIENTS // SANDBOXES if follow_one else CLIENTS))
    finally:
        poster.join(30)
        for client in clients:
            client.socket.close()


class Bare(NoStore):
    """The bare loop behind the same route: nothing stored, no queue, no filter but a dictionary; writes to every socket."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.sockets: dict[str, set[Any]] = {}

    def open(self, app: FastAPI) -> None:
        app.router.routes.insert(0, WebSocketRoute("/api/v1/ws/events", self.follow))

    async def follow(self, websocket: WebSocket) -> None:
        await websocket.accept()
        group = self.sockets.setdefault(websocket.query_params.get("entity_ids", ""), set())
        group.add(websocket.send)
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                await websocket.receive_text()
        group.discard(websocket.send)

    async def write(self, batches: Sequence[Sequence[Row]]) -> list[int]:
        for row in (row for batch in batches for row in batch):
            known = {"event_type": row.event_type, "entity_id": row.sandbox_id, "payload": orjson.Fragment(row.payload)}
            text = orjson.dumps(known).decode()
            for group in (row.sandbox_id, ""):
                for send in tuple(self.sockets.get(group, ())):
                    await send({"type": "websocket.send", "text": text})
        await asyncio.sleep(0)
        return [len(batch) for batch in batches]


def fill(path: Path, rows: int) -> None:
    """Make the log large: rows of many sandboxes, by SQL."""
    asyncio.run(Database(f"sqlite:///{path}").create_all())
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute(
        "INSERT INTO events (xid, event_type, entity_type, entity_id, payload, source, sandbox_id, seq) "
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
        "SELECT 0, 'agent.message', 'sandbox', 'old-' || (i % 1000), '{\"text\":\"' || hex(zeroblob(50)) || '\"}', "
        "'agent', 'old-' || (i % 1000), i FROM n",
        (rows,),
    )
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # else the measurement would pay for moving it all
    connection.close()
    with path.open("rb+") as file:  # nor for the disk that still writes it
        os.fsync(file.fileno())


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def latency(port: int, seconds: float, *, follow_one: bool, rate: int, goal: int, note: str = "") -> None:
    waits, _ = run(port, follow_one=follow_one, posts=int(rate * seconds), batch=1, rate=rate)
    who = f"{rate} ev/s, each client {'one sandbox' if follow_one else 'everything'}{note}"
    p50, p99 = percentile(waits, 0.5), percentile(waits, 0.99)
    print(f"{who:<52}{p50:>10.1f}{p99:>10.1f}{goal:>8}{p99 / goal:>8.2f}")


def throughput(port: int, bare: int, rounds: int, *, follow_one: bool) -> None:
    posts = 400 if follow_one else 10
    found: dict[int, list[float]] = {port: [], bare: []}
    for place in found:
        run(place, follow_one=follow_one, posts=posts // 5, batch=50, rate=0)
    for _ in range(rounds):
        for place, rates in found.items():
            waits, seconds = run(place, follow_one=follow_one, posts=posts, batch=50, rate=0)
            rates.append(len(waits) / seconds)
    ours, floor = (sorted(rates)[len(rates) // 2] for rates in found.values())
    who = "each client one sandbox" if follow_one else "each client everything"
    print(f"{who:<52}{ours:>10,.0f}{floor:>10,.0f}{0.7:>8}{ours / floor:>8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="a PostgreSQL database to fill; default: a fresh SQLite file")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--old", type=int, default=0, help="events that are in the log already, e.g. 5000000 (SQLite)")
    options, _ = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder, server(f"sqlite:///{folder}/bare.db", Bare) as bare:
        with server(options.url or f"sqlite:///{folder}/bench.db") as port:
            print(
                f"{f'{CLIENTS} clients, {SANDBOXES} sandboxes':<52}{'p50 ms':>10}{'p99 ms':>10}{'goal':>8}{'ratio':>8}"
            )
            latency(port, options.seconds, follow_one=True, rate=500, goal=50)
            latency(port, options.seconds, follow_one=False, rate=100, goal=250)
            print(f"{'burst, frames a second':<52}{'ours':>10}{'bare':>10}{'goal':>8}{'ratio':>8}")
            throughput(port, bare, options.rounds, follow_one=True)
            throughput(port, bare, options.rounds, follow_one=False)
        if options.old:
            fill(Path(folder) / "old.db", options.old)
            for _ in range(options.rounds):  # in turns, so that both meet the same machine
                for name, note in (("new", ", empty log"), ("old", f", {options.old:,} old")):
                    with server(f"sqlite:///{folder}/{name}.db") as port:
                        latency(port, options.seconds, follow_one=True, rate=500, goal=50, note=note)


if __name__ == "__main__":
    main()
