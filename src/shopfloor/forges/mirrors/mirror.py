"""The host's bare copy of an origin: looked at, fetched when it differs, asked which commit a base means."""

import contextlib
import difflib
import json
from dataclasses import dataclass
from pathlib import Path

from shopfloor.forges.mirrors.places import Place, init, publish, write
from shopfloor.forges.mirrors.sources import Source
from shopfloor.forges.port import Refs
from shopfloor.forges.rules import COMMIT, is_branch
from shopfloor.kit import git
from shopfloor.kit.errors import Conflict, Forbidden, NotFound, Unavailable

FETCH_SECONDS = 1800.0
FORGIVEN = ("zeroPaddedFilemode", "badTimezone", "badDate", "badDateOverflow", "missingSpaceBeforeDate", "badEmail")
FORGIVEN_TOO = ("missingNameBeforeEmail", "missingSpaceBeforeEmail", "badName", "multipleAuthors", "missingTaggerEntry")
HISTORY = {f"fetch.fsck.{fault}": "ignore" for fault in (*FORGIVEN, *FORGIVEN_TOO)}
"""Faults of old but honest histories. None of them can do harm; everything else is refused."""
REFSPECS = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
LOOK = 64 << 20
PACKS = 40
"""More packs than this are folded together after a fetch."""


class RepositoryNotReached(Unavailable):
    """The repository cannot be reached."""

    hint = "Check the address and this machine's network."


class RepositoryNotFound(NotFound):
    """There is no such repository, or it may not be seen without credentials."""

    status = 422
    hint = "Check the address. A private repository needs a credential, or clone it on this machine and give its path."


class AccessDenied(Forbidden):
    """The repository asks for a credential, or refuses the one it got."""

    hint = "Give this server a credential that may read it, or clone it on this machine and give its path."


class EmptyRepository(Conflict):
    """The repository has no commit yet."""

    status = 422
    hint = "Push a first commit to it."


class UnknownBase(NotFound):
    """The repository has no such branch, tag or commit."""

    status = 422


class NoDefaultBranch(Conflict):
    """The repository does not say which branch is its default."""

    status = 422
    hint = "Give base_branch."


@dataclass(frozen=True)
class Base:
    """Where work starts, and the branch it is meant for."""

    branch: str
    commit: str


async def look(source: Source, *, timeout: float = 60) -> Refs:
    """Ask an origin what it has, without side effects."""
    try:
        said = await git.run(
            *("ls-remote", "--symref", *source.reading, source.url),
            protocols=source.protocols,
            config=source.config,
            timeout=timeout,
            max_output=LOOK,
        )
    except git.GitFailed as error:
        raise unreachable(error) from error
    head, commit, heads, tags = None, None, {}, {}
    for line in said.decode(errors="replace").splitlines():
        value, _, name = line.partition("\t")
        if value.startswith("ref: refs/heads/") and name == "HEAD":
            head = value.removeprefix("ref: refs/heads/")
        elif not COMMIT.fullmatch(value):
            continue
        elif name == "HEAD":
            commit = value
        elif name.startswith("refs/heads/") and is_branch(short := name.removeprefix("refs/heads/")):
            heads[short] = value
        elif name.startswith("refs/tags/"):
            tags[name.removeprefix("refs/tags/").removesuffix("^{}")] = value
    return Refs(head if head in heads else None, commit, heads, tags)


def unreachable(error: git.GitFailed) -> Exception:
    """What git's complaint about an origin means."""
    said = error.stderr.lower()
    detail = error.message.partition(": ")[2]
    denied = (
        "could not read username",
        "authentication failed",
        "error: 403",
        "error: 401",
        "permission denied",
        "askpass",
    )
    if any(sign in said for sign in denied):
        return AccessDenied(f"access denied: {detail}")
    if any(
        sign in said for sign in ("not found", "does not appear to be a git repository", "does not exist", "error: 404")
    ):
        return RepositoryNotFound(f"no such repository: {detail}")
    return RepositoryNotReached(detail, hint=git.hint_for(error.stderr))


async def refresh(place: Place, source: Source, lock: int) -> Refs:
    """Bring the mirror up to date with its origin; nothing is fetched when nothing changed. Holds the mirror's lock."""
    refs = await look(source)
    if not refs.heads and not refs.tags:
        raise EmptyRepository(f"{place.address.url} has no commit yet")
    if place.mirror.exists() and recorded(place) == refs:
        return refs
    if place.mirror.exists():
        await _fetch(place.mirror, source, lock)
    else:
        async with place.scratch() as folder:
            await init(folder / "mirror.git", next(iter((refs.heads | refs.tags).values())))
            await _fetch(folder / "mirror.git", source, lock)
            publish(folder / "mirror.git", place.mirror)
    write(place.seen, json.dumps(vars(refs)).encode())
    await _fold(place, lock)
    return refs


