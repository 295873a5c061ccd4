"""GitHub's bad days, each with one clear word and nothing lost; and what a person does there while we look away."""

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shopfloor.forges import inbox, signals
from shopfloor.forges.adapters._pulls import MergeRefused, NothingToReview
from shopfloor.forges.adapters._wire import (
    ForgeFailed,
    ForgeNotReached,
    NotAForge,
    RateLimited,
    RepositoryArchived,
    RepositoryHidden,
    RepositoryMoved,
    RightMissing,
    TokenRefused,
)
from shopfloor.forges.models import Delivery
from shopfloor.forges.port import ChangeWithdrawn, Draft
from shopfloor.forges.steps import hear
from shopfloor.forges.steps import merge as merging
from shopfloor.forges.steps.verify import verify
from shopfloor.kit.db import Database
from shopfloor.kit.errors import Problem
from tests.forges.support import age, commit
from tests.forges.worlds import TOKEN, VARIABLES, World, allow, delivered, hosted
from tests.support.github_server import GitHubServer
from tests.support.hub_state import Token
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
async def draft(world: World, tmp_path: Path) -> Draft:
    return await delivered(world, tmp_path)


async def offered(world: World, database: Database, draft: Draft, **more: object) -> str:
    """The id of the draft's change in our table."""
    told = {name: value for name, value in vars(draft).items() if name != "number"}
    made = await world.house.forge(world.url).open_change(database, **told, **more)  # type: ignore[arg-type]
    return made.change_id


def cloned(world: World, place: Path) -> Path:
    """A person's own clone."""
    git("clone", "-q", str(world.origin), str(place / "clone"), cwd=place)
    return place / "clone"


def calls(server: GitHubServer, start: str) -> int:
    return sum(1 for request in server.requests if request.startswith(start))


async def test_a_post_that_fails_is_not_repeated(world: World, github: GitHubServer, draft: Draft) -> None:
    forge = world.house.adapter(world.url)
    number = github.add_issue(world.repo)
    await forge.comments(world.url, number)
    await forge.comment(world.url, number, "first", marker="<!-- a -->")
    before = calls(github, "POST")
    github.broken = {"POST": [502]}
    with pytest.raises(ForgeFailed):
        await forge.comment(world.url, number, "second", marker="<!-- b -->")
    assert calls(github, "POST") == before + 1


async def test_a_get_that_fails_is_repeated(world: World, github: GitHubServer) -> None:
    github.broken = {"GET": [502, 503]}
    assert await world.house.adapter(world.url).issues(world.url) == []


async def test_a_change_whose_answer_was_lost_is_found_and_not_doubled(
    world: World, github: GitHubServer, draft: Draft
) -> None:
    github.broken = {"POST": [0]}
    made = await world.house.adapter(world.url).open_change(draft)
    assert [made.number] == list(world.repo.pulls)


async def test_a_comment_whose_answer_was_lost_is_found_and_not_doubled(world: World, github: GitHubServer) -> None:
    number = github.add_issue(world.repo)
    github.broken = {"POST": [0]}
    said = await world.house.adapter(world.url).comment(world.url, number, "hello", marker="<!-- m -->")
    assert [said.comment_id] == list(world.repo.comments)


async def test_a_merge_whose_answer_was_lost_is_found(world: World, github: GitHubServer, draft: Draft) -> None:
    forge = world.house.adapter(world.url)
    await forge.open_change(draft)
    github.broken = {"PUT": [0]}
    made = await forge.merge(draft, squash=False, planned=None, plan=allow)
    assert made == git("rev-parse", "main", cwd=world.origin)
    assert git("rev-list", "--count", "--merges", "main", cwd=world.origin) == "1"


async def test_a_long_rate_limit_is_told_with_its_end_and_not_slept_through(world: World, github: GitHubServer) -> None:
    github.limited_until = time.time() + 3000
    began = time.monotonic()
    with pytest.raises(RateLimited) as refused:
        await world.house.adapter(world.url).issues(world.url)
    assert refused.value.facts["resets_at"] == pytest.approx(github.limited_until, abs=5)
    assert time.monotonic() - began < 5


