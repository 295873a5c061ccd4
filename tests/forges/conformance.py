"""What every forge must do, whatever stands behind it. Each test takes a `world`."""

from dataclasses import replace
from pathlib import Path

import pytest

from shopfloor.forges.port import BaseGone, BranchMoved, ChangeWithdrawn, HeadMoved, NotMergeable, NotOffered
from shopfloor.kit.errors import Conflict, Problem
from tests.forges.support import Sandbox, commit
from tests.forges.worlds import World, allow, delivered, pushed
from tests.support.platform import git


async def test_access_is_told(world: World) -> None:
    access = await world.house.adapter(world.url).verify(world.url)
    assert (access.default_branch, access.can_write, access.why_not) == ("main", True, "")


async def test_a_change_is_offered_once_however_often(world: World, tmp_path: Path) -> None:
    forge, draft = world.house.adapter(world.url), await delivered(world, tmp_path)
    first = await forge.open_change(draft)
    assert await forge.open_change(draft) == first
    assert not world.server or len(world.repo.pulls) == 1


async def test_a_later_commit_comes_into_the_same_change(world: World, tmp_path: Path) -> None:
    forge, base = world.house.adapter(world.url), await world.house.resolve(world.url)
    box = Sandbox(await world.house.golden(world.url, base.commit), tmp_path / "box")
    first = await forge.open_change(await pushed(world, box, {"a.txt": "1\n"}))
    again = await forge.open_change(await pushed(world, box, {"a.txt": "2\n"}))
    assert again == first


@pytest.mark.parametrize("squash", [False, True])
async def test_a_merge_brings_the_work_to_the_base(world: World, tmp_path: Path, squash: bool) -> None:
    forge, draft = world.house.adapter(world.url), await delivered(world, tmp_path)
    draft = replace(draft, number=(await forge.open_change(draft)).number)
    made = await forge.merge(draft, squash=squash, planned=None, plan=allow)
    parents = git("rev-list", "--parents", "-n1", "main", cwd=world.origin).split()[1:]
    assert made == git("rev-parse", "main", cwd=world.origin)
    assert len(parents) == (1 if squash else 2)


async def test_a_merge_after_a_crash_is_finished_and_not_made_twice(world: World, tmp_path: Path) -> None:
    forge, draft = world.house.adapter(world.url), await delivered(world, tmp_path)
    await forge.open_change(draft)
    plans: list[str] = []

    async def plan(commit: str) -> None:
        plans.append(commit)

    made = await forge.merge(draft, squash=False, planned=None, plan=plan)
    assert await forge.landed(draft, plans[0]) == made
    assert await forge.merge(draft, squash=False, planned=plans[0], plan=plan) == made
    assert git("rev-list", "--count", "--merges", "main", cwd=world.origin) == "1"


async def test_what_was_not_merged_has_not_landed(world: World, tmp_path: Path) -> None:
    forge, draft = world.house.adapter(world.url), await delivered(world, tmp_path)
    await forge.open_change(draft)
    assert await forge.landed(draft, draft.head_commit) is None
    assert not await forge.withdrawn(draft)


async def test_a_forbidden_plan_merges_nothing(world: World, tmp_path: Path) -> None:
    class Forbidden(Conflict):
        """No."""

    async def plan(commit: str) -> None:
        raise Forbidden

    forge, draft = world.house.adapter(world.url), await delivered(world, tmp_path)
    await forge.open_change(draft)
    before = git("rev-parse", "main", cwd=world.origin)
    with pytest.raises(Forbidden):
        await forge.merge(draft, squash=False, planned=None, plan=plan)
    assert git("rev-parse", "main", cwd=world.origin) == before


async def test_a_head_that_moved_is_not_merged(world: World, tmp_path: Path) -> None:
    forge, draft = world.house.adapter(world.url), await delivered(world, tmp_path)
    await forge.open_change(draft)
    git("update-ref", f"refs/heads/{draft.head_branch}", "main", cwd=world.origin)
    with pytest.raises(HeadMoved):
        await forge.merge(draft, squash=False, planned=None, plan=allow)


async def test_a_conflict_is_named(world: World, tmp_path: Path) -> None:
    forge, draft = world.house.adapter(world.url), await delivered(world, tmp_path, files={"app.py": "ours\n"})
    await forge.open_change(draft)
    clone = tmp_path / "clone"
    git("clone", "-q", str(world.origin), str(clone), cwd=tmp_path)
    commit(clone, "theirs", {"app.py": "theirs\n"})
    git("push", "-q", "origin", "main", cwd=clone)
    with pytest.raises(NotMergeable) as refused:
        await forge.merge(draft, squash=False, planned=None, plan=allow)
    assert refused.value.facts["conflicts"] == ["app.py"]


