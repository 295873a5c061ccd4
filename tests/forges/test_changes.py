"""Changes: recorded, looked at, merged and closed without any server; and repositories verified over HTTP."""

from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from shopfloor.events.models import EventRow
from shopfloor.forges.models import Change
from shopfloor.forges.port import BranchMoved, HeadMoved, NotMergeable
from shopfloor.forges.service import Repositories
from shopfloor.forges.steps import merge as merging
from shopfloor.kit.db import Database
from shopfloor.kit.errors import Conflict
from tests.forges.support import Sandbox, age, commit, deliver
from tests.support.platform import git


async def facts(database: Database) -> list[str]:
    async with database.reading() as session:
        return list(await session.scalars(sa.select(EventRow.event_type).order_by(EventRow.id)))


async def test_a_delivered_branch_becomes_an_open_mergeable_change(change: Change) -> None:
    assert (change.state, change.mergeable, change.url) == ("open", "true", None)


async def test_recording_is_a_fact_once(
    change: Change, house: Repositories, database: Database, box: Sandbox, origin: Path
) -> None:
    again = await deliver(house, database, box, origin, {})
    same = await house.forge(str(origin)).open_change(
        database,
        **{name: getattr(again, name) for name in ("work_order_id", "repository_url", "base_branch", "base_commit")},
        **{name: getattr(again, name) for name in ("head_branch", "head_commit", "title", "body")},
    )
    assert (again.change_id, same.change_id) == (change.change_id, change.change_id)
    assert await facts(database) == ["change.recorded", "change.recorded"]


async def test_a_merge_brings_the_work_to_the_base_branch(
    change: Change, house: Repositories, database: Database, origin: Path
) -> None:
    merged = await merging.merge(database, house, change.change_id)
    assert merged.state == "merged"
    assert git("rev-parse", "main", cwd=origin) == merged.merge_commit
    assert git("rev-parse", "main^2", cwd=origin) == change.head_commit
    assert git("show", "main:new.txt", cwd=origin) == "new"


async def test_a_squash_makes_one_commit_with_one_parent(
    change: Change, house: Repositories, database: Database, origin: Path
) -> None:
    await merging.merge(database, house, change.change_id, squash=True)
    assert git("log", "-1", "--format=%P %s", "main", cwd=origin) == f"{change.base_commit} Do it"


async def test_merging_twice_merges_once(change: Change, house: Repositories, database: Database, origin: Path) -> None:
    first = await merging.merge(database, house, change.change_id)
    second = await merging.merge(database, house, change.change_id)
    assert first.merge_commit == second.merge_commit
    assert await facts(database) == ["change.recorded", "change.merged"]


async def test_a_conflict_is_named_and_nothing_is_pushed(
    house: Repositories, database: Database, box: Sandbox, origin: Path, work: Path
) -> None:
    change = await deliver(house, database, box, origin, {"app.py": "mine\n"})
    theirs = commit(work, "theirs", {"app.py": "theirs\n"})
    git("push", "-q", str(origin), "main", cwd=work)
    with pytest.raises(NotMergeable) as caught:
        await merging.merge(database, house, change.change_id)
    assert caught.value.facts["conflicts"] == ["app.py"]
    assert git("rev-parse", "main", cwd=origin) == theirs


async def test_a_base_with_another_history_is_told_and_nothing_is_pushed(
    client: httpx.AsyncClient, change: Change, origin: Path, work: Path
) -> None:
    git("checkout", "-q", "--orphan", "anew", cwd=work)
    now = commit(work, "all anew", {"other.txt": "x\n"})
    git("push", "-q", "--force", str(origin), "anew:main", cwd=work)
    told = (await client.post(f"/changes/{change.change_id}/merge")).json()
    assert told["code"] == "not_mergeable"
    assert "no history in common" in told["detail"]
    assert git("rev-parse", "main", cwd=origin) == now


async def test_whether_it_merges_is_told_live(
    client: httpx.AsyncClient, house: Repositories, database: Database, box: Sandbox, origin: Path, work: Path
) -> None:
    change = await deliver(house, database, box, origin, {"app.py": "mine\n"})
    commit(work, "theirs", {"app.py": "theirs\n"})
    git("push", "-q", str(origin), "main", cwd=work)
    await age(database, change)
    seen = (await client.get(f"/changes/{change.change_id}")).json()
    assert (seen["mergeable"], seen["conflicts"]) == ("false", ["app.py"])


async def test_a_base_that_moved_without_conflict_is_merged_with(
    change: Change, house: Repositories, database: Database, origin: Path, work: Path
) -> None:
    theirs = commit(work, "theirs", {"other.txt": "x"})
    git("push", "-q", str(origin), "main", cwd=work)
    await merging.merge(database, house, change.change_id)
    assert git("rev-parse", "main^1", cwd=origin) == theirs


async def test_a_head_that_somebody_moved_is_not_merged(
    change: Change, house: Repositories, database: Database, origin: Path, work: Path
) -> None:
    git("push", "-q", "-f", str(origin), f"HEAD:{change.head_branch}", cwd=work)
    with pytest.raises(HeadMoved):
        await merging.merge(database, house, change.change_id)


