"""The gate: what goes out, what does not, and what is written down about it."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from shopfloor.sandboxes.adapters._keeper import gate as gates
from shopfloor.sandboxes.adapters._keeper.plan import GatePlan
from shopfloor.sandboxes.port import Gate
from tests.sandboxes.support import Sandbox, Shop

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
FETCH = """
import sys, urllib.request, urllib.error
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
except OSError as error:
    print('failed:', error)
"""


@dataclass
class Heard:
    """A host's little web server, and what it was asked."""

    port: int
    requests: list[str]


@asynccontextmanager
async def web(path: Path | None = None) -> AsyncIterator[Heard]:
    heard = Heard(0, [])

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(ANSWER)
        await writer.drain()
        writer.close()

    if path:
        here = os.getcwd()
        os.chdir(path.parent)  # a socket's path is short
        server = await asyncio.start_unix_server(answer, path.name)
        os.chdir(here)
    else:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        heard.port = server.sockets[0].getsockname()[1]
    async with server:
        yield heard


async def fetch(sandbox: Sandbox, url: str, *, env: dict[str, str] | None = None) -> str:
    result = await sandbox.shop.adapter.exec(sandbox.id, ("python3", "-c", FETCH, url), env=env, timeout=30)
    return result.stdout.decode().strip() + result.stderr.decode()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_the_api_is_reached_and_may_go_and_come(shop: Shop) -> None:
    door = shop.new_folder("api") / "socket"
    async with shop.running(gate=Gate(api_socket=door)) as sandbox:
        url = shop.adapter.view(sandbox.spec).api_url
        assert "failed" in await fetch(sandbox, url)
        for _ in range(2):
            async with web(door):
                assert await fetch(sandbox, url) == "hello"
            door.unlink(missing_ok=True)


async def test_a_listed_host_is_reached_through_the_proxy(shop: Shop) -> None:
    door = shop.new_folder("api") / "socket"
    async with web() as host:
        gate = Gate(api_socket=door, allow=frozenset({f"127.0.0.1:{host.port}"}))
        async with shop.running(gate=gate) as sandbox:
            said = await fetch(sandbox, f"http://127.0.0.1:{host.port}/a?b=c", env={"no_proxy": "", "NO_PROXY": ""})
    assert said == "hello"
    assert host.requests[0].startswith("GET /a?b=c HTTP/1.1\r\n")


async def test_a_host_that_is_not_listed_is_refused_in_words_and_noted(shop: Shop) -> None:
    door = shop.new_folder("api") / "socket"
    async with web() as host, shop.running(gate=Gate(api_socket=door)) as sandbox:
        said = await fetch(sandbox, f"http://127.0.0.1:{host.port}/", env={"no_proxy": "", "NO_PROXY": ""})
        assert said.startswith("403 The sandbox may not reach 127.0.0.1")
        noted = json.loads((sandbox.folder / "denied.jsonl").read_text().splitlines()[0])
        assert noted["target"] == f"127.0.0.1:{host.port}"
    assert host.requests == []


async def test_a_name_cannot_lead_back_to_the_host(shop: Shop) -> None:
    """localhost is listed, its address is not: a name decides nothing."""
    door = shop.new_folder("api") / "socket"
    async with web() as host:
        gate = Gate(api_socket=door, allow=frozenset({f"localhost:{host.port}"}))
        async with shop.running(gate=gate) as sandbox:
            said = await fetch(sandbox, f"http://localhost:{host.port}/", env={"no_proxy": "", "NO_PROXY": ""})
    assert said.startswith("403")
    assert host.requests == []


async def test_a_pipe_leads_to_its_service(shop: Shop) -> None:
    door, port = shop.new_folder("api") / "socket", free_port()
    async with web() as host:
        gate = Gate(api_socket=door, pipes={port: f"127.0.0.1:{host.port}"})
        async with shop.running(gate=gate) as sandbox:
            address = shop.adapter.view(sandbox.spec).address
            assert await fetch(sandbox, f"http://{address}:{port}/") == "hello"


async def test_nothing_is_reached_past_the_gate(isolated: Shop) -> None:
    door = isolated.new_folder("api") / "socket"
    async with web() as host, isolated.running(gate=Gate(api_socket=door)) as sandbox:
        for address in (f"127.0.0.1:{host.port}", "169.254.169.254", "192.0.2.1", "[2001:db8::1]"):
            assert (await fetch(sandbox, f"http://{address}/", env={"http_proxy": ""})).startswith("failed")
    assert host.requests == []


async def test_without_a_gate_there_is_no_network(isolated: Shop) -> None:
    async with web() as host, isolated.running() as sandbox:
        assert "proxy" not in (await sandbox.said("env")).lower()
        assert (await fetch(sandbox, f"http://127.0.0.1:{host.port}/")).startswith("failed")
        assert (
            await sandbox.said("python3 -c 'import socket; print([n for _, n in socket.if_nameindex()])'") == "['lo']"
        )


async def test_programs_inside_can_talk_to_each_other(isolated: Shop) -> None:
    async with isolated.running("python3", "-m", "http.server", "8000", "--bind", "127.0.0.1") as sandbox:
        script = "until python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 8000))' 2>/dev/null; do :; done; echo up"
        assert await sandbox.said(script, timeout=20) == "up"


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "::1", "10.1.2.3", "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
     "::ffff:127.0.0.1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "fe80::1%eth0", "fd00::1", "255.255.255.255"],
)  # fmt: skip
def test_addresses_that_are_not_of_the_open_internet(address: str) -> None:
    assert not gates.public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
def test_addresses_of_the_open_internet(address: str) -> None:
    assert gates.public(address)


@pytest.mark.parametrize(
    "request_",
    [b"GET / HTTP/1.1\r\n\r\n", b"CONNECT nowhere HTTP/1.1\r\n\r\n", b"GET ftp://a/ HTTP/1.1\r\n\r\n", b"\xff\xfe\r\n\r\n",
     b"GET http://user@host/ HTTP/1.1\r\n\r\n", b"CONNECT a:99999 HTTP/1.1\r\n\r\n", b"GET http://a:b:c/ HTTP/1.1\r\n\r\n"],
)  # fmt: skip
def test_what_is_no_proxy_request_is_answered_400(request_: bytes, tmp_path: Path) -> None:
    gate = gates.Gate(GatePlan(api_socket="", allow=[], pipes={}), str(tmp_path))
    inside, client = socket.socketpair()
    with inside, client:
        client.sendall(request_)
        gate._proxy(inside)
        inside.close()
        assert client.recv(4096).startswith((b"HTTP/1.1 400", b"HTTP/1.1 403"))
