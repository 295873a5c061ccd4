"""Bring commits to the origin: from the host's own repository, under a lease, never by plain force, twice without harm."""

from dataclasses import dataclass
from pathlib import Path

from shopfloor.forges.mirrors.bundles import is_ancestor, ref_of, require, update_refs
from shopfloor.forges.mirrors.mirror import AccessDenied, RepositoryNotFound, look, unreachable
from shopfloor.forges.mirrors.places import Place, init, publish
from shopfloor.forges.mirrors.sources import Source
from shopfloor.forges.port import BranchMoved
from shopfloor.forges.rules import is_branch
from shopfloor.kit import git
from shopfloor.kit.errors import Conflict, Forbidden, Malformed, Unavailable

PUSH_SECONDS = 600.0
DENIED = (
    ("archived so it is read-only", "The repository is archived: unarchive it in its settings, or work on a fork."),
    (
        "to create or update workflow",
        "The work changes a file below .github/workflows: give the token the right 'workflow' (an App: 'workflows'), or ask the agent to leave it.",
    ),
)
"""What forges say about a push -> what to do."""


class WriteDenied(Forbidden):
    """The origin does not let us write."""

    hint = "Give this server a credential that may push, or give the person's own clone as repository."


class BranchProtected(Forbidden):
    """The origin's rules refuse this push."""

    hint = "Its branch protection or a hook of the server says no; the origin's own words are in 'stderr'."


class BranchCheckedOut(Conflict):
    """The branch is checked out in that local repository, where its files would no longer fit."""


class PushFailed(Unavailable):
    """The origin did not take the push."""

    hint = "The work is safe on this host; retry."


@dataclass(frozen=True)
class Pushed:
    """The branch stands at the commit."""

    branch: str
    commit: str
    updated: bool
    """False when it stood there already."""


async def push(place: Place, source: Source, commit: str, branch: str, expected_old: str | None = None) -> Pushed:
    """Let the origin's `branch` stand at `commit`.

    A branch that exists is moved only from `expected_old`, or forward, or from where we ourselves pushed it last.
    """
    if not is_branch(branch):
        raise Malformed(f"{branch[:100]!r} is not a branch name")
    await require(place, commit)
    now = (await look(source)).heads.get(branch)
    if now != commit:
        if expected_old is not None and now != (expected_old or None):
            raise BranchMoved(f"{branch} stands at {(now or 'nothing')[:12]}, not at {expected_old[:12]}")
        if expected_old is None and now is not None and not await _may_move(place, branch, now, commit):
            raise BranchMoved(f"{branch} exists at {now[:12]} and is not ours")
        await _send(place, source, commit, branch, now)
    async with place.locked("orders") as lock:
        ref = _record(branch)
        if await ref_of(place, ref) != commit:
            await update_refs(place, [f"update {ref} {commit}\n"], lock)
    return Pushed(branch, commit, updated=now != commit)


def _record(branch: str) -> str:
    """Where we note what we pushed; spelled so that `a` and `a/b` can both be noted."""
    return "refs/shopfloor/pushed/" + branch.replace("/", "/-") + "/tip"


async def _may_move(place: Place, branch: str, now: str, commit: str) -> bool:
    if await ref_of(place, _record(branch)) == now:
        return True
    held = await git.call("cat-file", "-e", f"{now}^{{commit}}", git_dir=place.orders)
    return held.exit_code == 0 and await is_ancestor(place.orders, now, commit)


async def delete(place: Place, source: Source, branch: str, expected: str) -> None:
    """Remove the origin's branch if it stands at `expected`; one that is gone already is fine."""
    if not is_branch(branch):
        raise Malformed(f"{branch[:100]!r} is not a branch name")
    now = (await look(source)).heads.get(branch)
    if now is None:
        return
    if now != expected:
        raise BranchMoved(f"{branch} stands at {now[:12]}, not at {expected[:12]}: it is kept")
    await require(place, expected)
    try:
        await _send(place, source, "", branch, expected)
    except BranchMoved:
        if branch in (await look(source)).heads:
            raise


