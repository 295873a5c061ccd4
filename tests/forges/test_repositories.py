"""Mirrors, goldens, imports, progress and pushes on honest repositories."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from shopfloor.forges.mirrors import bundles, reading
from shopfloor.forges.mirrors.bundles import BundleRefused
from shopfloor.forges.mirrors.mirror import EmptyRepository, NoDefaultBranch, UnknownBase
from shopfloor.forges.mirrors.pushing import BranchCheckedOut
from shopfloor.forges.mirrors.sources import LocalRepositoryNotFound, ProtocolNotAllowed
from shopfloor.forges.port import BranchMoved
from shopfloor.forges.rules import findings
from shopfloor.forges.service import Repositories
from tests.forges.support import Sandbox, bare, commit, order_head, repository, sandbox
from tests.support.platform import folder, git

NOBODY = (65534, 65534)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


async def test_the_default_branch_is_where_head_points(house: Repositories, work: Path) -> None:
    git("switch", "-q", "-c", "Trunk/ü", cwd=work)
    tip = commit(work, "on trunk")
    assert vars(await house.resolve(str(work))) == {"branch": "Trunk/ü", "commit": tip}


@pytest.mark.parametrize("kind", ["branch", "tag", "annotated", "sha", "short", "origin/", "refs/heads/"])
async def test_a_base_may_be_named_in_many_ways(house: Repositories, work: Path, kind: str) -> None:
    first = git("rev-parse", "HEAD", cwd=work)
    git("branch", "old", cwd=work)
    git("tag", "v1", cwd=work)
    git("tag", "-a", "v2", "-m", "two", cwd=work)
    commit(work, "second")
    names = {"branch": "old", "tag": "v1", "annotated": "v2", "sha": first, "short": first[:8]}
    wanted = names.get(kind, f"{kind}old")
    assert (await house.resolve(str(work), wanted)).commit == first


async def test_an_unknown_base_names_its_neighbours(house: Repositories, work: Path) -> None:
    git("branch", "release-1.2", cwd=work)
    with pytest.raises(UnknownBase) as caught:
        await house.resolve(str(work), "relaese-1.2")
    assert "release-1.2" in caught.value.hint


@pytest.mark.parametrize("base", ["--upload-pack=x", "main..x", "$(id)", "HEAD@{1}", ":/first", "main^{/x}"])
async def test_a_base_is_a_name_and_no_expression(house: Repositories, work: Path, base: str) -> None:
    with pytest.raises(UnknownBase):
        await house.resolve(str(work), base)


async def test_an_empty_repository_says_so(house: Repositories, place: Path) -> None:
    git("init", "-q", "empty", cwd=place)
    with pytest.raises(EmptyRepository):
        await house.resolve(str(place / "empty"))


async def test_a_detached_head_between_branches_asks_for_one(house: Repositories, work: Path) -> None:
    git("branch", "other", cwd=work)
    git("switch", "-q", "--detach", cwd=work)
    commit(work, "nowhere")
    with pytest.raises(NoDefaultBranch):
        await house.resolve(str(work))


async def test_no_repository_at_a_path_says_so(house: Repositories, place: Path) -> None:
    with pytest.raises(LocalRepositoryNotFound):
        await house.resolve(str(place))


async def test_a_protocol_that_is_not_enabled_is_refused_before_anything_runs(house: Repositories) -> None:
    with pytest.raises(ProtocolNotAllowed, match="ssh"):
        await house.resolve("git@github.com:owner/name.git")


async def test_a_new_commit_is_seen_at_once(house: Repositories, work: Path) -> None:
    await house.resolve(str(work))
    tip = commit(work, "second")
    assert (await house.resolve(str(work))).commit == tip


async def test_a_branch_that_is_gone_makes_room(house: Repositories, work: Path) -> None:
    git("branch", "feat", cwd=work)
    await house.resolve(str(work))
    git("branch", "-m", "feat", "feat/x", cwd=work)
    assert (await house.resolve(str(work), "feat/x")).branch == "feat/x"


async def test_nothing_is_fetched_when_nothing_changed(house: Repositories, work: Path) -> None:
    await house.resolve(str(work))
    packs = house.place(str(work)).mirror / "objects" / "pack"
    before = packs.stat().st_mtime_ns
    await house.resolve(str(work))
    assert packs.stat().st_mtime_ns == before


async def test_many_fetches_leave_few_packs(house: Repositories, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shopfloor.forges.mirrors.mirror.PACKS", 3)
    for number in range(8):
        tip = commit(work, f"{number}")
        await house.resolve(str(work))
    packs = list((house.place(str(work)).mirror / "objects" / "pack").glob("*.pack"))
    assert len(packs) <= 4
    assert await house.golden(str(work), tip)


async def test_what_a_killed_fetch_had_begun_to_take_in_is_removed_by_the_next(house: Repositories, work: Path) -> None:
    """A slow origin's fetch is cut off by every look at it."""
    mirror = await house.mirror(str(work))
    part = mirror / "objects" / "pack" / "tmp_pack_hUx7Qa"
    part.write_bytes(b"half of it")
    commit(work, "second")
    await house.sync(str(work))
    assert not part.exists()