async def test_a_short_rate_limit_is_waited_for(world: World, github: GitHubServer) -> None:
    github.limited_until = time.time() + 2
    assert await world.house.adapter(world.url).issues(world.url) == []


async def test_a_server_that_is_gone_is_told(world: World, github: GitHubServer) -> None:
    github.close()
    with pytest.raises(ForgeNotReached):
        await world.house.adapter(world.url).issues(world.url)


async def test_a_wrong_api_address_is_told(world: World, github: GitHubServer, tmp_path: Path) -> None:
    wrong = world.another(tmp_path / "other", api_url=f"http://{github.host}/website")
    with pytest.raises(NotAForge):
        await wrong.adapter(world.url).issues(world.url)


@pytest.mark.parametrize(
    ("trouble", "expected"),
    [
        (lambda world: world.server.tokens[TOKEN].__setattr__("expired", True), TokenRefused),
        (lambda world: world.server.tokens[TOKEN].rights.clear(), RepositoryHidden),
        (lambda world: setattr(world.repo, "moved_to", "acme/new"), RepositoryMoved),
    ],
    ids=["expired token", "no right", "renamed"],
)
async def test_what_keeps_us_out_has_a_name_and_a_hint(world: World, trouble: object, expected: type[Problem]) -> None:
    trouble(world)  # type: ignore[operator]
    with pytest.raises(expected) as refused:
        await world.house.adapter(world.url).verify(world.url)
    assert refused.value.hint


@pytest.mark.parametrize(
    ("trouble", "word"),
    [
        (lambda world: setattr(world.repo, "archived", True), "archived"),
        (lambda world: world.server.tokens[TOKEN].rights.update({world.name: "read"}), "read and not write"),
        (lambda world: world.server.tokens[TOKEN].__setattr__("api_only", True), "contents"),
    ],
    ids=["archived", "read only", "no contents right"],
)
async def test_why_we_may_not_write_is_told(world: World, trouble: object, word: str) -> None:
    trouble(world)  # type: ignore[operator]
    found = await verify(world.house, world.url)
    assert (found.accessible, found.can_write) == (True, False)
    assert word in found.why_not


@pytest.mark.parametrize(
    ("trouble", "expected"),
    [
        (lambda world: setattr(world.repo, "archived", True), RepositoryArchived),
        (lambda world: world.server.tokens[TOKEN].rights.update({world.name: "read"}), RightMissing),
        (lambda world: world.server.tokens[TOKEN].__setattr__("expired", True), TokenRefused),
    ],
    ids=["archived", "read only", "expired"],
)
async def test_a_change_that_cannot_be_offered_leaves_the_pushed_branch(
    world: World, draft: Draft, trouble: object, expected: type[Problem]
) -> None:
    trouble(world)  # type: ignore[operator]
    with pytest.raises(expected) as refused:
        await world.house.adapter(world.url).open_change(draft)
    assert refused.value.hint
    assert git("rev-parse", draft.head_branch, cwd=world.origin) == draft.head_commit


async def test_a_branch_without_news_is_not_offered(world: World, draft: Draft) -> None:
    git("update-ref", "refs/heads/main", draft.head_commit, cwd=world.origin)
    with pytest.raises(NothingToReview):
        await world.house.adapter(world.url).open_change(draft)


async def test_a_rule_of_the_base_branch_is_told_and_nothing_is_forced(world: World, draft: Draft) -> None:
    forge = world.house.adapter(world.url)
    await forge.open_change(draft)
    world.repo.needs_review = True
    with pytest.raises(MergeRefused, match="approving review"):
        await forge.merge(draft, squash=False, planned=None, plan=allow)


async def test_a_change_is_a_draft_and_made_ready_when_it_is_merged(world: World, draft: Draft) -> None:
    forge = world.house.adapter(world.url)
    number = (await forge.open_change(draft)).number
    assert number
    assert world.repo.pulls[number]["draft"]
    await forge.merge(draft, squash=False, planned=None, plan=allow)
    assert not world.repo.pulls[number]["draft"]


async def test_the_operator_can_do_without_drafts(world: World, draft: Draft, tmp_path: Path) -> None:
    await world.another(tmp_path / "other", draft=False).adapter(world.url).open_change(draft)
    assert [pull["draft"] for pull in world.repo.pulls.values()] == [False]