async def test_a_base_that_is_gone_is_told(world: World, tmp_path: Path) -> None:
    forge, draft = world.house.adapter(world.url), await delivered(world, tmp_path)
    gone = replace(draft, base_branch="release")

    async def offered_and_merged() -> None:
        await forge.open_change(gone)
        await forge.merge(gone, squash=False, planned=None, plan=allow)

    with pytest.raises(BaseGone):
        await offered_and_merged()


async def test_a_closed_change_stays_closed(world: World, tmp_path: Path) -> None:
    forge, draft = world.house.adapter(world.url), await delivered(world, tmp_path)
    await forge.open_change(draft)
    await forge.close(draft)
    await forge.close(draft)
    if forge.pages:
        assert await forge.withdrawn(draft)
        with pytest.raises(ChangeWithdrawn):
            await forge.merge(draft, squash=False, planned=None, plan=allow)


async def test_a_branch_is_removed_once_and_only_where_it_was_seen(world: World, tmp_path: Path) -> None:
    draft = await delivered(world, tmp_path)
    with pytest.raises(BranchMoved):
        await world.house.delete_branch(world.url, draft.head_branch, draft.base_commit)
    for _ in range(2):
        await world.house.delete_branch(world.url, draft.head_branch, draft.head_commit)
    assert draft.head_branch not in git("branch", cwd=world.origin)


async def test_a_branch_that_others_stand_on_is_known(world: World, tmp_path: Path) -> None:
    forge, draft = world.house.adapter(world.url), await delivered(world, tmp_path)
    await forge.open_change(draft)
    assert not await forge.base_of_others(draft)
    if forge.pages:
        await forge.open_change(replace(await delivered(world, tmp_path, "wo-2"), base_branch=draft.head_branch))
        assert await forge.base_of_others(draft)


async def test_something_is_said_once_and_edited_in_place(world: World) -> None:
    forge = world.house.adapter(world.url)
    if not forge.pages:
        with pytest.raises(NotOffered):
            await forge.comment(world.url, 1, "half done", marker="<!-- m -->")
        return
    assert world.server
    number = world.server.add_issue(world.repo)
    world.server.say(world.repo, number, "mallory", "<!-- m --> I was first")
    first = await forge.comment(world.url, number, "half done", marker="<!-- m -->")
    again = await forge.comment(world.url, number, "all done", marker="<!-- m -->")
    said = await forge.comments(world.url, number)
    assert first.comment_id == again.comment_id
    assert [one.body.partition("\n")[0] for one in said] == ["<!-- m --> I was first", "all done"]


async def test_issues_are_read(world: World) -> None:
    forge = world.house.adapter(world.url)
    if not forge.pages:
        assert await forge.issues(world.url) == ()
        return
    assert world.server
    number = world.server.add_issue(world.repo, title="Zürich — broken 🔥")
    assert (await forge.issue(world.url, number)).title == "Zürich — broken 🔥"
    assert [one.number for one in await forge.issues(world.url)] == [number]


async def test_an_unknown_issue_is_a_problem_with_a_hint(world: World) -> None:
    with pytest.raises(Problem) as refused:
        await world.house.adapter(world.url).issue(world.url, 4711)
    assert refused.value.hint


async def test_a_place_in_a_review_is_answered_once(world: World, tmp_path: Path) -> None:
    forge = world.house.adapter(world.url)
    if not forge.pages:
        assert await forge.threads(world.url, 1, "9") == ()
        return
    number = (await forge.open_change(await delivered(world, tmp_path))).number or 0
    thread = {"id": 31, "body": "Why?", "path": "a.txt", "line": 3, "pull_request_review_id": 9}
    world.repo.threads[number] = [thread, thread | {"id": 32, "pull_request_review_id": 8}]
    (found,) = await forge.threads(world.url, number, "9")
    assert (found.comment_id, found.path, found.body) == (31, "a.txt", "Why?")
    for _ in range(2):
        await forge.reply(world.url, number, 31, "Done.", marker="<!-- shopfloor:reply=9-31 -->")
    said = [one["body"] for one in (*world.repo.threads[number], *world.repo.comments.values())]
    assert sum("Done." in text for text in said) == 1
