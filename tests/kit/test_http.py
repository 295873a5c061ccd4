"""What every route gets from the house: bodies of a bearable size, text that every database can keep."""

import re
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from pydantic import Field

from shopfloor.kit import http


class Note(http.Body):
    """A request body."""

    text: str
    more: dict[str, object] = Field(default_factory=dict)


def app() -> FastAPI:
    made = FastAPI()
    http.install_problems(made)

    @made.post("/notes")
    async def note(body: Note) -> int:
        return len(body.text)

    made.add_middleware(http.BodyLimit, own=re.compile("/own"))
    return made


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app()), base_url="http://x") as opened:
        yield opened


async def test_a_declared_body_over_the_limit_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post("/notes", json={"text": "x" * http.MOST_BODY})
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


async def test_a_body_that_hides_its_length_is_refused(client: httpx.AsyncClient) -> None:
    given = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal given
        for _ in range(100):
            given += 1
            yield b"x" * (http.MOST_BODY // 4)

    answer = await client.post("/notes", content=pieces(), headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert given < 100


async def test_a_body_within_the_limit_is_taken(client: httpx.AsyncClient) -> None:
    answer = await client.post("/notes", json={"text": "x" * (http.MOST_BODY - 100)})
    assert answer.json() == http.MOST_BODY - 100


@pytest.mark.parametrize(
    "body",
    [
        '{"text":"a\\u0000"}',
        '{"text":"\\ud800"}',
        '{"text":"a","more":{"b":[1e999]}}',
        '{"text":"a","more":{"\\u0000":1}}',
    ],
)
async def test_what_a_database_cannot_keep_is_malformed(client: httpx.AsyncClient, body: str) -> None:
    answer = await client.post("/notes", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (422, "malformed")
