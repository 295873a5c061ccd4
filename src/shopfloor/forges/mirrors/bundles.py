"""Take in a bundle that a sandbox made: hostile until proven. It is unpacked in quarantine, where only the origin's objects
are in reach, checked object by object, and only then joined to what the orders have.

`git fetch` of a bundle would not do: before git 2.46 it ignores transfer.fsckObjects.
"""

import asyncio
import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from shopfloor.forges.mirrors.mirror import clear_locks, has
from shopfloor.forges.mirrors.places import Place, init, publish, sync_folder
from shopfloor.forges.rules import COMMIT, is_branch, our_branch
from shopfloor.kit import git
from shopfloor.kit.errors import Malformed, TooLarge

MAX_BUNDLE = 512 << 20
MAX_HEADER = 64 << 10
IMPORT_SECONDS = 300.0
MOST_FILES = 1_000_000


class BundleRefused(Malformed):
    """The commits that the sandbox handed out are not acceptable."""

    hint = "Nothing of it was taken over; the bundle is kept."


class BundleTooLarge(TooLarge):
    """The sandbox handed out more than is allowed."""


class CommitNotFound(BundleRefused):
    """This host does not have that commit."""

    hint = "It was not fetched or handed out yet."


@dataclass(frozen=True)
class Imported:
    """What became of a bundle."""

    head: str
    commits: int
    """Between the base and the head."""
    ref: str
    moved: bool
    """Whether the order's branch now stands here; False when it stood here or further already."""


@dataclass(frozen=True)
class Header:
    """The readable beginning of a bundle."""

    refs: dict[str, str]
    needs: frozenset[str]
    length: int


def order_ref(order_id: str, branch: str) -> str:
    """Where an order's commits are kept."""
    return f"refs/shopfloor/orders/{order_part(order_id)}/{our_branch(branch)}"


def order_part(order_id: str) -> str:
    """The id of a work order as one part of a reference's name."""
    if "/" in order_id or not is_branch(order_id):
        raise Malformed(f"{order_id[:80]!r} is not the id of a work order")
    return order_id


def header(file: BinaryIO) -> Header:
    """Read a bundle's header, believing nothing."""
    start = file.read(MAX_HEADER)
    lines, end = start.partition(b"\n\n")[0].split(b"\n"), start.find(b"\n\n")
    if end < 0 or lines[0] not in {b"# v2 git bundle", b"# v3 git bundle"}:
        raise BundleRefused("this is not a git bundle")
    refs: dict[str, str] = {}
    needs = set()
    for line in lines[1:]:
        commit, _, name = line.decode(errors="replace").partition(" ")
        if line.startswith(b"@object-format="):
            continue
        if line.startswith(b"-") and COMMIT.fullmatch(commit[1:]):
            needs.add(commit[1:])
        elif COMMIT.fullmatch(commit) and name:
            refs[name] = commit
        else:
            raise BundleRefused("the bundle's header is malformed or asks for a filter")
    return Header(refs, frozenset(needs), end + 2)


async def take(place: Place, bundle: Path, *, order_id: str, branch: str, base_commit: str) -> Imported:
    """Import the branch of a bundle (`BASE..BRANCH`) as the order's commits. Idempotent; the order's branch never goes back."""
    ref = order_ref(order_id, branch)
    size = bundle.stat().st_size
    if size > MAX_BUNDLE:
        raise BundleTooLarge(f"the bundle has {size} bytes; at most {MAX_BUNDLE} are allowed")
    with io.FileIO(bundle) as file:
        found = header(file)
        head = found.refs.get(f"refs/heads/{branch}") or found.refs.get("HEAD")
        if head is None:
            raise BundleRefused(f"the bundle holds no branch {branch}")
        await orders(place)
        if not await _known(place, ref, head):
            file.seek(found.length)
            async with place.scratch() as quarantine:
                await unpack(place, quarantine, file, max(size, 1 << 20))
                await _examine(place, quarantine, head, base_commit)
                await asyncio.to_thread(join, quarantine, place.orders / "objects" / "pack")
        moved = await _advance(place, ref, order_id, head)
    counted = await git.run("rev-list", "--count", f"{base_commit}..{head}", git_dir=place.orders)
    return Imported(head, int(counted), ref, moved)


async def orders(place: Place) -> Path:
    """The repository of what orders handed out; made when it is first needed."""
    if not place.orders.exists():
        async with place.locked("orders"):
            if not place.orders.exists():
                async with place.scratch() as folder:
                    made = folder / "orders.git"
                    await init(made, await _any_commit(place), borrow="../../mirror.git/objects")
                    publish(made, place.orders)
    return place.orders


async def _any_commit(place: Place) -> str:
    kind = await git.run("rev-parse", "--show-object-format", git_dir=place.mirror)
    return "0" * (64 if kind.strip() == b"sha256" else 40)


async def _known(place: Place, ref: str, head: str) -> bool:
    """Whether the order has this commit already, as its newest or on the way to it."""
    if not (now := await ref_of(place, ref)):
        return False
    return now == head or (await has(place.orders, head) and await is_ancestor(place.orders, head, now))


