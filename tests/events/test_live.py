"""Live streams over real sockets: WebSocket and server-sent events."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import orjson
import pytest
import websockets
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection, connect

from shopfloor.events import live, log
from shopfloor.events.bus import Hub
from shopfloor.events.ingest import Stored
from shopfloor.events.log import Filters

SOCKET = "/api/v1/events/ws/events"


async def post(app: FastAPI, sandbox: str, *numbers: int, kind: str = "agent.message", **data: Any) -> Stored:
    events = [{"event_type": kind, "event_data": data, "seq": n} for n in numbers]
    stored: Stored = await app.state.ingest.post(sandbox, orjson.dumps({"events": events}))
    return stored


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - what it watches has no event
            await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def watching(app: FastAPI, address: str, query: str = "", path: str = SOCKET) -> AsyncIterator[ClientConnection]:
    """A client that is certainly attached."""
    hub: Hub = app.state.hub
    before = len(hub._subscriptions())
    async with connect(f"ws://{address}{path}{query}", max_queue=4, ping_interval=None, close_timeout=0.2) as client:
        await until(lambda: len(hub._subscriptions()) != before or "after" in query)
        yield client


async def events(client: ClientConnection, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            frame = orjson.loads(await client.recv())
            found += frame if isinstance(frame, list) else [frame]
    return found


async def settled(app: FastAPI, count: int) -> log.Position:
    """The end of the log once it holds so many: others' open transactions on the same server hold it back."""
    async with asyncio.timeout(30):
        while True:
            async with app.state.database.reading() as session:
                if len(await log.read_after(session, log.START)) == count:
                    return await log.end(session)
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("path", [SOCKET, "/api/v1/ws/events"])
async def test_a_posted_event_reaches_a_client(app: FastAPI, address: str, path: str) -> None:
    async with watching(app, address, path=path) as client:
        await post(app, "sb-1", 1, kind="agent.tool_use", tool="ls")
        [event] = await events(client, 1)
    assert (event["event_type"], event["entity_type"], event["entity_id"], event["payload"]) == (
        "agent.tool_use",
        "sandbox",
        "sb-1",
        {"tool": "ls"},
    )


@pytest.mark.parametrize(
    "query",
    ["?entity_ids=sb-2,sb-3", "?event_types=wanted", "?entity_ids=sb-2&entity_types=sandbox&event_types=wanted,other"],
)
async def test_filters_keep_out_what_does_not_match(app: FastAPI, address: str, query: str) -> None:
    async with watching(app, address, query) as client:
        await post(app, "sb-1", 1, kind="unwanted")
        await post(app, "sb-2", 1, kind="wanted")
        [first] = await events(client, 1)
    assert first["entity_id"] == "sb-2"


async def test_a_foreign_entity_type_receives_nothing(app: FastAPI, address: str) -> None:
    async with watching(app, address, "?entity_types=ticket") as client, watching(app, address) as other:
        await post(app, "sb-1", 1)
        await events(other, 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.recv(), 0.2)


async def test_a_client_resumes_after_a_position(app: FastAPI, address: str) -> None:
    async with watching(app, address, "?after=0") as client:
        await post(app, "sb-1", *range(1, 11))
        seen = await events(client, 10)
    async with watching(app, address, f"?after={seen[3]['position']}") as client:
        assert [e["seq"] for e in await events(client, 6)] == [5, 6, 7, 8, 9, 10]


async def test_a_client_that_is_ahead_of_an_idle_hub_sees_nothing_again(app: FastAPI) -> None:
    """It read history while nobody listened, then listens from there: only what is newer comes."""
    await post(app, "sb-1", 1, 2, 3)
    known = await settled(app, 3)
    async with app.state.hub.subscribe(Filters(), known) as subscription:
        first = await subscription.take(0.2)
        await post(app, "sb-1", 4)
        assert [event.position > known for event in first or await subscription.take(30)] == [True]


async def test_replay_turns_into_live_without_gap_or_repetition_while_writing(app: FastAPI, address: str) -> None:
    await post(app, "sb-1", *range(1, 401))

    async def write() -> None:
        for start in range(401, 1601, 10):
            await post(app, "sb-1", *range(start, start + 10))

    async def follow() -> list[int]:
        async with watching(app, address, "?after=0&batch=1") as client:
            return [e["seq"] for e in await events(client, 1600)]

    writer = asyncio.create_task(write())
    followed = await asyncio.gather(*(follow() for _ in range(4)))
    await writer
    assert followed == [list(range(1, 1601))] * 4


