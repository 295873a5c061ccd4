"""A hostile agent hands out bundles: nothing unchecked is taken over, nothing bad is pushed."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from shopfloor.forges.mirrors.bundles import BundleRefused
from shopfloor.forges.service import PolicyRefused, Repositories
from shopfloor.kit.errors import Problem
from tests.forges.support import Sandbox, blob, commit, holds, order_head, raw
from tests.support.platform import git


def plumbed(box: Sandbox, entries: str) -> None:
    """Commit a tree that no porcelain would make, on top of the base's."""
    whole = raw(box.work, "ls-tree", "HEAD", stdin=b"") + "\n" + entries
    tree = raw(box.work, "mktree", "--missing", stdin=whole.encode())
    who = ("-c", "user.name=x", "-c", "user.email=x@x")
    head = raw(box.work, *who, "commit-tree", tree, "-p", "HEAD", stdin=b"evil")
    git("update-ref", f"refs/heads/{box.branch}", head, cwd=box.work)


def subtree(box: Sandbox, entries: str) -> str:
    return raw(box.work, "mktree", "--missing", stdin=entries.encode())


def dressed_git_folder(name: str) -> Callable[[Sandbox], None]:
    def plant(box: Sandbox) -> None:
        tree = subtree(box, f"100644 blob {blob(box.work, '[core]')}\tconfig\n")
        plumbed(box, f"040000 tree {tree}\t{name}\n")

    return plant


def climbing_path(box: Sandbox) -> None:
    tree = subtree(box, f"100644 blob {blob(box.work, 'x')}\tx\n")
    plumbed(box, f"040000 tree {tree}\t..\n")


def linked_modules(box: Sandbox) -> None:
    plumbed(box, f"120000 blob {blob(box.work, '/etc/passwd')}\t.gitmodules\n")


def evil_submodule_name(box: Sandbox) -> None:
    text = '[submodule "../../../hooks"]\n\tpath = x\n\turl = -u./payload\n'
    plumbed(box, f"100644 blob {blob(box.work, text)}\t.gitmodules\n")


def missing_object(box: Sandbox) -> None:
    plumbed(box, f"100644 blob {'1' * 40}\tmissing\n")


def unrelated_history(box: Sandbox) -> None:
    git("checkout", "-q", "--orphan", "other", cwd=box.work)
    box.commit("from nothing")
    git("branch", "-f", box.branch, cwd=box.work)


def more_files_than_there_are(box: Sandbox) -> None:
    """Twelve trees of ten entries each: a diff would take memory for a million million files."""
    blob = raw(box.work, "hash-object", "-w", "--stdin", stdin=b"x")
    entry = f"100644 blob {blob}\tf"
    for _ in range(12):
        tree = raw(box.work, "mktree", stdin="".join(f"{entry}{number}\n" for number in range(10)).encode())
        entry = f"040000 tree {tree}\td"
    made = git("commit-tree", tree, "-p", box.base, "-m", "bomb", cwd=box.work)
    git("update-ref", f"refs/heads/{box.branch}", made, cwd=box.work)


