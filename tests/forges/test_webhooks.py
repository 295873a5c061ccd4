"""Webhooks: recorded deliveries of GitHub through the door, judged, and turned into few facts (AWK-03)."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from fastapi import FastAPI

from shopfloor.events.models import EventRow
from shopfloor.forges import routes, signals
from shopfloor.forges.connections import Connections
from shopfloor.forges.models import Change, Delivery
from shopfloor.forges.service import Repositories
from shopfloor.forges.signals import PER_HOUR, signature
from shopfloor.forges.steps import hear
from shopfloor.kit import http
from shopfloor.kit.config import ForgeSettings
from shopfloor.kit.db import Database
from tests.forges.conftest import PROTOCOLS
from tests.forges.support import bare, repository
from tests.forges.worlds import TOKEN
from tests.support.github_server import GitHubServer
from tests.support.hub_state import Token

PAYLOADS = Path(__file__).parent / "payloads"
SECRET = "It's a Secret to Everybody"
NAME = "Codertocat/Hello-World"
URL = f"https://github.com/{NAME}"


def payload(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((PAYLOADS / f"{name}.json").read_text())
    return found


@pytest.fixture
def github(tmp_path: Path) -> Iterator[GitHubServer]:
    folder = tmp_path / "served"
    folder.mkdir()
    server = GitHubServer(folder)
    server.start()
    server.add(NAME, bare(repository(tmp_path / "work"), tmp_path / "origin.git"))
    server.tokens[TOKEN] = Token("shopfloor-bot", {NAME: "write"})
    server.writers = {"Codertocat": "write"}
    yield server
    server.close()


@pytest.fixture
def house(tmp_path: Path, github: GitHubServer, monkeypatch: pytest.MonkeyPatch) -> Repositories:
    monkeypatch.setenv("FORGE_WRITER", TOKEN)
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    settings = ForgeSettings(
        kind="github",
        api_url=f"http://{github.host}",
        token_env="FORGE_WRITER",
        webhook_secret_env="HOOK_SECRET",
        trigger_label="bug",
        mention="You are totally right",
    )
    connections = Connections({"https://github.com": settings})
    return Repositories(tmp_path / "house", protocols=PROTOCOLS, connections=connections)


@pytest.fixture
async def door(database: Database, house: Repositories) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    app.include_router(routes.hooks)
    http.install_problems(app)
    app.state.database, app.state.repositories = database, house
    app.state.settings = SimpleNamespace(api_key="", host="127.0.0.1")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://shopfloor.example") as opened:
        yield opened


async def deliver(
    door: httpx.AsyncClient, name: str, *, number: str = "1", secret: str = SECRET, body: Any = None
) -> httpx.Response:
    data = json.dumps(body if body is not None else payload(name)).encode()
    headers = {
        "X-GitHub-Event": name.partition(".")[0],
        "X-GitHub-Delivery": f"72d3162e-cc78-11e3-81ab-4c9367dc095{number}",
        "X-Hub-Signature-256": f"sha256={signature(secret, data)}",
    }
    return await door.post("/api/v1/webhooks/github", content=data, headers=headers)


async def facts(database: Database, prefix: str = "forge.") -> list[tuple[str, dict[str, Any]]]:
    async with database.reading() as session:
        rows = (await session.execute(sa.select(EventRow.event_type, EventRow.payload).order_by(EventRow.id))).all()
    return [(kind, json.loads(told)) for kind, told in rows if kind.startswith(prefix)]


async def heard(database: Database, house: Repositories) -> list[tuple[str, dict[str, Any]]]:
    await hear.handle_waiting(database, house)
    return [fact for fact in await facts(database) if fact[0] != "forge.delivery_received"]


async def notes(database: Database) -> list[tuple[str, str]]:
    async with database.reading() as session:
        return [(row.state, row.note) for row in (await session.scalars(sa.select(Delivery))).all()]


async def offer(database: Database, **facts: Any) -> None:
    """A change of ours, as the recorded payloads tell of it."""
    told = {
        "change_id": "chg-1",
        "work_order_id": "wo-1",
        "forge": "github",
        "repository_url": URL,
        "base_branch": "main",
        "base_commit": "a" * 40,
        "head_branch": "changes",
        "head_commit": "b" * 40,
        "title": "t",
        "body": "b",
        "state": "open",
        "mergeable": "unknown",
        "conflicts": [],
        "number": 2,
    }
    async with database.transaction() as session:
        session.add(Change(**told | facts))


def test_our_signature_is_githubs_published_one() -> None:
    published = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert signature(SECRET, b"Hello, World!") == published


@pytest.mark.parametrize("name", sorted(path.stem for path in PAYLOADS.glob("*.json")))
async def test_every_recorded_delivery_is_taken_and_harms_nothing(
    door: httpx.AsyncClient, database: Database, house: Repositories, name: str
) -> None:
    said = await deliver(door, name)
    assert (said.status_code, said.json()) == (202, {"accepted": True})
    await hear.handle_waiting(database, house)
    assert "waiting" not in {state for state, _ in await notes(database)}


@pytest.mark.parametrize("secret", ["", "another"])
async def test_a_delivery_that_is_not_signed_with_our_secret_leaves_no_trace(
    door: httpx.AsyncClient, database: Database, secret: str
) -> None:
    said = await deliver(door, "issues.labeled", secret=secret)
    assert (said.status_code, said.json()["code"]) == (401, "bad_signature")
    assert await notes(database) == []
    assert await facts(database) == []


async def test_without_a_secret_nothing_is_believed_and_the_setting_is_named(
    door: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOOK_SECRET")
    said = await deliver(door, "issues.labeled", secret="")
    assert said.status_code == 403
    assert "webhook_secret_env" in said.json()["hint"]


async def test_the_secret_of_one_host_does_not_speak_for_another(door: httpx.AsyncClient, database: Database) -> None:
    told = payload("issues.labeled")
    told["repository"]["html_url"] = "https://git.example.org/Codertocat/Hello-World"
    assert (await deliver(door, "issues.labeled", body=told)).status_code == 401
    assert await notes(database) == []


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"null", b"\xff"])
async def test_what_is_no_delivery_is_refused(door: httpx.AsyncClient, data: bytes) -> None:
    headers = {
        "X-GitHub-Event": "issues",
        "X-GitHub-Delivery": "1",
        "X-Hub-Signature-256": f"sha256={signature(SECRET, data)}",
    }
    assert (await door.post("/api/v1/webhooks/github", content=data, headers=headers)).status_code == 422


async def test_a_redelivery_is_known(door: httpx.AsyncClient, database: Database) -> None:
    told = [(await deliver(door, "issues.labeled")).json()["accepted"] for _ in range(2)]
    assert told == [True, False]
    assert len(await facts(database, "forge.delivery_received")) == 1


async def test_six_redeliveries_at_once_are_one(
    door: httpx.AsyncClient, database: Database, house: Repositories
) -> None:
    told = await asyncio.gather(*(deliver(door, "issues.labeled") for _ in range(6)))
    assert sum(said.json()["accepted"] for said in told) == 1
    await asyncio.gather(*(hear.handle_waiting(database, house) for _ in range(3)))
    assert len(await heard(database, house)) == 1


async def test_the_same_thing_under_another_id_is_known(door: httpx.AsyncClient) -> None:
    told = [(await deliver(door, "issue_comment.created", number=n)).json()["accepted"] for n in "12"]
    assert told == [True, False]


async def test_it_is_answered_long_before_two_seconds_have_passed(door: httpx.AsyncClient) -> None:
    """AWK-03: webhook handling < 2 s; the work comes later."""
    began = time.monotonic()
    await deliver(door, "issues.labeled")
    assert time.monotonic() - began < 2


async def test_our_label_on_an_issue_is_a_fact(
    door: httpx.AsyncClient, database: Database, house: Repositories
) -> None:
    await deliver(door, "issues.labeled")
    ((kind, told),) = await heard(database, house)
    assert (kind, told["number"], told["actor"], told["repository_url"]) == (
        "forge.issue_labeled",
        payload("issues.labeled")["issue"]["number"],
        "Codertocat",
        URL,
    )


async def test_handling_twice_makes_one_fact(door: httpx.AsyncClient, database: Database, house: Repositories) -> None:
    await deliver(door, "issues.labeled")
    await heard(database, house)
    assert len(await heard(database, house)) == 1


async def test_a_comment_that_addresses_us_is_a_fact(
    door: httpx.AsyncClient, database: Database, house: Repositories
) -> None:
    await deliver(door, "issue_comment.created")
    ((kind, told),) = await heard(database, house)
    assert (kind, told["on_change"]) == ("forge.comment_made", False)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"comment": {"id": 5, "body": "hello"}}, "does not address us"),
        (
            {"comment": {"id": 5, "body": "You are totally right <!-- shopfloor:progress=wo-1 -->"}},
            "our own words",
        ),
        ({"sender": {"login": "stranger"}}, "may not write"),
        ({"sender": {"login": "shopfloor-bot"}}, "our own doing"),
        ({"sender": {}}, "may not write"),
    ],
    ids=["not addressed", "hidden marker", "no write access", "own sender", "nobody"],
)
async def test_a_comment_that_does_not_count_says_why(
    door: httpx.AsyncClient, database: Database, house: Repositories, change: dict[str, Any], why: str
) -> None:
    await deliver(door, "issue_comment.created", body=payload("issue_comment.created") | change)
    assert await heard(database, house) == []
    ((state, note),) = await notes(database)
    assert state == "ignored"
    assert why in note


async def test_the_hidden_marker_is_seen_in_any_case(database: Database) -> None:
    signal = signals.read("issue_comment", payload("issue_comment.created"))
    assert signal
    assert replace(signal, text="<!--SHOPFLOOR:order=x-->").ours


async def test_answers_that_answer_answers_stop(
    door: httpx.AsyncClient, database: Database, house: Repositories
) -> None:
    for number in range(PER_HOUR + 5):
        told = payload("issue_comment.created")
        told["comment"] |= {"id": 1000 + number}
        await deliver(door, "issue_comment.created", number=str(100 + number), body=told)
        await hear.handle_waiting(database, house)
    assert len(await heard(database, house)) == PER_HOUR
    assert sum("machines answering each other" in note for _, note in await notes(database)) == 5


async def test_what_the_forge_cannot_be_asked_about_waits(
    door: httpx.AsyncClient, database: Database, house: Repositories, github: GitHubServer
) -> None:
    await deliver(door, "issues.labeled")
    github.limited_until = time.time() + 3000
    assert await heard(database, house) == []
    github.limited_until = 0
    assert len(await heard(database, house)) == 1


async def test_a_review_of_our_change_names_its_order(
    door: httpx.AsyncClient, database: Database, house: Repositories
) -> None:
    await offer(database)
    await deliver(door, "pull_request_review.submitted")
    ((kind, told),) = await heard(database, house)
    assert (kind, told["work_order_id"], told["verdict"]) == ("forge.review_submitted", "wo-1", "commented")


async def test_a_review_of_somebody_elses_change_is_nothing(
    door: httpx.AsyncClient, database: Database, house: Repositories
) -> None:
    await deliver(door, "pull_request_review.submitted")
    assert await heard(database, house) == []


@pytest.mark.parametrize(("ours", "count"), [(True, 1), (False, 0)], ids=["our head", "an old commit"])
async def test_a_failed_check_counts_on_our_own_head_only(
    door: httpx.AsyncClient, database: Database, house: Repositories, ours: bool, count: int
) -> None:
    told = payload("check_run.completed")
    told["check_run"]["conclusion"] = "failure"
    await offer(database, head_commit=told["check_run"]["head_sha"] if ours else "c" * 40)
    await deliver(door, "check_run.completed", body=told)
    assert len(await heard(database, house)) == count


async def test_a_close_is_looked_up_and_not_believed(
    door: httpx.AsyncClient, database: Database, house: Repositories, github: GitHubServer
) -> None:
    """The payload says closed; the forge says open: our change stays open."""
    await offer(database)
    repo = github.repos[NAME]
    body = {"title": "t", "head": "main", "base": "main"}
    repo.pulls[2] = github.new_pull(NAME, 2, body, Token("me"))
    await deliver(door, "pull_request.closed")
    await heard(database, house)
    async with database.reading() as session:
        assert (await session.get_one(Change, "chg-1")).state == "open"


async def test_a_close_on_the_forge_ends_the_change(
    door: httpx.AsyncClient, database: Database, house: Repositories, github: GitHubServer
) -> None:
    await offer(database)
    repo = github.repos[NAME]
    repo.pulls[2] = github.new_pull(NAME, 2, {"title": "t", "head": "main", "base": "main"}, Token("me"))
    repo.pulls[2]["state"] = "closed"
    await deliver(door, "pull_request.closed")
    kinds = [kind for kind, _ in await heard(database, house)]
    async with database.reading() as session:
        assert (await session.get_one(Change, "chg-1")).state == "closed"
    assert kinds == ["forge.change_closed"]