async def test_a_repository_with_sha256_works_to_the_end(house: Repositories, place: Path) -> None:
    place.joinpath("wide").mkdir()
    git("init", "-q", "--object-format=sha256", cwd=place / "wide")
    commit(place / "wide", "first", {"a": "a"})
    box = await sandbox(house, bare(place / "wide", place / "wide.git"))
    head = box.commit()
    await house.import_bundle(str(place / "wide.git"), box.bundle(), **box.request())
    assert (await house.push(str(place / "wide.git"), head, box.branch)).updated


async def test_a_bundle_becomes_the_orders_branch(house: Repositories, origin: Path) -> None:
    box = await sandbox(house, origin)
    head = box.commit()
    taken = await house.import_bundle(str(origin), box.bundle(), **box.request())
    assert (taken.head, taken.commits, taken.moved) == (head, 1, True)
    assert await order_head(house, origin, box) == head


async def test_importing_twice_changes_nothing(house: Repositories, origin: Path) -> None:
    box = await sandbox(house, origin)
    box.commit()
    first = await house.import_bundle(str(origin), box.bundle(), **box.request())
    second = await house.import_bundle(str(origin), box.bundle(), **box.request())
    assert (second.head, second.moved) == (first.head, False)


async def test_an_old_bundle_that_comes_late_does_not_move_the_branch_back(house: Repositories, origin: Path) -> None:
    box = await sandbox(house, origin)
    box.commit("one", {"1": "1"})
    early = box.bundle()
    head = box.commit("two", {"2": "2"})
    await house.import_bundle(str(origin), box.bundle(), **box.request())
    await house.import_bundle(str(origin), early, **box.request())
    assert await order_head(house, origin, box) == head


async def test_a_rewritten_branch_leaves_the_old_work_pinned(house: Repositories, origin: Path) -> None:
    box = await sandbox(house, origin)
    old = box.commit("one", {"1": "1"})
    await house.import_bundle(str(origin), box.bundle(), **box.request())
    git("reset", "-q", "--hard", box.base, cwd=box.work)
    box.commit("other", {"2": "2"})
    await house.import_bundle(str(origin), box.bundle(), **box.request())
    assert git("rev-parse", f"refs/shopfloor/pins/wo-1/{old}", cwd=house.place(str(origin)).orders) == old


async def test_a_bundle_that_names_only_head_is_taken(house: Repositories, origin: Path) -> None:
    box = await sandbox(house, origin)
    head = box.commit()
    taken = await house.import_bundle(str(origin), box.bundle(f"{box.base}..HEAD"), **box.request())
    assert taken.head == head


async def test_progress_is_what_git_counts(house: Repositories, origin: Path) -> None:
    box = await sandbox(house, origin)
    box.commit("planning: think\n\nShopfloor-Phase: planning", {})
    box.commit("build\n\nShopfloor-Phase: implementing", {"README.md": "# Sample\nmore\nand more\n", "b.bin": "\0\1"})
    head = box.commit("cut\n\nShopfloor-Phase: implementing", {"app.py": ""})
    await house.import_bundle(str(origin), box.bundle(), **box.request())
    seen = await house.progress(str(origin), head, box.base)
    assert (seen.git_commit_count, seen.git_files_changed, seen.git_lines_added, seen.git_lines_removed) == (3, 3, 2, 1)
    assert [(s.phase, s.commits) for s in seen.phase_history] == [("planning", 1), ("implementing", 2)]
    assert (seen.latest_commit_sha, (seen.latest_commit_message or "").splitlines()[0]) == (head, "cut")


async def test_progress_without_a_head_is_nothing(house: Repositories, origin: Path) -> None:
    assert (await house.progress(str(origin), None, None)).git_commit_count == 0


