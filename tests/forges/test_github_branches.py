"""Odd branches and sizes on a connected forge: letters of any language, rewritten bases, huge diffs."""

from dataclasses import replace
from pathlib import Path

import pytest

from shopfloor.forges.port import Draft
from shopfloor.forges.steps import merge as merging
from shopfloor.kit.db import Database
from shopfloor.kit.errors import Problem
from tests.forges.support import commit
from tests.forges.test_github import cloned, draft, github, offered, world
from tests.forges.worlds import World, delivered
from tests.support.platform import git

__all__ = ["draft", "github", "world"]


async def test_a_base_with_letters_of_any_language_is_merged_into(
    world: World, database: Database, tmp_path: Path
) -> None:
    git("branch", "größe/日本", "main", cwd=world.origin)
    draft = replace(await delivered(world, tmp_path), base_branch="größe/日本")
    await merging.merge(database, world.house, await offered(world, database, draft))
    assert git("rev-list", "--count", "--merges", "größe/日本", cwd=world.origin) == "1"


async def test_a_base_that_was_force_pushed_is_merged_into_as_it_is_now(
    world: World, database: Database, tmp_path: Path
) -> None:
    clone = cloned(world, tmp_path)
    commit(clone, "second", {"second.txt": "2\n"})
    git("push", "-q", "origin", "main", cwd=clone)
    change_id = await offered(world, database, await delivered(world, tmp_path))
    git("reset", "-q", "--hard", "HEAD~1", cwd=clone)
    now = commit(clone, "rewritten", {"other.txt": "3\n"})
    git("push", "-qf", "origin", "main", cwd=clone)
    merged = await merging.merge(database, world.house, change_id)
    assert git("rev-parse", f"{merged.merge_commit}^1", cwd=world.origin) == now


async def test_a_base_with_another_history_is_refused_with_a_hint_and_stays(
    world: World, database: Database, draft: Draft, tmp_path: Path
) -> None:
    change_id = await offered(world, database, draft)
    clone = cloned(world, tmp_path)
    git("commit", "-q", "--amend", "-m", "rewritten", cwd=clone)
    git("push", "-qf", "origin", "main", cwd=clone)
    with pytest.raises(Problem) as refused:
        await merging.merge(database, world.house, change_id)
    assert refused.value.hint
    assert git("rev-parse", "main", cwd=world.origin) == git("rev-parse", "HEAD", cwd=clone)


async def test_a_huge_diff_is_offered_and_shown_in_part(world: World, database: Database, tmp_path: Path) -> None:
    draft = await delivered(world, tmp_path, files={"big.txt": "a line of some length\n" * 400_000})
    await offered(world, database, draft)
    shown = await world.house.diff(world.url, draft.base_commit, draft.head_commit)
    assert shown.truncated
    assert len(world.repo.pulls) == 1


async def test_a_request_longer_than_github_takes_is_cut(world: World, draft: Draft) -> None:
    await world.house.adapter(world.url).open_change(replace(draft, title="t" * 900, body="b" * 90_000))
    (pull,) = world.repo.pulls.values()
    assert (len(pull["title"]), len(pull["body"])) == (250, 65000)
