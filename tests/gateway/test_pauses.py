"""A pause and those who were reading about it meanwhile, in one process."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message

from shopfloor.gateway import accounts, queries
from shopfloor.gateway.models import ModelGrant
from shopfloor.gateway.steps import Gateway
from shopfloor.gateway.steps.relay import Call, relay
from shopfloor.kit.background import Background
from shopfloor.kit.config import Settings
from shopfloor.kit.db import Database
from tests.gateway.upstream import Upstream, limited, whole

RESET = 3.0


def call(settings: Settings) -> Call:
    found = accounts.account(settings, "house")
    asked = found.speaks.asked("GET", "/v1/models", b"")
    assert asked
    grant = ModelGrant(sandbox_id="s", attempt_id="a", work_order_id="wo", account="house")
    return Call(grant, found, found.speaks, asked, "GET", "/v1/models", {})


async def stays() -> Message:
    return await asyncio.Future()


async def test_what_was_read_before_a_pause_does_not_undo_it(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second call read "not paused", and is slow to hear it; the first is told to come back later in between."""
    replies = [limited(RESET)]
    released, really = asyncio.Event(), queries.pause_of

    async def slow(*given: Any) -> Any:
        found = await really(*given)
        monkeypatch.setattr(queries, "pause_of", really)
        await released.wait()
        return found

    with Upstream() as upstream:
        upstream.answer = lambda seen: replies.pop() if replies else whole(seen.path)
        settings = Settings(
            data_dir=tmp_path, accounts={"house": {"api": "anthropic", "base_url": upstream.url, "key_env": ""}}
        )
        gateway = Gateway(settings=settings, database=database, background=Background(), host_id="host-1")
        monkeypatch.setattr(queries, "pause_of", slow)
        second = asyncio.create_task(relay(gateway, call(settings), stays))
        while queries.pause_of is slow:
            await asyncio.sleep(0)
        first = asyncio.create_task(relay(gateway, call(settings), stays))
        while not await _paused(database):
            await asyncio.sleep(0.01)
        released.set()
        await asyncio.gather(first, second)
        await gateway.background.close()
        await gateway.http.aclose()
        limited_at, *later = [seen.at for seen in upstream.seen]
    assert len(later) == 2
    assert min(later) - limited_at >= RESET


async def _paused(database: Database) -> bool:
    async with database.reading() as session:
        return bool(await queries.pauses(session))
