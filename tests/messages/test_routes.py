"""Messages over HTTP: queue, read once, lease, receipts."""

import asyncio
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from fastapi import FastAPI

from shopfloor.events.bus import Subscription
from shopfloor.events.log import Filters
from shopfloor.kit.db import Database, db_time
from shopfloor.messages import service
from shopfloor.messages.models import Message

URL = "/api/v1/sandboxes/sb-1/messages"


async def say(client: httpx.AsyncClient, content: str, kind: str = "user_message", **headers: str) -> str:
    answer = await client.post(URL, json={"content": content, "message_type": kind}, headers=headers)
    assert answer.status_code == 200, answer.text
    message_id: str = answer.json()["message_id"]
    return message_id


async def read(client: httpx.AsyncClient, url: str = URL) -> list[str]:
    return [message["content"] for message in (await client.get(url)).json()["messages"]]


async def acknowledge(client: httpx.AsyncClient, message_id: str, state: str) -> httpx.Response:
    return await client.post(f"{URL}/{message_id}/receipts", json={"state": state})


async def someone_listens(app: FastAPI) -> None:
    while not app.state.hub._by_entity:  # noqa: ASYNC110 - the hub has no event for it
        await asyncio.sleep(0.002)


async def expire_leases(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(sa.update(Message).values(lease_until=db_time(-1)))


async def test_a_queued_message_says_so(client: httpx.AsyncClient) -> None:
    answer = await client.post(URL, json={"content": "hello", "message_type": "user_message"})
    assert (answer.status_code, answer.json()["status"], answer.json()["state"]) == (200, "queued", "accepted")


async def test_reading_shows_the_oldest_first(client: httpx.AsyncClient) -> None:
    for content in ("one", "two", "three"):
        await say(client, content)
    assert await read(client) == ["one", "two", "three"]


async def test_reading_consumes(client: httpx.AsyncClient) -> None:
    await say(client, "one")
    await read(client)
    assert await read(client) == []


@pytest.mark.parametrize("kind", ["user_message", "interrupt", "guardian_intervention", "system"])
async def test_the_type_arrives(client: httpx.AsyncClient, kind: str) -> None:
    await say(client, "x", kind)
    assert (await client.get(URL)).json()["messages"][0]["message_type"] == kind


async def test_an_old_type_name_arrives_under_its_new_one(client: httpx.AsyncClient) -> None:
    await say(client, "x", "guardian_nudge")
    assert (await client.get(URL)).json()["messages"][0]["message_type"] == "guardian_intervention"


BAD = [
    {},
    {"content": ""},
    {"content": 1},
    {"content": "x", "message_type": "shout"},
    {"content": "x", "extra": 1},
    {"content": "x", "message_id": "no"},
]


@pytest.mark.parametrize("body", BAD)
async def test_a_malformed_message_is_refused(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    assert (await client.post(URL, json=body)).status_code == 422


async def test_queueing_is_announced(app: FastAPI, client: httpx.AsyncClient) -> None:
    async with app.state.hub.subscribe(Filters(entity_ids=frozenset({"sb-1"}))) as events:
        message_id = await say(client, "hello")
        [event] = await events.take(5)
    assert "MESSAGE_QUEUED" in event.event_type
    assert (event.payload["message_id"], event.payload["content"]) == (message_id, "hello")


async def receipts(events: Subscription, count: int) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    while len(found) < count:
        found += [
            (e.payload["before"], e.payload["after"])
            for e in await events.take(5)
            if e.event_type == "message.receipt_changed"
        ]
    return found


async def test_each_step_of_a_receipt_is_announced(app: FastAPI, client: httpx.AsyncClient) -> None:
    async with app.state.hub.subscribe(Filters(entity_ids=frozenset({"sb-1"}))) as events:
        message_id = await say(client, "hello")
        for state in ("delivered", "seen", "done"):
            await acknowledge(client, message_id, state)
        told = await receipts(events, 3)
    assert told == [("accepted", "delivered"), ("delivered", "seen"), ("seen", "done")]


async def test_a_repeated_receipt_is_announced_once(app: FastAPI, client: httpx.AsyncClient) -> None:
    async with app.state.hub.subscribe(Filters(entity_ids=frozenset({"sb-1"}))) as events:
        message_id = await say(client, "hello")
        for state in ("delivered", "delivered", "done", "delivered", "done"):
            assert (await acknowledge(client, message_id, state)).status_code == 200
        assert await receipts(events, 2) == [("accepted", "delivered"), ("delivered", "done")]


async def test_a_receipt_is_visible_on_the_message(client: httpx.AsyncClient) -> None:
    message_id = await say(client, "hello")
    await acknowledge(client, message_id, "seen")
    message = (await client.get(f"{URL}/{message_id}")).json()
    assert message["state"] == "seen"
    assert message["delivered_at"] is not None
    assert message["seen_at"] is not None


async def test_an_impossible_receipt_conflicts(client: httpx.AsyncClient) -> None:
    message_id = await say(client, "hello")
    await acknowledge(client, message_id, "done")
    assert (await acknowledge(client, message_id, "failed")).status_code == 409


async def test_a_receipt_for_another_sandbox_is_not_found(client: httpx.AsyncClient) -> None:
    message_id = await say(client, "hello")
    answer = await client.post(f"/api/v1/sandboxes/sb-2/messages/{message_id}/receipts", json={"state": "done"})
    assert answer.status_code == 404


async def test_a_leased_message_is_not_handed_out_twice(client: httpx.AsyncClient) -> None:
    await say(client, "one")
    assert await read(client, f"{URL}/next") == ["one"]
    assert await read(client, f"{URL}/next") == []


async def test_a_lease_that_ran_out_is_handed_out_again(client: httpx.AsyncClient, database: Database) -> None:
    await say(client, "one")
    await read(client, f"{URL}/next")
    await expire_leases(database)
    assert await read(client, f"{URL}/next") == ["one"]


async def test_an_acknowledged_message_never_comes_again(client: httpx.AsyncClient, database: Database) -> None:
    message_id = await say(client, "one")
    await read(client, f"{URL}/next")
    await acknowledge(client, message_id, "delivered")
    await expire_leases(database)
    assert await read(client, f"{URL}/next") == []


async def test_nothing_passes_a_message_that_is_held(client: httpx.AsyncClient, database: Database) -> None:
    await say(client, "one")
    await read(client, f"{URL}/next")
    await say(client, "two")
    assert await read(client, f"{URL}/next") == []
    await expire_leases(database)
    assert await read(client, f"{URL}/next") == ["one", "two"]


async def test_an_interrupt_passes_a_message_that_is_held(client: httpx.AsyncClient) -> None:
    await say(client, "one")
    await read(client, f"{URL}/next")
    await say(client, "stop", "interrupt")
    assert await read(client, f"{URL}/next") == ["stop"]


async def test_clear_on_read_leaves_out_what_the_worker_holds(client: httpx.AsyncClient) -> None:
    await say(client, "one")
    await read(client, f"{URL}/next")
    assert await read(client) == []


async def test_a_waiting_worker_hears_at_once(app: FastAPI, client: httpx.AsyncClient) -> None:
    waiting = asyncio.create_task(read(client, f"{URL}/next?wait=30"))
    await someone_listens(app)
    await say(client, "hello")
    async with asyncio.timeout(5):
        assert await waiting == ["hello"]


async def test_waiting_ends_empty_when_nobody_speaks(client: httpx.AsyncClient) -> None:
    assert await read(client, f"{URL}/next?wait=0.05") == []


async def test_acknowledging_lets_the_next_message_go_to_a_waiting_worker(
    app: FastAPI, client: httpx.AsyncClient
) -> None:
    first = await say(client, "one")
    await read(client, f"{URL}/next")
    await say(client, "two")
    waiting = asyncio.create_task(read(client, f"{URL}/next?wait=30"))
    await someone_listens(app)
    await acknowledge(client, first, "delivered")
    async with asyncio.timeout(5):
        assert await waiting == ["two"]


async def test_racing_workers_share_no_message(client: httpx.AsyncClient) -> None:
    for n in range(10):
        await say(client, str(n))
    rounds = await asyncio.gather(*(read(client, f"{URL}/next") for _ in range(6)))
    assert sorted(content for contents in rounds for content in contents) == sorted(str(n) for n in range(10))


async def test_the_same_key_queues_once(client: httpx.AsyncClient) -> None:
    ids = {await say(client, "hello", **{"Idempotency-Key": "k1"}) for _ in range(3)}
    assert (len(ids), await read(client)) == (1, ["hello"])


async def test_racing_retries_with_one_key_queue_once(client: httpx.AsyncClient) -> None:
    await asyncio.gather(*(say(client, "hello", **{"Idempotency-Key": "k1"}) for _ in range(8)))
    assert await read(client) == ["hello"]


async def test_an_own_id_queues_once(client: httpx.AsyncClient) -> None:
    for _ in range(2):
        await client.post(URL, json={"content": "hello", "message_id": "msg-mine"})
    assert await read(client) == ["hello"]


async def test_the_same_key_for_other_words_conflicts(client: httpx.AsyncClient) -> None:
    await say(client, "hello", **{"Idempotency-Key": "k1"})
    answer = await client.post(URL, json={"content": "other"}, headers={"Idempotency-Key": "k1"})
    assert (answer.status_code, answer.json()["code"]) == (409, "key_reused")


async def test_nobody_speaks_to_an_ended_sandbox(app: FastAPI, client: httpx.AsyncClient) -> None:
    async def ended(_sandbox_id: str) -> bool:
        return True

    app.state.sandbox_ended = ended
    answer = await client.post(URL, json={"content": "hello"})
    assert (answer.status_code, answer.json()["code"]) == (409, "sandbox_ended")


async def test_the_end_of_a_sandbox_expires_what_is_unfinished(client: httpx.AsyncClient, database: Database) -> None:
    ids = [await say(client, str(n)) for n in range(3)]
    await acknowledge(client, ids[0], "done")
    await acknowledge(client, ids[1], "delivered")
    async with database.transaction() as session:
        assert await service.expire_for(session, "sb-1") == ["1", "2"]
    page = (await client.get(f"{URL}/history")).json()
    assert [m["state"] for m in page["messages"]] == ["done", "expired", "expired"]


async def test_control_characters_do_not_reach_the_agent(client: httpx.AsyncClient) -> None:
    await say(client, "a\x1b[2Jb\x00\n\tc")
    assert await read(client) == ["a[2Jb\n\tc"]
