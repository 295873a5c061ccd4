"""The routes of repositories, issues, reviews and branches, over a connected forge and over plain git."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from fastapi import FastAPI

from shopfloor.forges import routes
from shopfloor.forges.models import Change
from shopfloor.kit import http
from shopfloor.kit.db import Database
from tests.forges.worlds import VARIABLES, World, delivered, hosted
from tests.support.github_server import GitHubServer
from tests.support.platform import git


@pytest.fixture
def github(tmp_path: Path) -> Iterator[GitHubServer]:
    folder = tmp_path / "served"
    folder.mkdir()
    server = GitHubServer(folder)
    server.start()
    yield server
    server.close()


@pytest.fixture
def world(tmp_path: Path, github: GitHubServer, monkeypatch: pytest.MonkeyPatch) -> World:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    return hosted(tmp_path, github, f"http://{github.host}", "acme/demo")


@pytest.fixture
async def desk(database: Database, world: World) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    app.include_router(routes.router)
    http.install_problems(app)
    app.state.database, app.state.repositories = database, world.house
    app.state.settings = SimpleNamespace(api_key="", host="127.0.0.1")
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1/api/v1", timeout=60) as opened:
        yield opened


async def offered(world: World, database: Database, place: Path) -> Change:
    draft = await delivered(world, place)
    told = {name: value for name, value in vars(draft).items() if name != "number"}
    return await world.house.forge(world.url).open_change(database, **told)


async def test_a_repository_that_cannot_be_written_says_why(desk: httpx.AsyncClient, world: World) -> None:
    """AWA-01, AWM-12."""
    world.repo.archived = True
    told = (await desk.post("/github/verify-repository", json={"repository_url": world.url})).json()
    assert (told["verification_success"], told["can_write"]) == (True, False)
    assert "archived" in told["hint"]


async def test_issues_are_listed_and_read(desk: httpx.AsyncClient, world: World, github: GitHubServer) -> None:
    """AWM-14."""
    number = github.add_issue(world.repo, title="It breaks", labels=[{"name": "bug"}])
    listed = (await desk.get("/github/issues", params={"repository_url": world.url, "label": "bug"})).json()["issues"]
    one = (await desk.get(f"/github/issues/{number}", params={"repository_url": world.url})).json()
    assert listed == [one]
    assert (one["issue_number"], one["issue_title"], one["labels"]) == (number, "It breaks", ["bug"])


async def test_an_issue_that_is_not_there_is_told(desk: httpx.AsyncClient, world: World) -> None:
    said = await desk.get("/github/issues/4711", params={"repository_url": world.url})
    assert (said.status_code, said.json()["code"]) == (422, "repository_hidden")
    assert "4711" in said.json()["detail"]


async def test_a_comment_is_made_once_for_each_key(desk: httpx.AsyncClient, world: World, github: GitHubServer) -> None:
    number = github.add_issue(world.repo)
    for text in ("one", "two"):
        body = {"repository_url": world.url, "text": text, "key": "k"}
        assert (await desk.post(f"/github/issues/{number}/comments", json=body)).status_code == 201
    (said,) = world.repo.comments.values()
    assert said["body"].startswith("two")


async def test_two_branches_are_compared(desk: httpx.AsyncClient, world: World, tmp_path: Path) -> None:
    """GIT-04."""
    draft = await delivered(world, tmp_path)
    params = {"repository_url": world.url, "base": "main", "head": draft.head_branch}
    told = (await desk.get("/github/compare", params=params)).json()
    assert (told["ahead"], told["behind"], told["files"]) == (1, 0, ["wo-1.txt"])


async def test_a_change_is_shown_as_pull_request(
    desk: httpx.AsyncClient, world: World, database: Database, tmp_path: Path
) -> None:
    """AWM-13."""
    change = await offered(world, database, tmp_path)
    told = (await desk.get(f"/changes/{change.change_id}/pull-request")).json()
    assert told == {
        "pull_request_number": change.number,
        "pull_request_title": "Do it",
        "pull_request_url": change.url,
        "head_branch": "feat-wo-1",
        "base_branch": "main",
        "state": "open",
    }


async def test_a_forges_reviews_and_checks_are_shown(
    desk: httpx.AsyncClient, world: World, database: Database, tmp_path: Path
) -> None:
    change = await offered(world, database, tmp_path)
    assert change.number
    world.repo.reviews[change.number] = [{"state": "APPROVED", "body": "Fine.", "id": 5}]
    world.repo.checks[change.head_commit] = [{"name": "ci", "status": "completed", "conclusion": "success"}]
    reviews = (await desk.get(f"/changes/{change.change_id}/reviews")).json()["reviews"]
    checks = (await desk.get(f"/changes/{change.change_id}/checks")).json()["checks"]
    assert [(one["verdict"], one["body"]) for one in reviews] == [("approved", "Fine.")]
    assert [(one["name"], one["state"]) for one in checks] == [("ci", "passed")]


async def test_a_change_with_pages_is_reviewed_there(
    desk: httpx.AsyncClient, world: World, database: Database, tmp_path: Path
) -> None:
    change = await offered(world, database, tmp_path)
    said = await desk.post(f"/changes/{change.change_id}/reviews", json={"verdict": "approved"})
    assert (said.status_code, said.json()["code"]) == (409, "reviewed_elsewhere")


async def test_a_branch_is_removed_only_when_its_change_has_ended(
    desk: httpx.AsyncClient, world: World, database: Database, tmp_path: Path
) -> None:
    """GIT-03."""
    change = await offered(world, database, tmp_path)
    assert (await desk.delete(f"/changes/{change.change_id}/branch")).json()["code"] == "still_open"
    await desk.post(f"/changes/{change.change_id}/close")
    assert (await desk.delete(f"/changes/{change.change_id}/branch")).status_code == 200
    assert change.head_branch not in git("branch", cwd=world.origin)


async def test_plain_git_is_reviewed_here(client: httpx.AsyncClient, change: Change) -> None:
    body = {"verdict": "approved", "body": "Good.", "author": "me", "expected_head": change.head_commit}
    assert (await client.post(f"/changes/{change.change_id}/reviews", json=body)).status_code == 201
    (told,) = (await client.get(f"/changes/{change.change_id}/reviews")).json()["reviews"]
    assert told == {"author": "me", "verdict": "approved", "body": "Good.", "commit": change.head_commit}


async def test_a_review_of_what_the_change_no_longer_is_is_refused(client: httpx.AsyncClient, change: Change) -> None:
    body = {"verdict": "approved", "expected_head": "0" * 40}
    assert (await client.post(f"/changes/{change.change_id}/reviews", json=body)).json()["code"] == "head_moved"


async def test_a_request_for_changes_holds_the_merge_until_it_is_taken_back(
    client: httpx.AsyncClient, change: Change
) -> None:
    where = f"/changes/{change.change_id}"
    await client.post(f"{where}/reviews", json={"verdict": "approved", "author": "you"})
    await client.post(f"{where}/reviews", json={"verdict": "changes_requested", "author": "me"})
    assert (await client.post(f"{where}/merge")).json()["code"] == "changes_requested"
    await client.post(f"{where}/reviews", json={"verdict": "approved", "author": "me"})
    assert (await client.post(f"{where}/merge")).json()["state"] == "merged"


async def test_plain_git_keeps_its_branch_unless_asked(client: httpx.AsyncClient, change: Change, origin: Path) -> None:
    where = f"/changes/{change.change_id}"
    await client.post(f"{where}/merge")
    assert change.head_branch in git("branch", cwd=origin)
    await client.post(f"{where}/merge", json={"delete_branch": True})
    assert change.head_branch not in git("branch", cwd=origin)


async def test_of_plain_git_too_a_branch_stays_that_another_change_stands_on(
    client: httpx.AsyncClient, change: Change, origin: Path, database: Database
) -> None:
    above = {name: getattr(change, name) for name in Change.__table__.columns.keys()}  # noqa: SIM118 - a view of columns
    above |= {"change_id": "chg-above", "base_branch": change.head_branch, "head_branch": "above"}
    async with database.transaction() as session:
        session.add(Change(**above))
    where = f"/changes/{change.change_id}"
    await client.post(f"{where}/merge", json={"delete_branch": True})
    assert (await client.delete(f"{where}/branch")).json()["code"] == "still_open"
    assert change.head_branch in git("branch", cwd=origin)
    await client.post("/changes/chg-above/close")
    assert (await client.delete(f"{where}/branch")).status_code == 200
