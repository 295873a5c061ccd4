"""A pause and those who were reading about it meanwhile, in one process."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message

from shopfloor.gateway import accounts, queries, service
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
    read, written, really, keep = asyncio.Event(), asyncio.Event(), queries.pause_of, service.pause

    async def slow(*given: Any) -> Any:
        found = await really(*given)
        monkeypatch.setattr(queries, "pause_of", really)
        read.set()
        await written.wait()
        return found

    async def pause(*given: Any) -> None:
        await keep(*given)
        written.set()

    with Upstream() as upstream:
        upstream.answer = lambda seen: replies.pop() if replies else whole(seen.path)
        settings = Settings(
            data_dir=tmp_path, accounts={"house": {"api": "anthropic", "base_url": upstream.url, "key_env": ""}}
        )
        gateway = Gateway(settings=settings, database=database, background=Background(), host_id="host-1")
        monkeypatch.setattr(queries, "pause_of", slow)
        monkeypatch.setattr(service, "pause", pause)
        second = asyncio.create_task(relay(gateway, call(settings), stays))
        await read.wait()
        await asyncio.gather(second, relay(gateway, call(settings), stays))
        await gateway.background.close()
        await gateway.http.aclose()
        limited_at, *later = [seen.at for seen in upstream.seen]
    assert len(later) == 2
    assert min(later) - limited_at >= RESET
