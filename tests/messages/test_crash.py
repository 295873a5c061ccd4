"""A message reaches the agent's side exactly once, whichever side dies."""

import asyncio
import random

import httpx
import pytest
import sqlalchemy as sa

from shopfloor.events.bus import Hub
from shopfloor.kit.db import Database, db_time
from shopfloor.messages import service
from shopfloor.messages.models import Message
from shopfloor.messages.rules import MessageState
from tests.events.server import killable
from tests.events.test_crash import KILLS, SEED

URL = "/api/v1/sandboxes/sb-1/messages"


async def insist(client: httpx.AsyncClient, method: str, url: str, **options: object) -> httpx.Response:
    """Send until there is an answer, as the worker and a careful client do."""
    while True:
        try:
            answer = await client.request(method, url, **options)  # type: ignore[arg-type]
        except httpx.TransportError:
            await asyncio.sleep(0.02)
            continue
        if answer.status_code < 500:
            return answer
        await asyncio.sleep(0.02)


async def worker(client: httpx.AsyncClient, wanted: int) -> list[str]:
    """Keeps what it took by id, acknowledges, and only then asks again."""
    kept: dict[str, str] = {}
    while len(kept) < wanted:
        answer = await insist(client, "GET", f"{URL}/next?wait=1")
        for message in answer.json()["messages"]:
            kept.setdefault(message["message_id"], message["content"])
            await insist(client, "POST", f"{URL}/{message['message_id']}/receipts", json={"state": "delivered"})
    return list(kept.values())


async def speaker(client: httpx.AsyncClient, count: int) -> None:
    for n in range(count):
        await insist(client, "POST", URL, json={"content": str(n)}, headers={"Idempotency-Key": f"key-{n}"})


async def free_leases(database: Database, stop: asyncio.Event) -> None:
    """Let no test wait for a lease of a lost answer to run out."""
    while not stop.is_set():
        async with database.transaction() as session:
            await session.execute(sa.update(Message).where(Message.lease_until < db_time(28)).values(lease_until=None))
        await asyncio.sleep(0.2)


@pytest.mark.integration
async def test_every_message_arrives_once_and_in_order_through_kills(database: Database, database_url: str) -> None:
    count, chance, stop = 60, random.Random(SEED), asyncio.Event()
    with killable(database_url) as server:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=10) as client:
            speaking = asyncio.create_task(speaker(client, count))
            working = asyncio.create_task(worker(client, count))
            freeing = asyncio.create_task(free_leases(database, stop))
            for _ in range(min(KILLS, 3)):
                await asyncio.sleep(chance.uniform(0.05, 0.3))  # when the blow falls is the seed's business
                server.kill()
                await asyncio.to_thread(server.start)
            await speaking
            arrived = await working
            stop.set()
            await freeing
    async with database.reading() as session:
        states = (await session.scalars(sa.select(Message.state))).all()
    assert (arrived, states) == ([str(n) for n in range(count)], ["delivered"] * count)


async def test_a_worker_that_dies_before_acknowledging_leaves_the_message_to_the_next(database: Database) -> None:
    """W10"""
    hub = Hub(database)
    await hub.start()
    async with database.transaction() as session:
        message = await service.queue(session, "sb-1", "hello")
    first = await service.lease_next(database, hub, "sb-1", wait=0, seconds=0.05)  # dies with it
    second = await service.lease_next(database, hub, "sb-1", wait=5)
    await hub.close()
    assert [m.id for m in first] == [m.id for m in second] == [message.id]


async def test_a_worker_that_dies_after_acknowledging_leaves_nothing_to_do_twice(database: Database) -> None:
    hub = Hub(database)
    await hub.start()
    async with database.transaction() as session:
        message = await service.queue(session, "sb-1", "hello")
    await service.lease_next(database, hub, "sb-1", wait=0, seconds=0)
    async with database.transaction() as session:
        await service.receipt(session, "sb-1", message.id, MessageState.DELIVERED)
    assert await service.lease_next(database, hub, "sb-1", wait=0.1) == []
    await hub.close()


async def test_a_caller_that_has_left_leases_nothing(database: Database) -> None:
    async def gone() -> bool:
        return True

    hub = Hub(database)
    await hub.start()
    async with database.transaction() as session:
        await service.queue(session, "sb-1", "hello")
    assert await service.lease_next(database, hub, "sb-1", wait=0, gone=gone) == []
    assert len(await service.lease_next(database, hub, "sb-1", wait=0)) == 1
    await hub.close()
