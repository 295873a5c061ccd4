"""Who is let in, and who is not."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
import uvicorn
import websockets
from fastapi import FastAPI
from websockets.asyncio.client import connect

from shopfloor.auth import service
from shopfloor.auth.guard import SandboxDoor
from shopfloor.auth.models import SandboxToken
from shopfloor.kit.config import Settings
from shopfloor.kit.db import Database

EVENTS = "/api/v1/sandboxes/sb-1/events"
BODY = {"event_type": "agent.started"}
RECEIPTS = "/api/v1/sandboxes/sb-1/messages/msg-1/receipts"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
async def token(database: Database) -> str:
    async with database.transaction() as session:
        return await service.issue(session, "sb-1", 1)


@pytest.fixture
def key(app: FastAPI) -> str:
    app.state.settings = Settings(api_key="the-key")
    return "the-key"


async def test_a_token_opens_its_own_sandbox(client: httpx.AsyncClient, key: str, token: str) -> None:
    assert (await client.post(EVENTS, json=BODY, headers=bearer(token))).status_code == 200


async def test_a_token_of_another_sandbox_is_forbidden(client: httpx.AsyncClient, token: str) -> None:
    answer = await client.post("/api/v1/sandboxes/sb-2/events", json=BODY, headers=bearer(token))
    assert (answer.status_code, answer.json()["code"]) == (403, "not_your_sandbox")


async def test_an_unknown_token_is_refused(client: httpx.AsyncClient) -> None:
    assert (await client.post(EVENTS, json=BODY, headers=bearer("sfs_made-up"))).status_code == 401


async def test_a_revoked_token_is_refused_at_once(client: httpx.AsyncClient, database: Database, token: str) -> None:
    assert (await client.post(EVENTS, json=BODY, headers=bearer(token))).status_code == 200
    async with database.transaction() as session:
        await service.revoke(session, "sb-1")
    assert (await client.post(EVENTS, json=BODY, headers=bearer(token))).status_code == 401


async def test_a_new_token_voids_the_old_one(client: httpx.AsyncClient, database: Database, token: str) -> None:
    async with database.transaction() as session:
        await service.issue(session, "sb-1", 2)
    assert (await client.post(EVENTS, json=BODY, headers=bearer(token))).status_code == 401


async def test_only_the_hash_of_a_token_is_kept(database: Database, token: str) -> None:
    async with database.reading() as session:
        rows = (await session.execute(sa.select(SandboxToken.token_hash))).scalars().all()
    assert token not in rows


async def test_a_sandbox_may_not_do_what_people_do(client: httpx.AsyncClient, token: str) -> None:
    answer = await client.post("/api/v1/sandboxes/sb-1/messages", json={"content": "x"}, headers=bearer(token))
    assert (answer.status_code, answer.json()["code"]) == (403, "people_only")


@pytest.mark.parametrize("headers", [{}, bearer("wrong"), {"Authorization": "Basic dGhlLWtleQ=="}, bearer("\u00e4")])
async def test_without_the_key_nobody_gets_in(client: httpx.AsyncClient, key: str, headers: dict[str, str]) -> None:
    raw = {name.encode(): value.encode() for name, value in headers.items()}
    assert (await client.get("/api/v1/events", headers=raw)).status_code == 401


async def test_the_key_lets_people_in(client: httpx.AsyncClient, key: str) -> None:
    assert (await client.get("/api/v1/events", headers=bearer(key))).status_code == 200


FOREIGN = [
    {"Host": "evil.example"},
    {"Host": "127.0.0.1.evil.example"},
    {"Host": "["},
    {"Host": ""},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:9999"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
]


@pytest.mark.parametrize("headers", FOREIGN)
async def test_foreign_pages_are_refused(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    answer = await client.get("/api/v1/events", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "foreign_origin")


OWN = [
    {},
    {"Host": "localhost:18000", "Origin": "http://localhost:18000", "Sec-Fetch-Site": "same-origin"},
    {"Host": "[::1]:18000"},
    {"Sec-Fetch-Site": "none"},
]


@pytest.mark.parametrize("headers", OWN)
async def test_own_pages_are_let_in(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    assert (await client.get("/api/v1/events", headers=headers)).status_code == 200


async def test_a_socket_from_a_foreign_page_is_refused(address: str) -> None:
    with pytest.raises(websockets.InvalidStatus) as refusal:
        async with connect(f"ws://{address}/api/v1/ws/events", origin="https://evil.example"):  # type: ignore[arg-type]
            pass
    assert refusal.value.response.status_code == 403


def through_the_door(app: FastAPI, **options: Any) -> httpx.AsyncClient:
    async def over_a_unix_socket(scope: Any, receive: Any, send: Any) -> None:
        await SandboxDoor(app)({**scope, "server": None}, receive, send)

    transport = httpx.ASGITransport(over_a_unix_socket)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", **options)


async def test_the_sandbox_door_lets_its_own_events_in(app: FastAPI, token: str) -> None:
    async with through_the_door(app, headers=bearer(token)) as client:
        assert (await client.post(EVENTS, json=BODY)).status_code == 200


CLOSED = [
    ("GET", "/api/v1/events"),
    ("GET", "/openapi.json"),
    ("GET", EVENTS),
    ("GET", "/api/v1/sandboxes/sb-1/messages"),
    ("POST", "/api/v1/sandboxes/sb-1/messages"),
    ("POST", "/api/v1/sandboxes/sb-2/events"),
    ("POST", "/api/v1/sandbox/sb-1/events"),
    ("PUT", "/api/v1/sandboxes/sb-1/artifacts/../../sb-2/artifacts/x"),
    ("PUT", "/api/v1/sandboxes/sb-1/artifacts/%2e%2e%2fx"),
    ("POST", EVENTS + "/"),
    ("POST", EVENTS + "%0a"),
]


@pytest.mark.parametrize(("method", "path"), CLOSED)
async def test_the_sandbox_door_leads_nowhere_else(app: FastAPI, token: str, method: str, path: str) -> None:
    async with through_the_door(app, headers=bearer(token)) as client:
        assert (await client.request(method, path, json=BODY)).status_code == 403


async def test_the_sandbox_door_stays_shut_without_a_token(app: FastAPI) -> None:
    async with through_the_door(app) as client:
        assert (await client.post(EVENTS, json=BODY)).status_code == 401


async def test_a_unix_socket_is_a_sandbox_door(app: FastAPI, token: str, tmp_path: Path) -> None:
    server = uvicorn.Server(uvicorn.Config(app, uds=str(tmp_path / "door"), log_level="error", lifespan="off"))
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn offers no event
        await asyncio.sleep(0.005)
    transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / "door"))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=bearer(token)) as client:
        answers = [await client.post(EVENTS, json=BODY), await client.get("/api/v1/events")]
    server.should_exit = True
    await task
    assert [answer.status_code for answer in answers] == [200, 403]


async def test_the_api_key_does_not_open_the_sandbox_door(app: FastAPI, key: str) -> None:
    async with through_the_door(app, headers=bearer(key)) as client:
        assert (await client.post(EVENTS, json=BODY)).status_code == 401


async def test_tokens_that_are_none_are_not_remembered(database: Database, token: str) -> None:
    """Anybody can send any number of them, of any size."""
    tokens = service.Tokens(database)
    for wrong in ("sfs_" + "x" * 43, "sfs_" + "x" * 1_000_000, token + "x", "nonsense"):
        assert await tokens.check(wrong) is None
    assert await tokens.check(token)
    assert len(tokens._known) == 1