async def unpack(place: Place, quarantine: Path, file: BinaryIO | io.FileIO, size: int) -> None:
    """Check and index the pack that a file goes on with, in a quarantine; raises BundleRefused."""
    (quarantine / "pack").mkdir()
    (quarantine / "info").mkdir()
    (quarantine / "info" / "alternates").write_text(f"{place.mirror / 'objects'}\n")
    await index(place.mirror, file, size, {"GIT_OBJECT_DIRECTORY": str(quarantine)})


async def index(git_dir: Path, file: BinaryIO | io.FileIO, size: int, env: Mapping[str, str] | None = None) -> None:
    """Check and index the pack that a file goes on with; raises BundleRefused."""
    try:
        await git.run(
            *("index-pack", "--stdin", "--fix-thin", "--strict", f"--max-input-size={MAX_BUNDLE}"),
            git_dir=git_dir,
            env=env,
            config={"core.bigFileThreshold": "32m", "pack.threads": "1"},
            stdin=file,
            timeout=IMPORT_SECONDS,
            max_file=2 * size + (64 << 20),
        )
    except git.GitFailed as error:
        raise BundleRefused(f"git refuses the objects: {error.message}") from error


async def _examine(place: Place, quarantine: Path, head: str, base_commit: str) -> None:
    """Everything that the head needs is in the bundle or comes from the origin, and the work began at its base."""
    await complete(place, quarantine, head, base_commit)
    env = {"GIT_OBJECT_DIRECTORY": str(quarantine)}
    based = await git.call("merge-base", "--is-ancestor", base_commit, head, git_dir=place.mirror, env=env)
    if based.exit_code != 0:
        raise BundleRefused(
            f"the commits are not based on {base_commit[:12]}", hint="Work must continue from its base commit."
        )
    await _countable(place, head, env)


async def _countable(place: Place, head: str, env: Mapping[str, str]) -> None:
    """Raise BundleRefused when a commit has too many files: a few trees can name more than any memory or disk holds, and every diff lists them."""
    line = len(head) + 1
    listed = await git.call(
        *("ls-tree", "-r", "--object-only", head),
        git_dir=place.mirror,
        env=env,
        timeout=IMPORT_SECONDS,
        max_output=MOST_FILES * line,
        truncate=True,
    )
    if listed.truncated:
        raise BundleRefused(f"the commit {head[:12]} has more than {MOST_FILES} files")


async def complete(place: Place, quarantine: Path, head: str, base_commit: str) -> None:
    """Raise BundleRefused unless everything that the head needs is in the quarantine or comes from the origin."""
    if not await has(place.mirror, base_commit):
        raise CommitNotFound(f"the base {base_commit[:80]} is not a commit of the origin")
    whole = await git.call(
        *("rev-list", "--objects", "--quiet", head, f"^{base_commit}"),
        git_dir=place.mirror,
        env={"GIT_OBJECT_DIRECTORY": str(quarantine)},
        timeout=IMPORT_SECONDS,
    )
    if whole.exit_code != 0:
        raise BundleRefused(f"the bundle is not complete: {whole.stderr[:300]}")


def join(quarantine: Path, packs: Path) -> None:
    """Move the packs over, the index last, as that makes a pack visible."""
    made = sorted((quarantine / "pack").iterdir(), key=lambda path: path.suffix == ".idx")
    for path in made:
        path.rename(packs / path.name)
    sync_folder(packs)


async def _advance(place: Place, ref: str, order_id: str, head: str) -> bool:
    """Let the order's branch stand at `head`. A head that is no successor of the old one leaves the old one pinned."""
    async with place.locked("orders") as lock:
        old = await ref_of(place, ref)
        if old == head or (old and await is_ancestor(place.orders, head, old)):
            return False
        moves = [f"update {ref} {head} {old or '0' * len(head)}\n"]
        if old and not await is_ancestor(place.orders, old, head):
            moves.append(f"update refs/shopfloor/pins/{order_id}/{old} {old}\n")
        await update_refs(place, moves, lock)
    return True


async def update_refs(place: Place, moves: list[str], lock: int) -> None:
    """Change references of the orders' repository, all or none. Holds the orders' lock."""
    said = "".join(["start\n", *moves, "prepare\n", "commit\n"]).encode()
    for last in (False, True):
        try:
            await git.run("update-ref", "--stdin", git_dir=place.orders, stdin=said, keep_open=(lock,))
        except git.GitFailed as error:
            if last or not clear_locks(place.orders, error):
                raise
        else:
            return


async def ref_of(place: Place, ref: str) -> str | None:
    """The commit that one of our references names."""
    found = await git.call("rev-parse", "--verify", "-q", "--end-of-options", ref, git_dir=place.orders)
    return found.stdout.decode().strip() or None


async def is_ancestor(git_dir: Path, older: str, newer: str) -> bool:
    """Whether `newer` contains `older`."""
    return (await git.call("merge-base", "--is-ancestor", older, newer, git_dir=git_dir)).exit_code == 0


async def require(place: Place, *commits: str) -> None:
    """Raise CommitNotFound unless this host has them all."""
    with contextlib.suppress(FileNotFoundError):
        await orders(place)
    for commit in commits:
        if not await has(place.orders, commit):
            raise CommitNotFound(f"this host has no commit {commit[:64]!r} of {place.address.url}")
