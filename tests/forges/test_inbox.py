"""The inbox of forges' deliveries: nothing in it is lost, keeps others waiting, or misses what it is about."""

from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from shopfloor.forges import inbox, signals
from shopfloor.forges.models import Change, Delivery
from shopfloor.forges.service import Repositories
from shopfloor.forges.signals import PER_HOUR
from shopfloor.forges.steps import hear
from shopfloor.kit.config import ForgeSettings
from shopfloor.kit.db import Database, db_time
from tests.forges.test_webhooks import NAME, URL, deliver, door, github, heard, house, offer
from tests.forges.worlds import TOKEN
from tests.support.github_server import GitHubServer
from tests.support.hub_state import Token

__all__ = ["door", "github", "house"]


async def test_what_came_while_our_token_was_refused_is_handled_once_it_is_good_again(
    door: httpx.AsyncClient, database: Database, house: Repositories, github: GitHubServer
) -> None:
    await deliver(door, "issues.labeled")
    github.tokens[TOKEN].expired = True
    assert await heard(database, house) == []
    github.tokens[TOKEN].expired = False
    assert len(await heard(database, house)) == 1


async def test_a_forge_that_is_gone_keeps_nobody_elses_deliveries_waiting(
    door: httpx.AsyncClient, database: Database, house: Repositories
) -> None:
    """However many of its own wait."""
    gone = ForgeSettings(kind="forgejo", api_url="http://127.0.0.1:9", token_env="FORGE_WRITER", trigger_label="bug")
    house.connections.forges["gone.example"] = ("https://gone.example", gone)
    about: dict[str, Any] = {
        "kind": signals.Kind.LABELED,
        "host": "gone.example",
        "repository": "a/b",
        "actor": "x",
        "label": "bug",
    }
    async with database.transaction() as session:
        for number in range(1, 61):
            signal = signals.Signal(**about, number=number)
            row = {"delivery_id": f"hook:gone.example:{number}", "repository_url": "https://gone.example/a/b"}
            await inbox.keep(session, **row, event="issues", signal=signal)
    await deliver(door, "issues.labeled")
    assert len(await heard(database, house)) == 1


async def test_a_delivery_that_cannot_be_understood_any_more_keeps_no_other_waiting(
    door: httpx.AsyncClient, database: Database, house: Repositories
) -> None:
    """It may have been stored by another version."""
    await deliver(door, "issue_comment.created")
    async with database.transaction() as session:
        await session.execute(sa.update(Delivery).values(signal={"kind": "comment_made", "strange": 1}))
    await deliver(door, "issues.labeled", number="2")
    assert len(await heard(database, house)) == 1


@pytest.mark.parametrize(
    "spelled",
    [f"https://github.com/{NAME.upper()}", f"ssh://git@github.com/{NAME}", f"https://github.com/{NAME}"],
    ids=["in capitals", "by ssh", "as the forge does"],
)
async def test_a_review_finds_its_change_however_its_repository_was_spelled(
    door: httpx.AsyncClient, database: Database, house: Repositories, spelled: str
) -> None:
    await offer(database, repository_url=spelled)
    await deliver(door, "pull_request_review.submitted")
    ((_, told),) = await heard(database, house)
    assert told["work_order_id"] == "wo-1"


async def test_a_review_does_not_find_a_change_of_the_same_number_elsewhere(
    door: httpx.AsyncClient, database: Database, house: Repositories
) -> None:
    await offer(database, repository_url=f"https://git.example.org/{NAME}")
    await deliver(door, "pull_request_review.submitted")
    assert await heard(database, house) == []


async def test_the_end_of_a_change_is_noticed_however_much_was_said_about_it(
    door: httpx.AsyncClient, database: Database, house: Repositories, github: GitHubServer
) -> None:
    await offer(database)
    repo = github.repos[NAME]
    repo.pulls[2] = github.new_pull(NAME, 2, {"title": "t", "head": "main", "base": "main"}, Token("me"))
    repo.pulls[2]["state"] = "closed"
    async with database.transaction() as session:
        for number in range(PER_HOUR):
            row = Delivery(delivery_id=f"d{number}", repository_url=URL, event="issue_comment", number=2)
            row.state, row.handled_at, row.reaction = "handled", db_time(), "continued"
            session.add(row)
    await deliver(door, "pull_request.closed")
    await hear.handle_waiting(database, house)
    async with database.reading() as session:
        assert (await session.get_one(Change, "chg-1")).state == "closed"
