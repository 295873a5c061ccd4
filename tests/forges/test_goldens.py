"""Golden checkouts: exact, independent, owned, pinned, evicted."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shopfloor.forges.mirrors import golden
from shopfloor.forges.service import Repositories
from shopfloor.kit.errors import Problem
from tests.forges.support import commit, sandbox
from tests.support.platform import git

NOBODY = (65534, 65534)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


async def test_a_golden_is_the_commit_and_nothing_else(house: Repositories, origin: Path, work: Path) -> None:
    base = await house.resolve(str(origin))
    ground = await house.golden(str(origin), base.commit)
    assert git("status", "--porcelain", "--ignored", cwd=ground) == ""
    assert git("rev-parse", "HEAD", cwd=ground) == base.commit
    assert (ground / "pakét/ünï code.txt").read_text() == (work / "pakét/ünï code.txt").read_text()


async def test_a_golden_has_a_detached_head_and_no_remote(house: Repositories, origin: Path) -> None:
    ground = await house.golden(str(origin), (await house.resolve(str(origin))).commit)
    assert git("branch", "--show-current", cwd=ground) == ""
    assert git("remote", cwd=ground) == ""


async def test_a_golden_shares_no_file_with_the_mirror(house: Repositories, origin: Path) -> None:
    ground = await house.golden(str(origin), (await house.resolve(str(origin))).commit)
    objects = [p for p in (ground / ".git" / "objects").rglob("*") if p.is_file()]
    assert objects
    assert all(p.stat().st_nlink == 1 for p in objects)
    assert not (ground / ".git" / "objects" / "info" / "alternates").exists()


async def test_a_golden_knows_tags_and_the_origins_branches(house: Repositories, work: Path) -> None:
    git("tag", "-a", "v1.0", "-m", "one", cwd=work)
    ground = await house.golden(str(work), (await house.resolve(str(work))).commit)
    assert git("describe", cwd=ground) == "v1.0"
    assert git("rev-parse", "origin/main", cwd=ground) == git("rev-parse", "HEAD", cwd=ground)


async def test_a_golden_holds_nothing_of_other_orders(house: Repositories, origin: Path) -> None:
    box = await sandbox(house, origin)
    head = box.commit("secret of order one")
    await house.import_bundle(str(origin), box.bundle(), **box.request())
    ground = await house.golden(str(origin), box.base, owner=(os.geteuid(), os.getegid()))
    with pytest.raises(Exception, match="cat-file"):
        git("cat-file", "-e", head, cwd=ground)


async def test_a_warm_golden_costs_milliseconds(house: Repositories, origin: Path) -> None:
    base = await house.resolve(str(origin))
    await house.golden(str(origin), base.commit)
    began = time.perf_counter()
    for _ in range(20):
        await house.golden(str(origin), base.commit)
    assert (time.perf_counter() - began) / 20 < 0.05


@needs_root
async def test_a_golden_belongs_to_its_owner_links_included(house: Repositories, work: Path) -> None:
    (work / "link").symlink_to("/etc/passwd")
    commit(work, "link")
    owner = Path("/etc/passwd").stat().st_uid
    ground = await house.golden(str(work), (await house.resolve(str(work))).commit, NOBODY)
    assert {p.lstat().st_uid for p in (ground, *ground.rglob("*"))} == {NOBODY[0]}
    assert Path("/etc/passwd").stat().st_uid == owner


async def test_a_golden_from_before_the_last_boot_is_made_anew(
    house: Repositories, origin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = await house.resolve(str(origin))
    ground = await house.golden(str(origin), base.commit)
    (ground / "app.py").write_text("")
    monkeypatch.setattr(golden, "_boot", lambda: "another boot")
    assert (await house.golden(str(origin), base.commit) / "app.py").read_text() == "print('hello')\n"


async def test_a_pinned_golden_survives_eviction_and_a_restart(house: Repositories, origin: Path) -> None:
    base = await house.resolve(str(origin))
    ground = await house.golden(str(origin), base.commit)
    await house.pin(str(origin), ground, "local-wo-1-1")
    await Repositories(house.root).evict(str(origin), keep=0, unused_for=0)
    assert ground.is_dir()


async def test_an_unpinned_golden_is_evicted_and_comes_back(house: Repositories, origin: Path) -> None:
    base = await house.resolve(str(origin))
    ground = await house.golden(str(origin), base.commit)
    await house.pin(str(origin), ground, "local-wo-1-1")
    await house.unpin(str(origin), "local-wo-1-1")
    assert await house.evict(str(origin), keep=0, unused_for=0) == [ground]
    assert (await house.golden(str(origin), base.commit)).is_dir()


async def test_the_last_used_goldens_are_kept(house: Repositories, work: Path) -> None:
    grounds = []
    for number in range(3):
        grounds.append(await house.golden(str(work), commit(work, f"{number}")))
        os.utime(house.place(str(work)).pins / f"{grounds[-1].name}.used", (number, number))
    assert await house.evict(str(work), keep=1, unused_for=0) == [grounds[1], grounds[0]]


@pytest.fixture
async def grounds(house: Repositories, origin: Path, work: Path) -> list[Path]:
    """A golden of each of two repositories."""
    return [await house.golden(str(place), (await house.resolve(str(place))).commit) for place in (origin, work)]


async def test_goldens_of_every_repository_on_disk_are_evicted(house: Repositories, grounds: list[Path]) -> None:
    another = Repositories(house.root)
    assert sorted(await another.evict_all(keep=0, unused_for=0)) == sorted(grounds)
    assert await another.evict_all(keep=0, unused_for=0) == []


def no_label(folder: Path) -> None:
    (folder / "url").unlink()


def bad_label(folder: Path) -> None:
    (folder / "url").write_bytes(b"\xff\x00")


def another_label(folder: Path) -> None:
    (folder / "url").write_text("ext::sh -c x")


def no_pins(folder: Path) -> None:
    shutil.rmtree(folder / "pins")
    (folder / "pins").write_text("not a folder")


@pytest.mark.parametrize("spoil", [no_label, bad_label, another_label, no_pins])
async def test_a_spoilt_repository_keeps_no_other_from_eviction(
    house: Repositories, grounds: list[Path], origin: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(house.place(str(origin)).folder)
    assert await house.evict_all(keep=0, unused_for=0) == [grounds[1]]
    assert grounds[0].exists()


async def test_a_busy_repository_keeps_no_other_from_eviction(
    house: Repositories, grounds: list[Path], origin: Path
) -> None:
    for busy in (house, Repositories(house.root)):
        async with busy.place(str(origin)).locked("goldens"):
            began = time.monotonic()
            gone = await house.evict_all(keep=0, unused_for=0)
        assert time.monotonic() - began < 20
        assert grounds[0] not in gone
    assert not grounds[1].exists()


async def test_eviction_makes_no_folder_and_touches_nothing_else(house: Repositories, grounds: list[Path]) -> None:
    (house.root / "probe.git").mkdir()
    (house.root / ("f" * 32)).write_text("a file")
    before = sorted(path.name for path in house.root.iterdir())
    await house.evict_all(keep=9)
    assert sorted(path.name for path in house.root.iterdir()) == before
    assert all(ground.exists() for ground in grounds)


async def test_a_house_without_any_repository_has_nothing_to_evict(tmp_path: Path) -> None:
    assert await Repositories(tmp_path / "nothing").evict_all() == []


async def test_pinning_what_is_gone_says_so(house: Repositories, origin: Path) -> None:
    await house.resolve(str(origin))
    with pytest.raises(golden.GoldenGone):
        await house.pin(str(origin), house.place(str(origin)).goldens / ("0" * 40), "local-wo-1-1")


@pytest.mark.parametrize("sandbox_id", ["../x", "", ".hidden", "a/b", "*"])
async def test_a_sandbox_id_is_no_path(house: Repositories, origin: Path, sandbox_id: str) -> None:
    ground = await house.golden(str(origin), (await house.resolve(str(origin))).commit)
    with pytest.raises(Problem):
        await house.pin(str(origin), ground, sandbox_id)


@pytest.mark.parametrize("name", ["main", "../../x", "HEAD", "", "-x", "0" * 39])
async def test_a_golden_is_asked_for_by_full_hash_only(house: Repositories, origin: Path, name: str) -> None:
    with pytest.raises(golden.NotACommit):
        await house.golden(str(origin), name)


async def test_a_golden_of_a_merge_that_only_this_host_has_holds_that_merge_and_no_more(
    house: Repositories, origin: Path
) -> None:
    one, two = await sandbox(house, origin), await sandbox(house, origin, "wo-2")
    base, mine = one.base, one.commit("one", {"one.txt": "1\n"})
    others = two.commit("two", {"two.txt": "2\n"})
    for box in (one, two):
        await house.import_bundle(str(origin), box.bundle(), **box.request())
    merged = await house.mergeable(str(origin), base, mine)
    commit_ = await house.commit_merge(str(origin), merged.tree, (base, mine), "both")
    ground = await house.golden(str(origin), commit_)
    assert (ground / "one.txt").read_text() == "1\n"
    with pytest.raises(Exception, match="cat-file"):
        git("cat-file", "-e", others, cwd=ground)