async def test_a_deleted_fork_is_read_over(world: World, draft: Draft) -> None:
    forge = world.house.adapter(world.url)
    number = (await forge.open_change(draft)).number
    assert number
    world.repo.pulls[number]["head"]["repo"] = None
    assert await forge.landed(replace(draft, number=number), None) is None


async def test_a_change_of_a_deleted_fork_is_not_taken_for_ours(
    world: World, github: GitHubServer, draft: Draft
) -> None:
    """Anybody can name a branch of a fork like ours, and then delete the fork."""
    theirs = github.new_pull(world.name, 900, {"title": "t", "head": draft.head_branch, "base": "main"}, Token("me"))
    theirs["head"] |= {"repo": None, "sha": "e" * 40}
    world.repo.pulls[900] = theirs
    made = await world.house.adapter(world.url).open_change(draft)
    assert made.number != 900


@pytest.mark.parametrize("count", [3, 50, 60])
async def test_a_list_that_does_not_come_in_pages_is_read_once(world: World, github: GitHubServer, count: int) -> None:
    """Forgejo gives all comments of an issue at once, whatever page is asked for."""
    number = github.add_issue(world.repo)
    for one in range(count):
        github.say(world.repo, number, "me", f"comment {one}")
    github.unpaged = True
    said = await world.house.adapter(world.url).comments(world.url, number)
    assert [one.body for one in said] == [f"comment {one}" for one in range(count)]


async def test_the_text_is_the_repositorys_own_template_filled(
    world: World, database: Database, tmp_path: Path
) -> None:
    clone = cloned(world, tmp_path)
    template = "## Summary\n\n## Checklist\n- [ ] I read it\n\nFixes #\n"
    commit(clone, "template", {".github/PULL_REQUEST_TEMPLATE.md": template})
    git("push", "-q", "origin", "main", cwd=clone)
    draft = await delivered(world, tmp_path)
    await offered(world, database, draft, issue=7, evidence=[("tests", "12 passed")])
    (pull,) = world.repo.pulls.values()
    assert pull["body"].startswith("## Summary\n\nAs asked.\n")
    for part in ("- [ ] I read it", "Fixes #7", "| tests | 12 passed |", "<!-- shopfloor:order=wo-1 -->"):
        assert part in pull["body"]


async def test_a_check_that_failed_before_its_change_was_written_down_still_counts(
    world: World, database: Database, draft: Draft
) -> None:
    """A forge may tell of it while we are still recording the change, or its new commit."""
    place: dict[str, Any] = {"host": world.api_url.removeprefix("http://"), "repository": world.name, "actor": ""}
    signal = signals.Signal(kind=signals.Kind.CHECKS_FAILED, item="ci", head_commit=draft.head_commit, **place)
    async with database.transaction() as session:
        row = {"delivery_id": "hook:1", "repository_url": world.url, "event": "check_run"}
        await inbox.keep(session, **row, signal=signal)
    await hear.handle_waiting(database, world.house)
    await offered(world, database, draft)
    await hear.handle_waiting(database, world.house)
    async with database.reading() as session:
        assert (await session.get_one(Delivery, "hook:1")).work_order_id == draft.work_order_id


async def test_an_issue_is_closed_only_from_the_default_branch(world: World, database: Database, draft: Draft) -> None:
    git("branch", "release", "main", cwd=world.origin)
    await offered(world, database, replace(draft, base_branch="release"), issue=7)
    (pull,) = world.repo.pulls.values()
    assert "For #7" in pull["body"]
    assert "Closes" not in pull["body"]


async def test_what_people_wrote_into_the_text_stays_when_the_evidence_changes(
    world: World, database: Database, draft: Draft
) -> None:
    await offered(world, database, draft, evidence=[("tests", "3 failed")])
    (pull,) = world.repo.pulls.values()
    pull["body"] = "A person's words.\n" + pull["body"]
    await offered(world, database, draft, evidence=[("tests", "12 passed")])
    assert pull["body"].startswith("A person's words.\n")
    assert "12 passed" in pull["body"]
    assert "3 failed" not in pull["body"]