REFUSED = {
    **{f"a tree with {name}": dressed_git_folder(name) for name in (".GIT", ".git", "git~1", ".git ")},
    "a path with ..": climbing_path,
    "a link for .gitmodules": linked_modules,
    "a submodule name that climbs": evil_submodule_name,
    "a missing object": missing_object,
    "an unrelated history": unrelated_history,
    "more files than there are": more_files_than_there_are,
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_bundle_is_refused(house: Repositories, origin: Path, box: Sandbox, name: str) -> None:
    REFUSED[name](box)
    bundle = handmade(box)
    with pytest.raises(BundleRefused):
        await house.import_bundle(str(origin), bundle, **box.request())
    assert await order_head(house, origin, box) is None


def handmade(box: Sandbox) -> Path:
    """A bundle written by hand, as git itself would not write some of these."""
    head = git("rev-parse", f"refs/heads/{box.branch}", cwd=box.work)
    wanted = "\n".join(new_objects(box, head)).encode()
    pack = subprocess.run(
        ["git", "pack-objects", "--stdout", "-q"], cwd=box.work, input=wanted, capture_output=True, check=True
    )
    place = box.work.parent / "handmade.bundle"
    header = f"# v2 git bundle\n-{box.base} base\n{head} refs/heads/{box.branch}\n\n"
    place.write_bytes(header.encode() + pack.stdout)
    return place


def new_objects(box: Sandbox, head: str) -> list[str]:
    listed = subprocess.run(
        ["git", "rev-list", "--objects", "--missing=allow-any", "--no-object-names", head, f"^{box.base}"],
        cwd=box.work, capture_output=True, check=True, text=True,
    )  # fmt: skip
    return listed.stdout.split()


async def test_what_was_refused_stays_out_of_the_store(house: Repositories, origin: Path, box: Sandbox) -> None:
    dressed_git_folder(".GIT")(box)
    head = git("rev-parse", f"refs/heads/{box.branch}", cwd=box.work)
    with pytest.raises(BundleRefused):
        await house.import_bundle(str(origin), handmade(box), **box.request())
    assert not holds(house.place(str(origin)).orders, head)


async def test_a_bundle_built_on_another_orders_work_is_refused(
    house: Repositories, origin: Path, box: Sandbox, place: Path
) -> None:
    victim = Sandbox(await house.golden(str(origin), box.base), place / "victim", "wo-2")
    theirs = victim.commit("TENANT-TWO")
    await house.import_bundle(str(origin), victim.bundle(), **victim.request())
    git("fetch", "-q", str(victim.work), f"{victim.branch}:stolen", cwd=box.work)
    git("reset", "-q", "--hard", "stolen", cwd=box.work)
    box.commit("on top", {"more": "more"})
    with pytest.raises(BundleRefused):
        await house.import_bundle(str(origin), box.bundle(f"{theirs}..{box.branch}"), **box.request())


async def test_only_the_orders_own_branch_is_taken(house: Repositories, origin: Path, box: Sandbox) -> None:
    box.commit()
    for ref in ("refs/heads/main", "refs/heads/evil", "refs/tags/v1", "refs/shopfloor/orders/wo-2/feat-wo-2"):
        git("update-ref", ref, "HEAD", cwd=box.work)
    git("replace", "HEAD", box.base, cwd=box.work)
    bundle = box.bundle("--all", f"^{box.base}")
    await house.import_bundle(str(origin), bundle, **box.request())
    refs = git("for-each-ref", "--format=%(refname)", cwd=house.place(str(origin)).orders)
    assert refs == f"refs/shopfloor/orders/wo-1/{box.branch}"


async def test_a_replaced_commit_is_shown_as_it_is(house: Repositories, origin: Path, box: Sandbox) -> None:
    head = box.commit("fix", {"app.py": "EVIL\n"})
    git("checkout", "-q", "--detach", box.base, cwd=box.work)
    nice = box.commit("fix", {"app.py": "nice\n"})
    git("replace", head, nice, cwd=box.work)
    bundle = box.work.parent / "b.bundle"
    wanted = (f"{box.base}..{box.branch}", f"refs/replace/{head}")
    git("--no-replace-objects", "bundle", "create", "-q", str(bundle), *wanted, cwd=box.work)
    await house.import_bundle(str(origin), bundle, **box.request())
    shown = await house.diff(str(origin), box.base, head)
    assert "+EVIL" in shown.text


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage",
        b"# v2 git bundle\n",
        b"# v2 git bundle\n\n",
        b"# v3 git bundle\n@filter=blob:none\n\nPACK",
        b"# v2 git bundle\n-zzz x\n\nPACK",
        b"# v2 git bundle\n" + b"1" * 40 + b" refs/heads/feat-wo-1\n\nPACK",
        b"# v2 git bundle\n" + b"x" * 200_000 + b"\n\nPACK",
    ],
)
async def test_garbage_is_refused(house: Repositories, origin: Path, box: Sandbox, place: Path, data: bytes) -> None:
    (place / "b.bundle").write_bytes(data)
    with pytest.raises(BundleRefused):
        await house.import_bundle(str(origin), place / "b.bundle", **box.request())


