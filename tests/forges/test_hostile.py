"""A hostile repository or sandbox gains nothing on the host: no program of theirs runs, nothing foreign comes in."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from shopfloor.forges.mirrors import reading
from shopfloor.forges.mirrors.bundles import BundleRefused
from shopfloor.forges.mirrors.reading import FileNotInCommit
from shopfloor.forges.mirrors.sources import RedirectedRepository, ShallowRepository
from shopfloor.forges.service import PolicyRefused, Repositories
from shopfloor.kit.errors import Problem
from tests.forges.support import Sandbox, Tripwire, commit, raw, repository
from tests.support.platform import git

HOOKS = (
    *(
        "pre-receive",
        "update",
        "post-receive",
        "post-update",
        "reference-transaction",
        "proc-receive",
        "push-to-checkout",
    ),
    *(
        "pre-push",
        "post-checkout",
        "pre-commit",
        "post-commit",
        "post-merge",
        "pre-auto-gc",
        "post-index-change",
        "fsmonitor-watchman",
    ),
)


def hooks(repo: Path, trap: Tripwire) -> None:
    for name in HOOKS:
        shutil.copy(trap.script, repo / ".git" / "hooks" / name)


def hooks_elsewhere(repo: Path, trap: Tripwire) -> None:
    (repo / ".husky").mkdir()
    for name in HOOKS:
        shutil.copy(trap.script, repo / ".husky" / name)
    git("config", "core.hooksPath", str(repo / ".husky"), cwd=repo)


def settings(*names: str) -> Callable[[Path, Tripwire], None]:
    def plant(repo: Path, trap: Tripwire) -> None:
        for name in names:
            git("config", name, trap.command, cwd=repo)

    return plant


def attributes(text: str, *names: str) -> Callable[[Path, Tripwire], None]:
    def plant(repo: Path, trap: Tripwire) -> None:
        settings(*names)(repo, trap)
        for place in (repo / ".gitattributes", repo / ".git" / "info" / "attributes"):
            place.write_text(f"{text}\n")
        raw(
            repo,
            "-c",
            "core.attributesFile=/dev/null",
            "update-index",
            "--add",
            "--cacheinfo",
            f"100644,{blob(repo, text)},.gitattributes",
            stdin=b"",
        )
        tree = raw(repo, "write-tree", stdin=b"")
        head = raw(
            repo, "-c", "user.name=x", "-c", "user.email=x@x", "commit-tree", tree, "-p", "HEAD", stdin=b"attributes"
        )
        (repo / ".git" / "refs" / "heads" / "main").write_text(f"{head}\n")

    return plant


def blob(repo: Path, text: str) -> str:
    return raw(repo, "hash-object", "-w", "--no-filters", "--stdin", stdin=f"{text}\n".encode())


def update_instead(repo: Path, trap: Tripwire) -> None:
    attributes("* filter=z", "filter.z.smudge", "filter.z.clean", "filter.z.process")(repo, trap)
    git("config", "receive.denyCurrentBranch", "updateInstead", cwd=repo)


def other_transport(repo: Path, trap: Tripwire) -> None:
    git("config", "protocol.ext.allow", "always", cwd=repo)
    git("config", f"url.ext::{trap.command} .insteadOf", "file://", cwd=repo)
    git("config", "remote.origin.url", f"ext::{trap.command}", cwd=repo)


def promisor(repo: Path, trap: Tripwire) -> None:
    other_transport(repo, trap)
    for key, value in (
        ("core.repositoryFormatVersion", "1"),
        ("extensions.partialClone", "origin"),
        ("remote.origin.promisor", "true"),
    ):
        git("config", key, value, cwd=repo)
    missing = git("rev-parse", "HEAD:app.py", cwd=repo)
    (repo / ".git" / "objects" / missing[:2] / missing[2:]).unlink()


def included_settings(repo: Path, trap: Tripwire) -> None:
    more = repo / "more.config"
    git("config", "-f", str(more), "core.fsmonitor", trap.command, cwd=repo)
    git("config", "-f", str(more), "core.hooksPath", str(repo / ".git" / "hooks"), cwd=repo)
    git("config", "include.path", str(more), cwd=repo)
    hooks(repo, trap)


def collection(repo: Path, trap: Tripwire) -> None:
    hooks(repo, trap)
    git("config", "gc.auto", "1", cwd=repo)
    git("config", "receive.autogc", "true", cwd=repo)
    git("config", "gc.recentObjectsHook", trap.command, cwd=repo)


TRAPS: dict[str, Callable[[Path, Tripwire], None]] = {
    "hooks": hooks,
    "hooks path": hooks_elsewhere,
    "fsmonitor": settings("core.fsmonitor"),
    "programs": settings(
        *("core.sshCommand", "core.editor", "core.pager", "core.askPass", "core.gitProxy", "gpg.program", "sequence.editor"),
        *("diff.external", "credential.helper", "core.alternateRefsCommand", "uploadpack.packObjectsHook", "trailer.x.cmd"),
        *("remote.origin.uploadpack", "remote.origin.receivepack", "alias.upload-pack", "alias.receive-pack", "alias.checkout"),
    ),
    "filters": attributes("* filter=z", "filter.z.clean", "filter.z.smudge", "filter.z.process"),
    "diff drivers": attributes("* diff=z", "diff.z.command", "diff.z.textconv"),
    "merge drivers": attributes("* merge=z", "merge.z.driver", "merge.default"),
    "update instead": update_instead,
    "other transport": other_transport,
    "promisor": promisor,
    "included settings": included_settings,
    "garbage collection": collection,
}  # fmt: skip


async def everything(house: Repositories, repo: Path) -> None:
    """All that the host ever does with a repository, as far as it gets."""
    url = str(repo)
    base = await house.resolve(url)
    ground = await house.golden(url, base.commit)
    box = Sandbox(ground, repo.parent / "sandbox")
    head = box.commit("work", {"app.py": "changed\n"})
    await house.import_bundle(url, box.bundle(), **box.request())
    await house.progress(url, head, base.commit)
    await house.diff(url, base.commit, head)
    await house.check_policy(url, base.commit, head)
    await house.commands(url, base.commit)
    merged = await house.mergeable(url, base.commit, head)
    await house.commit_merge(url, merged.tree, (base.commit, head), "merge")
    await house.can_write(url)
    await house.push(url, head, box.branch)
    await house.push(url, head, "main")


@pytest.mark.parametrize("name", TRAPS)
async def test_no_trap_in_a_local_repository_fires(
    house: Repositories, work: Path, tripwire: Tripwire, name: str
) -> None:
    TRAPS[name](work, tripwire)
    tripwire.mark.unlink(missing_ok=True)
    with pytest.raises(Problem, match="checked out" if name != "promisor" else "") as caught:
        await everything(house, work)
    assert not tripwire.fired, caught.value


def test_the_traps_are_real(work: Path, tripwire: Tripwire) -> None:
    TRAPS["filters"](work, tripwire)
    tripwire.mark.unlink(missing_ok=True)
    subprocess.run(["git", "checkout", "-f", "."], cwd=work, check=False, capture_output=True)
    assert tripwire.fired


def test_the_hooks_are_real(work: Path, place: Path, tripwire: Tripwire) -> None:
    hooks(work, tripwire)
    git("clone", "-q", str(work), "clone", cwd=place)
    subprocess.run(["git", "push", "-q", "origin", "HEAD:x"], cwd=place / "clone", check=False, capture_output=True)
    assert tripwire.fired


async def test_a_delivery_gets_through_past_planted_hooks(house: Repositories, work: Path, tripwire: Tripwire) -> None:
    hooks(work, tripwire)
    with pytest.raises(Problem, match="checked out"):
        await everything(house, work)
    assert git("branch", "--list", "feat-wo-1", cwd=work)


def secret(place: Path) -> Path:
    """Another tenant's repository."""
    repo = repository(place / "tenant two", {"secret.txt": "TENANT-TWO\n"})
    commit(repo, "TENANT-TWO")
    return repo