async def test_a_batch_client_gets_arrays(app: FastAPI, address: str) -> None:
    await post(app, "sb-1", 1, 2, 3)
    async with watching(app, address, "?after=0&batch=1") as client:
        assert [e["seq"] for e in orjson.loads(await client.recv())] == [1, 2, 3]


async def test_a_slow_client_is_told_and_dropped_while_others_get_everything(app: FastAPI, address: str) -> None:
    rounds, text = 30, "x" * 20_000
    app.state.hub.queue = 500
    async with watching(app, address) as slow, watching(app, address, "?batch=1") as quick:
        received = asyncio.create_task(events(quick, rounds * 50))
        for n in range(rounds):
            await post(app, "sb-1", *range(n * 50 + 1, n * 50 + 51), text=text)
        assert [e["seq"] for e in await received] == list(range(1, rounds * 50 + 1))
        got, gap = [], None
        with contextlib.suppress(websockets.ConnectionClosed):
            while gap is None:
                frame = orjson.loads(await asyncio.wait_for(slow.recv(), 20))
                gap = frame if frame.get("type") == "gap" else None
                got += [] if gap else [frame["seq"]]
            await slow.wait_closed()
    assert gap is not None
    assert (slow.close_code, gap["reason"]) == (4008, "slow_client")
    async with watching(app, address, f"?after={gap['resume_after']}&batch=1") as resumed:
        got += [e["seq"] for e in await events(resumed, rounds * 50 - len(got))]
    assert got == list(range(1, rounds * 50 + 1))


async def test_a_client_that_never_reads_is_cut_off(
    app: FastAPI, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "PATIENCE_SECONDS", 0.1)
    app.state.hub.queue = 100
    async with watching(app, address):
        n = 0
        async with asyncio.timeout(60):
            while app.state.hub._subscriptions():
                await post(app, "sb-1", *range(n + 1, n + 51), text="x" * 20_000)
                n += 50
    assert not app.state.hub._subscriptions()


async def test_an_idle_client_is_pinged(app: FastAPI, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "PING_SECONDS", 0.05)
    async with watching(app, address) as client:
        assert await client.recv() == '{"type":"ping"}'


@pytest.mark.parametrize("query", ["?after=x", "?after=999999999", "?entity_ids=%00"])
async def test_a_bad_socket_query_is_refused_with_a_problem(app: FastAPI, address: str, query: str) -> None:
    with pytest.raises(websockets.InvalidStatus) as refusal:
        async with connect(f"ws://{address}{SOCKET}{query}"):
            pass
    assert refusal.value.response.status_code == 422


async def test_a_leaving_client_is_forgotten(app: FastAPI, address: str) -> None:
    async with watching(app, address, "?entity_ids=sb-1"):
        assert app.state.hub._by_entity
    await until(lambda: not app.state.hub._by_entity)


async def sse(address: str, count: int, **headers: str) -> list[tuple[str, dict[str, Any]]]:
    found, last = [], ""
    url = f"http://{address}/api/v1/events/stream?after=0"
    async with httpx.AsyncClient(timeout=20) as client, client.stream("GET", url, headers=headers) as answer:
        async for line in answer.aiter_lines():
            last = line[4:] if line.startswith("id: ") else last
            if line.startswith("data: "):
                found.append((last, orjson.loads(line[6:])))
            if len(found) == count:
                break
    return found


async def test_server_sent_events_carry_their_position_as_id(app: FastAPI, address: str) -> None:
    await post(app, "sb-1", 1, 2)
    assert [(i, e["position"]) for i, e in await sse(address, 2)] == [
        (e["position"],) * 2 for _, e in await sse(address, 2)
    ]


async def test_server_sent_events_resume_after_the_last_event_id(app: FastAPI, address: str) -> None:
    await post(app, "sb-1", *range(1, 6))
    (second, _) = (await sse(address, 5))[1]
    assert [e["seq"] for _, e in await sse(address, 3, **{"Last-Event-ID": second})] == [3, 4, 5]


async def test_a_patient_subscriber_that_falls_behind_misses_nothing(app: FastAPI) -> None:
    async with app.state.hub.subscribe(Filters(entity_ids=frozenset({"sb-1"})), limit=10) as subscription:
        await post(app, "sb-1", *range(1, 201))
        await post(app, "sb-2", 1)
        await subscription.slow.wait()
        seen: list[int] = []
        async for event in subscription:
            seen.append(event._row[9])
            if len(seen) == 200:
                break
    assert seen == list(range(1, 201))
