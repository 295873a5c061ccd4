"""Links, submodules, pointers and messages of a hostile commit are shown as they are and followed nowhere."""

import os
from pathlib import Path

import pytest

from shopfloor.forges.mirrors import reading
from shopfloor.forges.service import Repositories
from tests.forges.support import Sandbox, commit, secret
from tests.support.platform import git


@pytest.fixture
def linked_secret(work: Path, place: Path) -> str:
    """A commit whose files are links to a secret of the host."""
    (place / "secret").write_text("HOST-SECRET")
    for name in ("notes.md", ".claude/commands/plan.md"):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).symlink_to(place / "secret")
    return commit(work, "links")


async def test_links_are_no_commands(house: Repositories, work: Path, linked_secret: str) -> None:
    await house.mirror(str(work))
    assert await house.commands(str(work), linked_secret) == {}


async def test_a_golden_holds_the_link_and_not_what_it_points_to(
    house: Repositories, work: Path, linked_secret: str
) -> None:
    await house.mirror(str(work))
    ground = await house.golden(str(work), linked_secret)
    assert (ground / "notes.md").is_symlink()


async def test_submodules_are_not_fetched(house: Repositories, work: Path, place: Path) -> None:
    other = secret(place)
    git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(other), "lib", cwd=work)
    commit(work, "submodule")
    ground = await house.golden(str(work), (await house.resolve(str(work))).commit)
    assert os.listdir(ground / "lib") == []


async def test_large_file_pointers_stay_pointers(house: Repositories, work: Path) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 5\n"
    commit(work, "lfs", {".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n", "a.bin": pointer})
    ground = await house.golden(str(work), (await house.resolve(str(work))).commit)
    assert (ground / "a.bin").read_text() == pointer


async def test_an_agents_commit_message_cannot_paint_the_terminal(
    house: Repositories, origin: Path, box: Sandbox
) -> None:
    head = box.commit("\x1b[2J\x1b]0;owned\x07 fine")
    await house.import_bundle(str(origin), box.bundle(), **box.request())
    assert "\x1b" not in ((await house.progress(str(origin), head, box.base)).latest_commit_message or "")


@pytest.mark.parametrize("seconds", ["99999999999999", "-99999999999999", "", "x"])
def test_a_commit_from_another_age_does_no_harm(seconds: str) -> None:
    assert 1970 <= reading._instant(seconds).year <= 9999
