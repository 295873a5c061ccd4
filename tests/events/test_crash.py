"""Nothing acknowledged is lost and nothing is stored twice, whatever dies."""

import asyncio
import errno
import os
import random
import sqlite3
from collections.abc import Sequence
from typing import Any

import asyncpg
import httpx
import orjson
import pytest
import sqlalchemy as sa
from fastapi import FastAPI

from shopfloor.events.bus import Hub
from shopfloor.events.catalog.work_orders import WorkflowPhaseChanged
from shopfloor.events.ingest import EventMalformed, Ingest, IngestUnavailable
from shopfloor.events.log import START, Position, append, read_after
from shopfloor.events.models import EventRow
from shopfloor.events.store import Away, PostgresStore, Row, SqliteStore, store_for
from shopfloor.kit.db import Database
from tests.events.server import Killable, killable

SEED = int(os.environ.get("SHOPFLOOR_TEST_SEED", "7"))
KILLS = int(os.environ.get("SHOPFLOOR_TEST_KILLS", "5"))


class Poster:
    """A worker that spools: sends a batch again and again until it is acknowledged, like the real one."""

    def __init__(self, port: int, sandbox: str, chance: random.Random) -> None:
        self.url = f"http://127.0.0.1:{port}/api/v1/sandboxes/{sandbox}/events"
        self.sandbox, self.chance = sandbox, chance
        self.acknowledged = 0

    async def run(self, stop: asyncio.Event) -> None:
        async with httpx.AsyncClient(timeout=5) as client:
            while not stop.is_set():
                first = max(1, self.acknowledged + 1 - self.chance.randrange(5))  # overlapping what is there already
                last = self.acknowledged + self.chance.randint(1, 20)
                events = [{"event_type": "agent.message", "seq": n} for n in range(first, last + 1)]
                while not await self.accepted(client, {"events": events}):  # noqa: ASYNC110 - a back-off
                    await asyncio.sleep(0.02)
                self.acknowledged = last

    async def accepted(self, client: httpx.AsyncClient, body: dict[str, Any]) -> bool:
        try:
            return (await client.post(self.url, json=body)).status_code == 200
        except httpx.TransportError:
            return False


async def killed_again_and_again(server: Killable, chance: random.Random) -> list[Poster]:
    posters = [Poster(server.port, f"sb-{n}", random.Random(chance.random())) for n in range(4)]
    stop = asyncio.Event()
    tasks = [asyncio.create_task(poster.run(stop)) for poster in posters]
    for _ in range(KILLS):
        await asyncio.sleep(chance.uniform(0.05, 0.4))  # when the blow falls is the seed's business
        server.kill()
        await asyncio.to_thread(server.start)
    stop.set()
    await asyncio.gather(*tasks)
    return posters


@pytest.mark.integration
async def test_every_acknowledged_event_is_stored_once_through_kills(database: Database, database_url: str) -> None:
    with killable(database_url) as server:
        posters = await killed_again_and_again(server, random.Random(SEED))
    async with database.reading() as session:
        rows = (await session.execute(sa.select(EventRow.sandbox_id, EventRow.seq))).all()
    stored = sorted((sandbox, seq) for sandbox, seq in rows)
    wanted = sorted((p.sandbox, n) for p in posters for n in range(1, p.acknowledged + 1))
    assert stored == wanted


async def test_readers_below_the_horizon_miss_nothing_of_eight_writers(database: Database) -> None:
    chance = random.Random(SEED)

    async def write(writer: int) -> None:
        for n in range(40):
            async with database.transaction() as session:
                await append(session, WorkflowPhaseChanged(work_order_id=f"wo-{writer}", phase=str(n)))
                if not database.sqlite and chance.random() < 0.4:
                    await session.execute(sa.select(sa.func.pg_sleep(chance.random() * 0.01)))

    async def tail(done: asyncio.Event) -> list[int]:
        seen, position = [], START
        while True:
            last_round = done.is_set()
            async with database.reading() as session:
                rows = await read_after(session, position)
            if rows:
                position = Position(rows[-1][0], rows[-1][1])
                seen += [row[1] for row in rows]
            elif last_round:
                return seen

    done = asyncio.Event()
    reader = asyncio.create_task(tail(done))
    await asyncio.gather(*(write(n) for n in range(8)))
    done.set()
    assert len(set(await reader)) == len(await reader) == 320


async def test_a_hub_hands_out_everything_of_eight_writers_once(database: Database, app: FastAPI) -> None:
    async with app.state.hub.subscribe() as subscription:

        async def write(writer: int) -> None:
            for n in range(25):
                async with database.transaction() as session:
                    await append(session, WorkflowPhaseChanged(work_order_id=f"wo-{writer}", phase=str(n)))

        await asyncio.gather(*(write(n) for n in range(8)))
        seen: list[tuple[str, str]] = []
        async with asyncio.timeout(20):
            while len(seen) < 200:
                seen += [(e.entity_id, e.payload["phase"]) for e in await subscription.take()]
    assert sorted(seen) == sorted((f"wo-{w}", str(n)) for w in range(8) for n in range(25))


