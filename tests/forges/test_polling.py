"""Polling where no webhook comes through: the same handler, the same facts, nothing twice."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from shopfloor.forges.service import Repositories
from shopfloor.forges.steps import hear
from shopfloor.forges.steps.poll import keep_polling, poll, watched
from shopfloor.kit.db import Database
from tests.forges.test_webhooks import (
    NAME,
    URL,
    deliver,
    door,
    facts,
    github,
    heard,
    house,
    notes,
    offer,
    payload,
)
from tests.support.github_server import GitHubServer
from tests.support.hub_state import Token

__all__ = ["door", "github", "house"]
SINCE = datetime(2019, 1, 1, tzinfo=UTC)


def label(github: GitHubServer, by: str = "Codertocat") -> int:
    """Somebody puts our label on an issue."""
    repo = github.repos[NAME]
    number = github.add_issue(repo, labels=[{"name": "bug"}])
    github.put_label(repo, number, "bug", by, at="2026-11-21T12:00:00Z")
    return number


async def test_a_label_is_found_once(database: Database, house: Repositories, github: GitHubServer) -> None:
    number = label(github)
    assert [await poll(database, house, URL, SINCE) for _ in range(3)] == [1, 0, 0]
    ((kind, told),) = await heard(database, house)
    assert (kind, told["number"], told["actor"]) == ("forge.issue_labeled", number, "Codertocat")


async def test_a_label_by_somebody_without_write_access_is_nothing(
    database: Database, house: Repositories, github: GitHubServer
) -> None:
    label(github, by="stranger")
    await poll(database, house, URL, SINCE)
    assert await heard(database, house) == []


async def test_what_a_webhook_told_is_not_told_again_by_a_poll(
    door: Any, database: Database, house: Repositories, github: GitHubServer
) -> None:
    told = payload("issue_comment.created")
    said = github.say(github.repos[NAME], told["issue"]["number"], "Codertocat", told["comment"]["body"])
    told["comment"]["id"] = said["id"]
    await deliver(door, "issue_comment.created", body=told)
    assert await poll(database, house, URL, SINCE) == 0
    assert len(await heard(database, house)) == 1


async def test_our_own_comments_found_by_a_poll_are_nothing(
    database: Database, house: Repositories, github: GitHubServer
) -> None:
    number = github.add_issue(github.repos[NAME])
    await house.adapter(URL).comment(URL, number, "You are totally right", marker="<!-- shopfloor:progress=wo-1 -->")
    assert await poll(database, house, URL, SINCE) == 1
    assert await heard(database, house) == []
    assert [note for _, note in await notes(database)] == ["our own words"]


async def test_reviews_failed_checks_and_the_end_of_our_change_are_found(
    database: Database, house: Repositories, github: GitHubServer
) -> None:
    repo = github.repos[NAME]
    repo.pulls[2] = github.new_pull(NAME, 2, {"title": "t", "head": "main", "base": "main"}, Token("me"))
    repo.reviews[2] = [{"state": "CHANGES_REQUESTED", "body": "No.", "id": 5, "user": {"login": "Codertocat"}}]
    repo.checks["b" * 40] = [{"name": "ci", "status": "completed", "conclusion": "failure"}]
    await offer(database)
    await poll(database, house, URL, SINCE)
    repo.pulls[2] |= {"state": "closed", "closed_at": "2026-11-21T12:00:00Z"}
    await poll(database, house, URL, SINCE)
    kinds = {kind for kind, _ in await heard(database, house)}
    assert kinds == {"forge.review_submitted", "forge.checks_failed", "forge.change_closed"}


@pytest.mark.parametrize(("seconds", "count"), [(0, 0), (30, 1)], ids=["off", "on"])
async def test_a_repository_is_polled_only_where_the_operator_says_so(
    database: Database, house: Repositories, seconds: float, count: int
) -> None:
    origin, settings = house.connections.forges["github.com"]
    told = settings.model_copy(update={"poll_seconds": seconds, "repositories": [NAME]})
    house.connections.forges["github.com"] = (origin, told)
    assert len(await watched(database, house)) == count


async def test_a_repository_is_polled_once_and_finds_its_changes_however_they_were_spelled(
    database: Database, house: Repositories, github: GitHubServer
) -> None:
    origin, settings = house.connections.forges["github.com"]
    told = settings.model_copy(update={"poll_seconds": 30, "repositories": [NAME]})
    house.connections.forges["github.com"] = (origin, told)
    repo = github.repos[NAME]
    repo.pulls[2] = github.new_pull(NAME, 2, {"title": "t", "head": "main", "base": "main"}, Token("me"))
    repo.reviews[2] = [{"state": "CHANGES_REQUESTED", "body": "No.", "id": 5, "user": {"login": "Codertocat"}}]
    await offer(database, repository_url=f"ssh://git@github.com/{NAME.lower()}")
    ((url, _),) = await watched(database, house)
    await poll(database, house, url, SINCE)
    assert [kind for kind, _ in await heard(database, house)] == ["forge.review_submitted"]


async def test_the_loop_finds_and_handles_by_itself_and_survives_a_dead_forge(
    database: Database, house: Repositories, github: GitHubServer, tmp_path: Path
) -> None:
    origin, settings = house.connections.forges["github.com"]
    told = settings.model_copy(update={"poll_seconds": 0.1, "repositories": [NAME, "nobody/nothing"]})
    house.connections.forges["github.com"] = (origin, told)
    awake = asyncio.Event()
    tasks = [
        asyncio.create_task(keep_polling(database, house, awake=awake)),
        asyncio.create_task(hear.listen(database, house, awake=awake, every=0.5)),
    ]
    label(github)
    try:
        async with asyncio.timeout(60):
            while "forge.issue_labeled" not in [kind for kind, _ in await facts(database)]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
