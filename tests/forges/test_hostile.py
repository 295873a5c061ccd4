"""A hostile repository gains nothing on the host: no program of theirs runs, nothing foreign comes in."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from shopfloor.forges.mirrors.sources import RedirectedRepository, ShallowRepository
from shopfloor.forges.service import Repositories
from shopfloor.kit.errors import Problem
from tests.forges.support import Sandbox, Tripwire, blob, commit, holds, raw, secret
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
    with pytest.raises(Problem, match="checked out" if name != "promisor" else None) as caught:
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


async def test_a_shallow_clone_is_refused_with_the_way_out(house: Repositories, work: Path, place: Path) -> None:
    commit(work, "second")
    git("clone", "-q", "--depth=1", f"file://{work}", "shallow", cwd=place)
    with pytest.raises(ShallowRepository) as caught:
        await house.resolve(str(place / "shallow"))
    assert "unshallow" in caught.value.hint
