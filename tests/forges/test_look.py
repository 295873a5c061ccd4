"""Looking at a change: what merging it would do now, and never later than a few seconds, whatever its origin does."""

import time
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from shopfloor.forges.models import Change
from shopfloor.forges.service import Repositories
from shopfloor.forges.steps.merge import LOOK_SECONDS
from shopfloor.kit.db import Database
from tests.forges.support import Sandbox, age, commit, deliver, silence
from tests.support import git_http
from tests.support.platform import git

SOON = LOOK_SECONDS + 8
"""Seconds: its own limit, and what a busy machine adds."""


@pytest.fixture
async def served(house: Repositories, database: Database, box: Sandbox, server: git_http.GitServer) -> Change:
    """An open, mergeable change of an origin behind a server, looked at a minute ago."""
    change = await deliver(house, database, box, server.url("origin.git"), {"app.py": "mine\n"})
    await age(database, change)
    return change


async def look(client: httpx.AsyncClient, change: Change) -> dict[str, Any]:
    began = time.monotonic()
    answer = await client.get(f"/changes/{change.change_id}")
    assert answer.status_code == 200
    assert time.monotonic() - began < SOON
    seen: dict[str, Any] = answer.json()
    return seen


def seconds_ago(seen: dict[str, Any]) -> float:
    return time.time() - datetime.fromisoformat(seen["checked_at"]).timestamp()


def conflict(work: Path, origin: Path) -> None:
    """Somebody changes what the change changes."""
    commit(work, "theirs", {"app.py": "theirs\n"})
    git("push", "-q", str(origin), "main", cwd=work)


async def test_a_look_says_when_it_was_found_out(served: Change, client: httpx.AsyncClient) -> None:
    seen = await look(client, served)
    assert seen["mergeable"] == "true"
    assert seconds_ago(seen) < 30


async def test_a_silent_origin_leaves_the_last_verdict_and_its_time(
    served: Change, client: httpx.AsyncClient, server: git_http.GitServer
) -> None:
    with silence(server):
        seen = await look(client, served)
    assert seen["mergeable"] == "true"
    assert seconds_ago(seen) > 30


async def test_a_dead_origin_leaves_the_last_verdict_and_its_time(
    served: Change, client: httpx.AsyncClient, server: git_http.GitServer
) -> None:
    server.close()
    seen = await look(client, served)
    assert seen["mergeable"] == "true"
    assert seconds_ago(seen) > 30


async def test_a_silent_origin_is_waited_for_once(
    served: Change, client: httpx.AsyncClient, server: git_http.GitServer
) -> None:
    with silence(server):
        await look(client, served)
        began = time.monotonic()
        for _ in range(5):
            await look(client, served)
    assert time.monotonic() - began < LOOK_SECONDS


async def test_an_origin_that_speaks_again_is_heard(
    served: Change, client: httpx.AsyncClient, server: git_http.GitServer, house: Repositories, origin: Path, work: Path
) -> None:
    server.rights = {"nobody has it": "rw"}
    assert (await look(client, served))["mergeable"] == "true"
    server.rights = {}
    conflict(work, origin)
    for glance in house._glances.values():
        glance.silent_until = time.monotonic()  # as if its seconds had passed
    assert (await look(client, served))["conflicts"] == ["app.py"]


async def test_a_look_does_not_wait_for_a_long_fetch_of_somebody_else(
    served: Change, client: httpx.AsyncClient, house: Repositories, origin: Path, work: Path
) -> None:
    conflict(work, origin)
    async with house.place(served.repository_url).locked():
        seen = await look(client, served)
    assert (seen["mergeable"], seconds_ago(seen) > 30) == ("true", True)


async def test_a_look_at_an_unchanged_origin_needs_no_lock(
    served: Change, client: httpx.AsyncClient, house: Repositories
) -> None:
    await house.sync(served.repository_url)
    async with house.place(served.repository_url).locked():
        seen = await look(client, served)
    assert seconds_ago(seen) < 30


async def test_what_was_checked_just_now_is_not_asked_again(
    served: Change, client: httpx.AsyncClient, server: git_http.GitServer, database: Database
) -> None:
    await look(client, served)
    server.requests.clear()
    await look(client, served)
    assert server.requests == []


async def test_a_change_that_ended_is_shown_without_its_origin(
    served: Change, client: httpx.AsyncClient, server: git_http.GitServer
) -> None:
    await client.post(f"/changes/{served.change_id}/close")
    with silence(server):
        began = time.monotonic()
        assert (await look(client, served))["state"] == "closed"
    assert time.monotonic() - began < LOOK_SECONDS