async def _send(place: Place, source: Source, commit: str, branch: str, now: str | None) -> None:
    ref = f"refs/heads/{branch}"
    try:
        await git.run(
            *("push", "--no-verify", "--no-signed", "--no-follow-tags", *source.writing),
            *(f"--force-with-lease={ref}:{now or ''}", source.url, f"{commit}:{ref}"),
            git_dir=place.orders,
            protocols=source.protocols,
            config=source.config,
            timeout=PUSH_SECONDS,
        )
    except (git.GitFailed, git.GitTimedOut) as error:
        there = await _now(source, branch, unknown=now)
        if there == (commit or None):  # it took effect, only its answer was lost
            return
        if there != now:
            raise BranchMoved(f"{branch} was changed at the origin in the meantime") from error
        raise refusal(error, branch, place) from error


async def _now(source: Source, branch: str, unknown: str | None) -> str | None:
    """Where the origin's branch stands, as far as it says."""
    try:
        return (await look(source, timeout=30)).heads.get(branch)
    except Exception:
        return unknown


def refusal(error: git.GitFailed | git.GitTimedOut, branch: str, place: Place | None = None) -> Exception:
    """What a failed push means."""
    if not isinstance(error, git.GitFailed):
        return error
    said, where = error.stderr.lower(), place.address.url if place else "the origin"
    for sign, hint in DENIED:
        if sign in said:
            return WriteDenied(f"{where} refuses the push: {error.message}", hint=hint)
    if "checked out branch" in said or "branch is currently checked out" in said:
        return BranchCheckedOut(
            f"{branch} is checked out in {where}",
            hint="In that repository, merge by hand, or check out another branch first (git switch --detach), then repeat.",
        )
    if any(
        sign in said for sign in ("stale info", "fetch first", "non-fast-forward", "cannot lock ref", "already exists")
    ):
        return BranchMoved(f"{branch} was changed at the origin in the meantime")
    if any(sign in said for sign in ("protected branch", "hook declined", "gh006", "gh013", "prohibited")):
        return BranchProtected(f"the origin refuses to change {branch}", stderr=error.stderr[:2000])
    if any(sign in said for sign in ("error: 403", "write access", "permission denied", "insufficient permission")):
        return WriteDenied(f"no write access to {where}")
    translated = unreachable(error)
    if isinstance(translated, AccessDenied | RepositoryNotFound):
        return translated
    return PushFailed(f"the push to {where} failed: {error.message}", hint=git.hint_for(error.stderr))


async def can_write(source: Source, scratch: Path) -> bool:
    """Whether a push would be let in, tried without pushing anything. `scratch` is a repository of ours with one empty commit."""
    probe = (await git.run("rev-parse", "refs/heads/probe", git_dir=scratch)).decode().strip()
    tried = await git.call(
        *("push", "--dry-run", "--porcelain", "--no-verify", *source.writing, source.url),
        f"{probe}:refs/heads/shopfloor-access-check-{probe[:12]}",
        git_dir=scratch,
        protocols=source.protocols,
        config=source.config,
        timeout=20,
    )
    return tried.exit_code == 0


async def probe_repository(place: Place, scratch: Path) -> Path:
    """A repository with one empty commit, to try writing with."""
    if not scratch.exists():
        async with place.scratch() as folder:
            made = folder / "probe.git"
            await init(made)
            tree = await git.run("mktree", git_dir=made)
            person = {f"GIT_{who}_{what}": "shopfloor" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
            commit = await git.run("commit-tree", tree.decode().strip(), "-m", "probe", git_dir=made, env=person)
            await git.run("update-ref", "refs/heads/probe", commit.decode().strip(), git_dir=made)
            try:
                publish(made, scratch)
            except OSError:
                if not scratch.exists():
                    raise
    return scratch