async def test_a_merge_made_on_the_forge_is_seen_by_the_next_look(
    world: World, database: Database, github: GitHubServer, draft: Draft
) -> None:
    change_id = await offered(world, database, draft)
    (pull,) = world.repo.pulls.values()
    made = github.merged(world.repo, github.seen(world.repo, pull))
    await aged(database, change_id, world)
    seen = await merging.refreshed(database, world.house, change_id)
    assert (seen.state, seen.merge_commit) == ("merged", made)


async def test_a_close_on_the_forge_is_seen_by_the_next_look(world: World, database: Database, draft: Draft) -> None:
    change_id = await offered(world, database, draft)
    (pull,) = world.repo.pulls.values()
    pull["state"] = "closed"
    await aged(database, change_id, world)
    assert (await merging.refreshed(database, world.house, change_id)).state == "closed"


async def aged(database: Database, change_id: str, world: World) -> None:
    change = await merging._read(database, change_id)
    await age(database, change)


async def test_a_merge_of_what_was_closed_there_is_refused(world: World, database: Database, draft: Draft) -> None:
    change_id = await offered(world, database, draft)
    (pull,) = world.repo.pulls.values()
    pull["state"] = "closed"
    with pytest.raises(ChangeWithdrawn):
        await merging.merge(database, world.house, change_id)


@pytest.mark.parametrize(("wish", "there"), [(None, False), (False, True)], ids=["as set", "asked to keep"])
async def test_the_branch_goes_after_the_merge(
    world: World, database: Database, draft: Draft, wish: bool | None, there: bool
) -> None:
    change_id = await offered(world, database, draft)
    merged = await merging.merge(database, world.house, change_id, squash=True, delete_branch=wish)
    assert merged.state == "merged"
    assert (draft.head_branch in git("branch", cwd=world.origin)) is there


async def test_a_branch_that_another_change_stands_on_stays(
    world: World, database: Database, draft: Draft, tmp_path: Path
) -> None:
    change_id = await offered(world, database, draft)
    other = await delivered(world, tmp_path, "wo-2")
    await world.house.adapter(world.url).open_change(replace(other, base_branch=draft.head_branch))
    await merging.merge(database, world.house, change_id)
    assert draft.head_branch in git("branch", cwd=world.origin)


async def test_checks_are_told(world: World, draft: Draft) -> None:
    output = {"title": "2 failed", "summary": "test_a", "text": None, "annotations_count": 0, "annotations_url": ""}
    world.repo.checks[draft.head_commit] = [
        {"name": "ci", "status": "completed", "conclusion": "failure", "output": output},
        {"name": "lint", "status": "in_progress", "conclusion": None},
    ]
    told = await world.house.adapter(world.url).checks(world.url, draft.head_commit)
    assert [(one.name, one.state) for one in told] == [("ci", "failed"), ("lint", "pending")]
    assert "test_a" in told[0].summary


@pytest.mark.parametrize(("login", "may"), [("maintainer", True), ("stranger", False), ("../x", False)])
async def test_only_people_who_may_write_may_write(world: World, login: str, may: bool) -> None:
    assert await world.house.adapter(world.url).may_write(world.url, login) is may


async def test_reviews_are_told(world: World, draft: Draft) -> None:
    forge = world.house.adapter(world.url)
    number = (await forge.open_change(draft)).number
    assert number
    world.repo.reviews[number] = [{"state": "CHANGES_REQUESTED", "body": "Please test it.", "id": 5}]
    (review,) = await forge.reviews(world.url, number)
    assert (review.verdict, review.body) == ("changes_requested", "Please test it.")


async def test_a_host_that_is_not_connected_is_plain_git(world: World) -> None:
    assert world.house.adapter("https://git.example.org/a/b").name == "plain_git"


async def test_githubs_own_program_lends_its_login(
    world: World, github: GitHubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "gh"
    folder.mkdir()
    (folder / "hosts.yml").write_text(f"{github.host.lower()}:\n    oauth_token: {TOKEN}\n    user: me\n")
    (folder / "hosts.yml").chmod(0o600)
    monkeypatch.setenv("GH_CONFIG_DIR", str(folder))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    there = world.another(tmp_path / "other", token_env="", gh_login=True)
    assert (await there.adapter(world.url).verify(world.url)).can_write
