"""Live streams: WebSocket and server-sent events, each from a position or from now, one slow client never holding up another."""

import asyncio
from collections.abc import AsyncIterator

import orjson
from fastapi import WebSocket, WebSocketDisconnect
from starlette.requests import HTTPConnection

from shopfloor.events import log
from shopfloor.events.bus import Hub, HubClosed, Published, SlowSubscriber, Subscription
from shopfloor.events.log import BadPosition, Filters, Position

PING_SECONDS = 20.0
PATIENCE_SECONDS = 10.0
"""How long a slow client may take to accept what was already sent before the connection is cut."""
SLOW_CLIENT, RESTARTING = 4008, 1012
FRAME_BYTES = 256 * 1024
PING = '{"type":"ping"}'


async def starting_point(connection: HTTPConnection, text: str | None) -> Position | None:
    """The position a client asks for; raises BadPosition when there is no such place in the log."""
    if text is None:
        return None
    database, hub = connection.app.state.database, connection.app.state.hub
    asked = log.position(text, sqlite=database.sqlite)
    if asked > hub.position:
        async with database.reading() as session:
            if asked > await log.end(session):
                raise BadPosition(f"{text} is beyond the end of the event log")
    return asked


async def over_websocket(
    websocket: WebSocket, hub: Hub, filters: Filters, after: Position | None, *, batch: bool
) -> None:
    """Serve one client until it leaves, is too slow, or the process ends."""
    await websocket.accept()
    async with hub.subscribe(filters, after, patient=False) as subscription:
        sender = asyncio.create_task(_send(websocket, subscription, batch=batch))
        helpers = [
            asyncio.create_task(_until_gone(websocket)),
            asyncio.create_task(_until_stuck(subscription)),
        ]
        try:
            await asyncio.wait([sender, *helpers], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sender, *helpers):
                task.cancel()
            await asyncio.gather(sender, *helpers, return_exceptions=True)


async def _send(websocket: WebSocket, subscription: Subscription, *, batch: bool) -> None:
    send = websocket.send
    try:
        while True:
            events = await subscription.take(PING_SECONDS)
            frames = _batches(events) if batch else [event.text for event in events]
            for frame in frames or [PING]:
                await send({"type": "websocket.send", "text": frame})
    except SlowSubscriber as slow:
        await websocket.send({"type": "websocket.send", "text": gap(slow).decode()})
        await websocket.close(SLOW_CLIENT, "slow_client")
    except HubClosed:
        await websocket.close(RESTARTING, "restarting")
    except (WebSocketDisconnect, OSError, RuntimeError):
        return


def _batches(events: list[Published]) -> list[str]:
    """JSON arrays, each well below the megabyte that clients take for a frame by default."""
    frames: list[list[str]] = []
    size = FRAME_BYTES
    for event in events:
        if size >= FRAME_BYTES:
            frames.append([])
            size = 0
        frames[-1].append(event.text)
        size += len(event.text)
    return ["[" + ",".join(frame) + "]" for frame in frames]


async def _until_gone(websocket: WebSocket) -> None:
    """Read and ignore what the client says."""
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass


async def _until_stuck(subscription: Subscription) -> None:
    await subscription.slow.wait()
    await asyncio.sleep(PATIENCE_SECONDS)


async def over_sse(hub: Hub, filters: Filters, after: Position | None) -> AsyncIterator[bytes]:
    """Frames of a server-sent event stream: each event with its position as id."""
    yield b": connected\n\n"
    async with hub.subscribe(filters, after, patient=False) as subscription:
        try:
            while True:
                events = await subscription.take(PING_SECONDS)
                frames = [f"id: {e.position}\ndata: {e.text}\n\n".encode() for e in events]
                yield b"".join(frames) or b": ping\n\n"
        except SlowSubscriber as slow:
            yield b"event: gap\ndata: %s\n\n" % gap(slow)
        except HubClosed:
            return


def gap(slow: SlowSubscriber) -> bytes:
    """What a slow client is told before it is dropped."""
    return orjson.dumps({"type": "gap", "reason": "slow_client", "resume_after": str(slow.resume_after)})