async def test_a_pack_that_unfolds_without_end_is_stopped(
    house: Repositories, origin: Path, box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.commit("bomb", {"zeros": "0" * 60_000_000})
    bundle = box.bundle()
    assert bundle.stat().st_size < 1_000_000
    head = (await house.import_bundle(str(origin), bundle, **box.request())).head
    with pytest.raises(PolicyRefused, match="at most"):
        await house.check_policy(str(origin), box.base, head)


@pytest.mark.parametrize("branch", ["--upload-pack=x", "../../heads/main", "a b", "$(touch x)", "x.lock", "a..b", ""])
async def test_an_evil_branch_name_is_refused(house: Repositories, origin: Path, box: Sandbox, branch: str) -> None:
    box.commit()
    with pytest.raises(Problem):
        await house.import_bundle(str(origin), box.bundle(), order_id="wo-1", branch=branch, base_commit=box.base)


@pytest.mark.parametrize("order_id", ["../x", "a/b", "--x", "", "x.lock", "a b", "*"])
async def test_an_evil_order_id_is_refused(house: Repositories, origin: Path, box: Sandbox, order_id: str) -> None:
    box.commit()
    with pytest.raises(Problem):
        await house.import_bundle(str(origin), box.bundle(), order_id=order_id, branch=box.branch, base_commit=box.base)


@pytest.mark.parametrize("branch", ["--force", "-d", "a:b", "a b", "refs/../x", "a\nb", ""])
async def test_nothing_is_pushed_to_an_evil_branch(
    house: Repositories, origin: Path, box: Sandbox, branch: str
) -> None:
    head = box.commit()
    await house.import_bundle(str(origin), box.bundle(), **box.request())
    with pytest.raises(Problem):
        await house.push(str(origin), head, branch)


async def policy(house: Repositories, origin: Path, box: Sandbox) -> None:
    head = git("rev-parse", f"refs/heads/{box.branch}", cwd=box.work)
    await house.import_bundle(str(origin), handmade(box), **box.request())
    await house.check_policy(str(origin), box.base, head)


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../../etc/passwd", "pakét/../../x"])
async def test_a_link_out_of_the_tree_does_not_leave(
    house: Repositories, origin: Path, box: Sandbox, target: str
) -> None:
    (box.work / "notes.md").symlink_to(target)
    box.commit("link", {})
    with pytest.raises(PolicyRefused, match="outside the repository"):
        await policy(house, origin, box)


async def test_a_submodule_does_not_leave(house: Repositories, origin: Path, box: Sandbox) -> None:
    plumbed(box, f"160000 commit {box.base}\tlib\n")
    with pytest.raises(PolicyRefused, match="submodules"):
        await policy(house, origin, box)


async def test_control_characters_in_a_name_do_not_leave(house: Repositories, origin: Path, box: Sandbox) -> None:
    box.commit("name", {"a\x1b[2Jb": "x"})
    with pytest.raises(PolicyRefused, match="control characters"):
        await policy(house, origin, box)


async def test_a_link_that_was_there_before_is_no_offence(house: Repositories, work: Path, place: Path) -> None:
    (work / "etc").symlink_to("/etc/hosts")
    commit(work, "link")
    base = await house.resolve(str(work))
    box = Sandbox(await house.golden(str(work), base.commit), place / "sandbox")
    head = box.commit("honest")
    await house.import_bundle(str(work), box.bundle(), **box.request())
    assert await house.check_policy(str(work), base.commit, head) == []