async def test_commands_are_read_at_their_commit(house: Repositories, work: Path) -> None:
    files = {
        ".claude/commands/plan.md": "Plan: ä",
        ".claude/commands/notes.txt": "no",
        ".claude/commands/sub/x.md": "no",
    }
    tip = commit(work, "commands", files)
    await house.mirror(str(work))
    assert await house.commands(str(work), tip) == {"plan": "Plan: ä"}


async def test_a_long_diff_is_cut_and_says_so(
    house: Repositories, origin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = await sandbox(house, origin)
    head = box.commit("big", {"big.txt": "line\n" * 2_000_000})
    await house.import_bundle(str(origin), box.bundle(), **box.request())
    shown = await house.diff(str(origin), box.base, head)
    assert shown.truncated
    assert shown.text.startswith("diff --git a/big.txt")


async def test_conflicts_are_named(house: Repositories, origin: Path, work: Path) -> None:
    box = await sandbox(house, origin)
    head = box.commit("mine", {"app.py": "mine\n"})
    await house.import_bundle(str(origin), box.bundle(), **box.request())
    theirs = commit(work, "theirs", {"app.py": "theirs\n"})
    git("push", "-q", str(origin), "main", cwd=work)
    await house.sync(str(origin))
    merged = await house.mergeable(str(origin), theirs, head)
    assert (merged.clean, merged.conflicts) == (False, ["app.py"])


async def delivered(house: Repositories, origin: Path) -> tuple[Sandbox, str]:
    box = await sandbox(house, origin)
    head = box.commit()
    await house.import_bundle(str(origin), box.bundle(), **box.request())
    await house.push(str(origin), head, box.branch)
    return box, head


async def test_a_push_arrives_at_the_origin(house: Repositories, origin: Path) -> None:
    box, head = await delivered(house, origin)
    assert git("rev-parse", box.branch, cwd=origin) == head


async def test_pushing_again_is_no_push(house: Repositories, origin: Path) -> None:
    box, head = await delivered(house, origin)
    assert not (await house.push(str(origin), head, box.branch)).updated


async def test_our_own_branch_may_be_rewritten(house: Repositories, origin: Path) -> None:
    box, _ = await delivered(house, origin)
    git("reset", "-q", "--hard", box.base, cwd=box.work)
    other = box.commit("another way")
    await house.import_bundle(str(origin), box.bundle(), **box.request())
    await house.push(str(origin), other, box.branch)
    assert git("rev-parse", box.branch, cwd=origin) == other


async def test_work_that_somebody_else_pushed_is_not_overwritten(house: Repositories, origin: Path, work: Path) -> None:
    box, _ = await delivered(house, origin)
    theirs = commit(work, "theirs")
    git("push", "-q", "-f", str(origin), f"HEAD:{box.branch}", cwd=work)
    head = box.commit("more")
    await house.import_bundle(str(origin), box.bundle(), **box.request())
    with pytest.raises(BranchMoved):
        await house.push(str(origin), head, box.branch)
    assert git("rev-parse", box.branch, cwd=origin) == theirs


async def test_a_lease_that_no_longer_holds_pushes_nothing(house: Repositories, origin: Path, work: Path) -> None:
    box, head = await delivered(house, origin)
    theirs = commit(work, "theirs")
    git("push", "-q", str(origin), "main", cwd=work)
    with pytest.raises(BranchMoved):
        await house.push(str(origin), head, "main", expected_old=box.base)
    assert git("rev-parse", "main", cwd=origin) == theirs


async def test_a_branch_that_is_checked_out_explains_itself(house: Repositories, work: Path) -> None:
    box = await sandbox(house, work)
    head = box.commit()
    await house.import_bundle(str(work), box.bundle(), **box.request())
    with pytest.raises(BranchCheckedOut) as caught:
        await house.push(str(work), head, "main")
    assert "git switch --detach" in caught.value.hint


async def test_the_persons_files_are_untouched_by_a_delivery_to_their_clone(house: Repositories, work: Path) -> None:
    await delivered(house, work)
    assert git("status", "--porcelain", cwd=work) == ""
    assert git("branch", "--show-current", cwd=work) == "main"


@needs_root
async def test_a_users_repository_stays_the_users() -> None:
    with folder() as open_to_all:
        work = give(repository(open_to_all / "work"))
        await delivered(Repositories(open_to_all / "repositories"), work)
        assert {p.lstat().st_uid for p in (work / ".git").rglob("*")} == {NOBODY[0]}


@needs_root
async def test_a_users_repository_below_roots_own_folders_is_read(house: Repositories, work: Path, place: Path) -> None:
    place.chmod(0o700)
    assert (await house.resolve(str(give(work)))).branch == "main"


def give(work: Path) -> Path:
    for path in (work, *work.rglob("*")):
        os.chown(path, *NOBODY, follow_symlinks=False)
    return work


async def test_twenty_orders_at_once_on_one_repository(house: Repositories, origin: Path) -> None:
    neighbour = Repositories(house.root, protocols=house.protocols)

    async def order(number: int) -> str:
        host = (house, neighbour)[number % 2]
        box = await sandbox(host, origin, f"wo-{number}")
        head = await asyncio.to_thread(box.commit, f"work {number}")
        bundle = await asyncio.to_thread(box.bundle)
        await host.import_bundle(str(origin), bundle, **box.request())
        assert (await host.progress(str(origin), head, box.base)).git_commit_count == 1
        await host.push(str(origin), head, box.branch)
        await host.unpin(str(origin), f"local-wo-{number}-1")
        return head

    heads = await asyncio.gather(*(order(number) for number in range(20)))
    assert [git("rev-parse", f"feat-wo-{n}", cwd=origin) for n in range(20)] == heads


async def test_two_addresses_never_share_a_folder(house: Repositories, origin: Path, work: Path) -> None:
    assert house.place(str(origin)).folder != house.place(str(work)).folder


async def test_what_killed_processes_left_is_swept(house: Repositories, origin: Path) -> None:
    await house.resolve(str(origin))
    left = house.place(str(origin)).temporary / "left"
    shutil.copytree(origin, left)
    await house.evict(str(origin))
    assert not left.exists()


async def test_a_folder_in_use_is_not_swept(house: Repositories, origin: Path) -> None:
    async with house.place(str(origin)).scratch() as mine:
        await house.evict(str(origin))
        assert mine.exists()


async def test_no_temporary_folder_is_left_behind(house: Repositories, origin: Path) -> None:
    await delivered(house, origin)
    assert list(house.place(str(origin)).temporary.iterdir()) == []


async def test_a_stale_lock_of_a_killed_git_is_no_obstacle(house: Repositories, origin: Path, work: Path) -> None:
    await house.resolve(str(origin))
    (house.place(str(origin)).mirror / "refs" / "heads" / "main.lock").touch()
    (house.place(str(origin)).mirror / "packed-refs.lock").touch()
    tip = commit(work, "next")
    git("push", "-q", str(origin), "main", cwd=work)
    assert (await house.resolve(str(origin))).commit == tip


async def test_an_import_of_an_unknown_base_is_refused(house: Repositories, origin: Path) -> None:
    box = await sandbox(house, origin)
    box.commit()
    with pytest.raises(BundleRefused):
        await house.import_bundle(str(origin), box.bundle(), order_id="wo-1", branch=box.branch, base_commit="1" * 40)


async def test_a_bundle_is_measured_before_it_is_read(
    house: Repositories, origin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = await sandbox(house, origin)
    box.commit("big", {"big": os.urandom(200_000).hex()})
    monkeypatch.setattr(bundles, "MAX_BUNDLE", 10_000)
    with pytest.raises(bundles.BundleTooLarge):
        await house.import_bundle(str(origin), box.bundle(), **box.request())


async def test_the_policy_lets_honest_work_pass(house: Repositories, origin: Path) -> None:
    box = await sandbox(house, origin)
    head = box.commit("honest", {"src/a.py": "a", ".github/workflows/ci.yml": "on: push"})
    await house.import_bundle(str(origin), box.bundle(), **box.request())
    assert [f.rule for f in await house.check_policy(str(origin), box.base, head)] == ["workflow_file"]


async def test_a_file_is_measured_for_each_of_its_names(house: Repositories, origin: Path) -> None:
    """A commit costs a few bytes for each; a check-out writes them all."""
    box = await sandbox(house, origin)
    head = box.commit("many", {f"copy-{number}": "x" * 1000 for number in range(20)})
    await house.import_bundle(str(origin), box.bundle(), **box.request())
    changes, _ = await reading.changed(house.place(str(origin)), box.base, head)
    assert [finding.rule for finding in findings(changes, max_total=19_999)] == ["too_much"]
    assert findings(changes, max_total=20_000) == []


async def test_a_repository_without_history_of_its_own_is_seen_through_file_urls(
    house: Repositories, place: Path
) -> None:
    made = repository(place / "a%20b#c?d")
    assert (await house.resolve(str(made))).branch == "main"