async def test_a_merge_that_keeps_losing_the_race_gives_up(
    change: Change, house: Repositories, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lose(*_: Any, **__: Any) -> None:
        raise BranchMoved

    monkeypatch.setattr(Repositories, "push", lose)
    with pytest.raises(BranchMoved):
        await merging.merge(database, house, change.change_id)


@pytest.mark.parametrize("squash", [True, False])
async def test_a_merge_killed_after_its_push_is_finished_not_repeated(
    change: Change, house: Repositories, database: Database, origin: Path, monkeypatch: pytest.MonkeyPatch, squash: bool
) -> None:
    real = Repositories.push

    async def push_and_die(self: Repositories, *args: Any, **kwargs: Any) -> None:
        await real(self, *args, **kwargs)
        raise RuntimeError("killed")

    monkeypatch.setattr(Repositories, "push", push_and_die)
    with pytest.raises(RuntimeError):
        await merging.merge(database, house, change.change_id, squash=squash)
    monkeypatch.undo()
    merged = await merging.merge(database, house, change.change_id, squash=squash)
    assert merged.merge_commit == git("rev-parse", "main", cwd=origin)
    assert git("rev-list", "--count", "--first-parent", "main", cwd=origin) == "2"


async def test_a_closed_change_is_not_merged(change: Change, house: Repositories, database: Database) -> None:
    await merging.close(database, house, change.change_id)
    with pytest.raises(Conflict):
        await merging.merge(database, house, change.change_id)


async def test_closing_leaves_the_branch_and_a_fact(
    change: Change, house: Repositories, database: Database, origin: Path
) -> None:
    await merging.close(database, house, change.change_id)
    await merging.close(database, house, change.change_id)
    assert git("rev-parse", change.head_branch, cwd=origin) == change.head_commit
    assert await facts(database) == ["change.recorded", "change.closed"]


async def test_changes_are_listed_by_state_order_and_repository(
    client: httpx.AsyncClient, change: Change, origin: Path
) -> None:
    for params, count in (
        ({}, 1),
        ({"state": "open"}, 1),
        ({"state": "merged"}, 0),
        ({"work_order_id": "wo-1"}, 1),
        ({"work_order_id": "wo-2"}, 0),
        ({"repository": f"file://{origin}".replace(" ", "%20")}, 1),
        ({"offset": "1"}, 0),
    ):
        answer = (await client.get("/changes", params=params)).json()
        assert len(answer["changes"]) == count, params


async def test_the_diff_is_answered(client: httpx.AsyncClient, change: Change) -> None:
    answer = (await client.get(f"/changes/{change.change_id}/diff")).json()
    assert "+new" in answer["diff"]
    assert not answer["truncated"]


async def test_a_merge_over_http_guards_the_head(client: httpx.AsyncClient, change: Change) -> None:
    answer = await client.post(f"/changes/{change.change_id}/merge", json={"expected_head": "0" * 40})
    assert (answer.status_code, answer.json()["code"]) == (409, "head_moved")


async def test_a_merge_over_http_answers_the_merged_change(client: httpx.AsyncClient, change: Change) -> None:
    answer = await client.post(f"/changes/{change.change_id}/merge", json={"expected_head": change.head_commit})
    assert (answer.status_code, answer.json()["state"]) == (200, "merged")
    assert answer.json()["merged_at"].endswith("Z")


async def test_a_close_over_http_answers_the_closed_change(client: httpx.AsyncClient, change: Change) -> None:
    assert (await client.post(f"/changes/{change.change_id}/close")).json()["state"] == "closed"


@pytest.mark.parametrize("path", ["/changes/chg-x", "/changes/chg-x/diff"])
async def test_an_unknown_change_is_not_found(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "change_not_found")


async def verify(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    answer = await client.post("/github/verify-repository", json={"repository_url": url})
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


async def test_a_local_path_is_verified(client: httpx.AsyncClient, origin: Path) -> None:
    found = await verify(client, str(origin))
    assert (found["verification_success"], found["can_write"], found["error_message"]) == (True, True, None)
    assert found["repository"]["default_branch"] == "main"
    assert found["repository"]["access_verified_at"].endswith("Z")


async def test_a_git_server_is_verified(client: httpx.AsyncClient, server: Any) -> None:
    found = await verify(client, server.url("origin.git"))
    assert (found["repository"]["is_accessible"], found["repository"]["repository_name"]) == (True, "origin")


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("/nonexistent/place", "local_repository_not_found"),
        ("ext::sh -c x", "bad_repository_url"),
        ("https://user:word@example.org/x", "credentials_in_url"),
        ("git@github.com:owner/name.git", "protocol_not_allowed"),
        ("http://127.0.0.1:1/x", "repository_not_reached"),
        ("", "bad_repository_url"),
    ],
)
async def test_a_bad_repository_is_told_in_the_body(client: httpx.AsyncClient, url: str, code: str) -> None:
    found = await verify(client, url)
    assert (found["verification_success"], found["error_code"]) == (False, code)
    assert found["error_message"]
    assert found["hint"]


async def test_credentials_are_not_answered_back(client: httpx.AsyncClient) -> None:
    assert "sekret" not in str(await verify(client, "https://user:sekret@example.org/x"))


async def test_a_read_only_server_can_be_read_but_not_written(
    client: httpx.AsyncClient, house: Repositories, server: Any
) -> None:
    async def credentials(address: Any) -> Any:
        from shopfloor.kit.git import Credential

        return Credential(address.origin, "reader")

    server.rights = {"reader": "ro"}
    house.credentials = credentials
    found = await verify(client, server.url("origin.git"))
    assert (found["verification_success"], found["can_write"]) == (True, False)
    assert "push" in found["hint"]
