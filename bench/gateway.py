"""What the gateway adds to a call of a model on loopback: until the first byte, and to every piece after it."""

import asyncio
import json
import statistics
import threading
import time
from collections.abc import AsyncIterator

import httpx
from tests.gateway.conftest import KEYS, SETTINGS, start
from tests.support.platform import Platform, folder, sample_repository

CALLS = 100
PIECES = 50
GAP_SECONDS = 0.002
AGENT_SECONDS = 0.03
"""What an agent takes at least between two calls, to run a tool; the gateway closes its books meanwhile."""
BODY = {"model": "claude-opus-4-5", "max_tokens": 1000, "messages": [{"role": "user", "content": "x" * 20_000}]}


def main() -> None:
    provider = Provider()
    provider.start()
    with folder() as place:
        (place / "shopfloor.toml").write_text(SETTINGS.format(url=provider.url))
        house = Platform(place)
        house.environment.update(KEYS)
        try:
            house.start()
            origin = sample_repository(place)
            free, limited = start(house, origin, "anthropic"), start(house, origin, "anthropic", budget_usd=1000)
            found = asyncio.run(_measure(provider.url, str(house.data / "door.sock"), free.token, limited.token))
        finally:
            house.close()
    print(f"a call of a model, {CALLS} each in turn, {PIECES} pieces {GAP_SECONDS * 1000:.0f} ms apart (loopback)")
    bare = found["bare"]
    for name, (first, piece) in found.items():
        added = f", adds {first - bare[0]:5.2f} ms and {piece - bare[1]:5.2f} ms" if name != "bare" else ""
        print(f"  {name:22} first byte p50 {first:6.2f} ms, a piece p50 {piece:5.2f} ms behind its sending{added}")
    print("  (targets: at most 5 ms a request, 1 ms a piece)")


async def _measure(provider: str, door: str, free: str, limited: str) -> dict[str, tuple[float, float]]:
    inside = httpx.AsyncHTTPTransport(uds=door)
    async with (
        httpx.AsyncClient(base_url=provider) as bare,
        httpx.AsyncClient(transport=inside, base_url="http://door/models/anthropic") as gate,
    ):
        ways = {
            "bare": (bare, ""),
            "through the gateway": (gate, free),
            "with a budget to keep": (gate, limited),
        }
        seen: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(CALLS):
            for name, (client, token) in ways.items():
                seen[name].append(await _call(client, token))
                await asyncio.sleep(AGENT_SECONDS)
    return {
        name: (statistics.median(first for first, _ in calls), statistics.median(piece for _, piece in calls))
        for name, calls in seen.items()
    }


async def _call(client: httpx.AsyncClient, token: str) -> tuple[float, float]:
    """Milliseconds until the first piece, and the median of how late each later piece was."""
    began, first, late, rest = time.perf_counter(), 0.0, [], b""
    async with client.stream("POST", "/v1/messages", json=BODY, headers={"x-api-key": token}) as answer:
        async for chunk in answer.aiter_raw():
            now = time.perf_counter()
            first = first or now - began
            *lines, rest = (rest + chunk).split(b"\n\n")
            late += [now - json.loads(line[6:])["sent"] for line in lines if b'"sent"' in line]
    return first * 1000, statistics.median(late) * 1000


class Provider(threading.Thread):
    """A server that streams, in a thread of its own: as little as HTTP needs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.ready = threading.Event()
        self.port = 0

    @property
    def url(self) -> str:
        self.ready.wait()
        return f"http://127.0.0.1:{self.port}"

    def run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self.ready.set()
        await server.serve_forever()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
                await reader.readexactly(int(length.split(b":")[1]))
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                )
                async for piece in _pieces():
                    writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                    await writer.drain()
                writer.write(b"0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


async def _pieces() -> AsyncIterator[bytes]:
    usage = {"input_tokens": 5000, "output_tokens": 1}
    yield _event(type="message_start", message={"model": BODY["model"], "usage": usage})
    for _ in range(PIECES):
        await asyncio.sleep(GAP_SECONDS)
        yield _event(type="content_block_delta", index=0, delta={"text": "word "}, sent=time.perf_counter())
    yield _event(type="message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": PIECES})


def _event(**document: object) -> bytes:
    return f"data: {json.dumps(document)}\n\n".encode()