def recorded(place: Place) -> Refs | None:
    """What the origin had at the last complete fetch."""
    try:
        return Refs(**json.loads(place.seen.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


async def _fetch(git_dir: Path, source: Source, lock: int) -> None:
    for part in (git_dir / "objects" / "pack").glob(
        "tmp_*"
    ):  # of a fetch that was killed: we hold the lock, none lives
        part.unlink(missing_ok=True)
    args = ("fetch", "--quiet", "--prune", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules")
    for last in (False, True):
        try:
            await git.run(
                *(*args, "--no-auto-maintenance", "--force", *source.reading, source.url, *REFSPECS),
                git_dir=git_dir,
                protocols=source.protocols,
                config={**HISTORY, **(source.config or {})},
                timeout=FETCH_SECONDS,
                keep_open=(lock,),
            )
        except git.GitFailed as error:
            if last or not clear_locks(git_dir, error):
                raise unreachable(error) if error.exit_code == 128 and "fsck" not in error.stderr else error from error
        else:
            break
    await git.run("pack-refs", "--all", git_dir=git_dir, keep_open=(lock,))


def clear_locks(git_dir: Path, error: git.GitFailed) -> bool:
    """Remove lock files that a killed git left. Only for who holds our own lock: then no git lives that could own them."""
    if ".lock': File exists" not in error.stderr:
        return False
    for lock in (*git_dir.glob("*.lock"), *(git_dir / "refs").rglob("*.lock")):
        lock.unlink(missing_ok=True)
    return True


async def _fold(place: Place, lock: int) -> None:
    """Keep the number of packs small; nothing is ever pruned, as orders borrow these objects."""
    if len(list((place.mirror / "objects" / "pack").glob("*.pack"))) > PACKS:
        with contextlib.suppress(git.GitFailed, git.GitTimedOut):
            await git.run("repack", "-q", "-d", "--geometric=2", git_dir=place.mirror, timeout=600, keep_open=(lock,))


async def has(git_dir: Path, commit: str) -> bool:
    """Whether a repository of ours holds a commit."""
    if not git_dir.exists() or not COMMIT.fullmatch(commit):
        return False
    return (await git.call("cat-file", "-e", f"{commit}^{{commit}}", git_dir=git_dir)).exit_code == 0


async def resolve(place: Place, refs: Refs, base: str | None) -> Base:
    """The commit that a branch, a tag or a (shortened) hash means; without one, the default branch's."""
    wanted = (base or "").strip()
    if not wanted:
        branch = _default(refs)
        return Base(branch, refs.heads[branch])
    name = wanted.removeprefix("refs/heads/").removeprefix("origin/" if wanted not in refs.heads else "")
    if name in refs.heads:
        return Base(name, refs.heads[name])
    tag = wanted.removeprefix("refs/tags/")
    for candidate in (refs.tags.get(tag), wanted if 7 <= len(wanted) <= 64 else None):
        if candidate and set(candidate) <= set("0123456789abcdef"):
            found = await git.call("rev-parse", "--verify", "-q", f"{candidate}^{{commit}}", git_dir=place.mirror)
            if found.exit_code == 0:
                return Base(_default(refs), found.stdout.decode().strip())
    raise UnknownBase(f"{place.address.url} has no branch, tag or commit {wanted[:100]!r}", hint=_near(wanted, refs))


def _default(refs: Refs) -> str:
    if refs.head:
        return refs.head
    same = [name for name, commit in refs.heads.items() if commit == refs.head_commit]
    for name in (*(n for n in ("main", "master") if n in same or not refs.head_commit), *same):
        if name in refs.heads:
            return name
    if len(refs.heads) == 1:
        return next(iter(refs.heads))
    raise NoDefaultBranch(hint=f"Give base_branch: {', '.join(list(refs.heads)[:5]) or 'there is none'}.")


def _near(wanted: str, refs: Refs) -> str:
    names = [*refs.heads, *refs.tags]
    near = difflib.get_close_matches(wanted, names[:5000], n=3, cutoff=0.5) or list(refs.heads)[:3]
    return f"Did you mean {', '.join(near)}?" if near else ""