async def test_another_process_hears_of_an_event(database_url: str, database: Database, app: FastAPI) -> None:
    if database.sqlite:
        pytest.skip("one process only")
    other_database = Database(database_url)
    other = Hub(other_database)
    await other.start()
    async with other.subscribe() as subscription, asyncio.timeout(10):
        await app.state.ingest.post("sb-1", b'{"event_type": "a"}')
        [event] = await subscription.take()
    await other.close()
    await other_database.close()
    assert event.event_type == "a"


async def test_cut_database_connections_lose_no_event(database: Database, app: FastAPI) -> None:
    if database.sqlite:
        pytest.skip("has no connections to cut")
    async with app.state.hub.subscribe() as subscription:
        for n in range(1, 41):
            if n % 10 == 0:
                await cut_all(database)
            while not await stored(app.state.ingest, n):  # noqa: ASYNC110 - a back-off
                await asyncio.sleep(0.01)
        seen: list[int] = []
        async with asyncio.timeout(20):
            while len(seen) < 40:
                seen += [e._row[9] for e in await subscription.take()]
    assert seen == list(range(1, 41))


async def cut_all(database: Database) -> None:
    connection = await asyncpg.connect(database.url.set(drivername="postgresql").render_as_string(hide_password=False))
    others = "datname = current_database() AND pid <> pg_backend_pid()"
    await connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")
    await connection.close()


async def stored(ingest: Ingest, n: int) -> bool:
    try:
        await ingest.post("sb-1", orjson.dumps({"event_type": "a", "seq": n}))
    except IngestUnavailable:
        return False
    return True


class Full:
    """A store on a disk that is full for a while."""

    def __init__(self, database: Database) -> None:
        self.store, self.full = store_for(database), True

    async def write(self, batches: Sequence[Sequence[Row]]) -> list[int]:
        if self.full:
            raise Away(os.strerror(errno.ENOSPC))
        return await self.store.write(batches)

    async def close(self) -> None:
        await self.store.close()


async def test_a_full_disk_acknowledges_nothing_and_recovers(database: Database) -> None:
    store = Full(database)
    ingest = Ingest(store)
    await ingest.start()
    assert not await stored(ingest, 1)
    store.full = False
    assert await stored(ingest, 1)
    await ingest.close()


async def test_a_sqlite_file_at_its_limit_answers_unavailable_and_recovers(database: Database) -> None:
    store = store_for(database)
    if not isinstance(store, SqliteStore):
        pytest.skip("SQLite's own limit")
    ingest = Ingest(store)
    await ingest.start()
    await ingest.post("sb-1", b'{"event_type": "a", "seq": 1}')
    await asyncio.get_running_loop().run_in_executor(store._thread, shrink, store)
    big = orjson.dumps({"event_type": "a", "seq": 2, "event_data": {"x": "x" * 90_000}})
    with pytest.raises(IngestUnavailable):
        await ingest.post("sb-1", big)
    assert (await ingest.post("sb-1", big)).accepted == 1  # on a new connection, without the limit
    await ingest.close()


def shrink(store: SqliteStore) -> None:
    assert isinstance(store._connection, sqlite3.Connection)
    store._connection.execute("PRAGMA max_page_count = 1")


async def test_a_database_that_is_away_answers_unavailable() -> None:
    ingest = Ingest(PostgresStore(Database("postgresql://nobody@/none?host=/nonexistent")))
    await ingest.start()
    with pytest.raises(IngestUnavailable):
        await ingest.post("sb-1", b'{"event_type": "a"}')
    await ingest.close()


async def test_a_batch_the_database_refuses_does_not_fail_its_neighbours(database: Database) -> None:
    ingest = Ingest(store_for(database))
    await ingest.start()
    good = [Row("a", "sb-1", "{}", "agent", n, None, None, None) for n in (1, 2)]
    bad = Row("a", "sb-1", "{}", "agent", 2**70, None, None, None)
    answers = await asyncio.gather(
        ingest._write(good[:1]), ingest._write([bad]), ingest._write(good[1:]), return_exceptions=True
    )
    await ingest.close()
    assert (answers[0], answers[2], type(answers[1])) == (1, 1, EventMalformed)


async def test_closing_stores_what_is_waiting(database: Database) -> None:
    ingest = Ingest(store_for(database))
    await ingest.start()
    posts = [asyncio.create_task(stored(ingest, n)) for n in range(1, 21)]
    await asyncio.sleep(0)
    await ingest.close()
    assert all(await asyncio.gather(*posts))