def git_file(repo: Path, other: Path) -> None:
    shutil.rmtree(repo / ".git")
    (repo / ".git").write_text(f"gitdir: {other}/.git\n")


def git_link(repo: Path, other: Path) -> None:
    shutil.rmtree(repo / ".git")
    (repo / ".git").symlink_to(other / ".git")


def common_dir(repo: Path, other: Path) -> None:
    (repo / ".git" / "commondir").write_text(f"{other}/.git\n")


def nested_git(repo: Path, other: Path) -> None:
    shutil.copytree(other / ".git", repo / ".git" / ".git")


def alternates(repo: Path, other: Path) -> None:
    (repo / ".git" / "objects" / "info" / "alternates").write_text(f"{other}/.git/objects\n")
    (repo / ".git" / "refs" / "heads" / "main").write_text(git("rev-parse", "HEAD", cwd=other) + "\n")


def alternates_in_two_steps(repo: Path, other: Path) -> None:
    inner = repo / ".git" / "inner"
    (inner / "info").mkdir(parents=True)
    (inner / "info" / "alternates").write_text(f"{other}/.git/objects\n")
    (repo / ".git" / "objects" / "info" / "alternates").write_text("../inner\n")
    (repo / ".git" / "refs" / "heads" / "main").write_text(git("rev-parse", "HEAD", cwd=other) + "\n")


def quoted_alternates(repo: Path, other: Path) -> None:
    (repo / ".git" / "objects" / "info" / "alternates").write_text(f'"{other}/.git/objects"\n')


def linked(name: str) -> Callable[[Path, Path], None]:
    def plant(repo: Path, other: Path) -> None:
        place = repo / ".git" / name
        shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
        place.parent.mkdir(exist_ok=True)
        place.symlink_to(other / ".git" / name)

    return plant


def linked_object(repo: Path, other: Path) -> None:
    found = next(p for p in (other / ".git" / "objects").glob("??/*") if p.is_file())
    place = repo / ".git" / "objects" / found.parent.name
    place.mkdir(exist_ok=True)
    (place / found.name).unlink(missing_ok=True)
    (place / found.name).symlink_to(found)


REDIRECTIONS = {
    "a .git file": git_file,
    "a .git link": git_link,
    "commondir": common_dir,
    "a .git in .git": nested_git,
    "alternates": alternates,
    "alternates in two steps": alternates_in_two_steps,
    "quoted alternates": quoted_alternates,
    "a link for objects": linked("objects"),
    "a link for refs": linked("refs"),
    "a link for HEAD": linked("HEAD"),
    "a link for config": linked("config"),
    "a link for heads": linked("refs/heads"),
    "a link for a branch": linked("refs/heads/main"),
    "a link for an object": linked_object,
}


@pytest.mark.parametrize("name", REDIRECTIONS)
async def test_a_repository_that_leads_elsewhere_is_refused(
    house: Repositories, work: Path, place: Path, name: str
) -> None:
    other = secret(place)
    REDIRECTIONS[name](work, other)
    with pytest.raises(RedirectedRepository) as caught:
        await house.resolve(str(work))
    assert caught.value.hint


@pytest.mark.parametrize("name", REDIRECTIONS)
async def test_nothing_of_another_tenant_is_fetched(house: Repositories, work: Path, place: Path, name: str) -> None:
    other = secret(place)
    await house.resolve(str(work))
    REDIRECTIONS[name](work, other)
    with pytest.raises(RedirectedRepository):
        await house.sync(str(work))
    foreign = git("rev-parse", "HEAD", cwd=other)
    assert not holds(house.place(str(work)).mirror, foreign)


def holds(repo: Path, commit: str) -> bool:
    return subprocess.run(["git", "cat-file", "-e", commit], cwd=repo, check=False, capture_output=True).returncode == 0


async def test_a_shallow_clone_is_refused_with_the_way_out(house: Repositories, work: Path, place: Path) -> None:
    commit(work, "second")
    git("clone", "-q", "--depth=1", f"file://{work}", "shallow", cwd=place)
    with pytest.raises(ShallowRepository) as caught:
        await house.resolve(str(place / "shallow"))
    assert "unshallow" in caught.value.hint


@pytest.fixture
async def box(house: Repositories, origin: Path, place: Path) -> Sandbox:
    """A sandbox over the honest origin, in the hands of a hostile agent."""
    base = await house.resolve(str(origin))
    return Sandbox(await house.golden(str(origin), base.commit), place / "sandbox")


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


REFUSED = {
    **{f"a tree with {name}": dressed_git_folder(name) for name in (".GIT", ".git", "git~1", ".git ")},
    "a path with ..": climbing_path,
    "a link for .gitmodules": linked_modules,
    "a submodule name that climbs": evil_submodule_name,
    "a missing object": missing_object,
    "an unrelated history": unrelated_history,
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_bundle_is_refused(house: Repositories, origin: Path, box: Sandbox, name: str) -> None:
    REFUSED[name](box)
    bundle = handmade(box)
    with pytest.raises(BundleRefused):
        await house.import_bundle(str(origin), bundle, **box.request())
    assert await house.order_head(str(origin), "wo-1", box.branch) is None


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


@pytest.fixture
def linked_secret(work: Path, place: Path) -> str:
    """A commit whose files are links to a secret of the host."""
    (place / "secret").write_text("HOST-SECRET")
    for name in ("notes.md", ".claude/commands/plan.md"):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).symlink_to(place / "secret")
    (work / "folder").symlink_to(place)
    return commit(work, "links")


async def test_links_are_not_followed_when_files_are_read(house: Repositories, work: Path, linked_secret: str) -> None:
    await house.mirror(str(work))
    for path in ("notes.md", "folder/secret"):
        with pytest.raises(FileNotInCommit):
            await house.read_file(str(work), linked_secret, path)


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
