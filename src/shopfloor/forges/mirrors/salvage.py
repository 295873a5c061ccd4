"""Commits that a sandbox made and never handed out: found in its repository without running git there.

Its refs and logs are read as text, its objects are copied as bytes. What git then makes of them goes the way of every bundle: packed anew, indexed
with all checks in a quarantine where only the origin's objects are in reach, and only then joined to what the orders have.
"""

import asyncio
import io
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from shopfloor.forges.mirrors import bundles
from shopfloor.forges.mirrors.places import Place
from shopfloor.forges.rules import COMMIT
from shopfloor.kit import git, trees
from shopfloor.kit.errors import Problem

PINS = "refs/shopfloor/pins"
MOST_HEADS = 300
MOST_LOG = 256 << 10
MOST_OBJECTS = 200_000
MOST_BYTES = 1 << 30
LOOSE = re.compile(rb"([0-9a-f]{2})/([0-9a-f]{38}|[0-9a-f]{62})")
PACK = re.compile(rb"pack/pack-[0-9a-f]{40,64}\.pack")
MOVED = re.compile(rb"^([0-9a-f]{40,64}) ([0-9a-f]{40,64}) ", re.MULTILINE)
PACKED = re.compile(rb"^([0-9a-f]{40,64}) (refs/[!-~]{1,200})$", re.MULTILINE)
ONLY = "HEAD"
BESIDE = ("ORIG_HEAD", "MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "REBASE_HEAD", "rebase-merge/orig-head")
"""Where git notes commits while it is at something."""


@dataclass(frozen=True)
class Left:
    """A repository as an agent left it (see `sandboxes.port.Remains`)."""

    git: Path
    common: Path
    shared: bool = False
    since: float = 0
    branch: str = ""


@dataclass
class Salvaged:
    """What became of it."""

    tip: str | None = None
    """The commit that the work tree stands on, if this host has it now."""
    heads: dict[str, str] = field(default_factory=dict)
    """Ref or log -> commit that was not handed out and is kept now."""
    refs: list[str] = field(default_factory=list)
    missed: dict[str, str] = field(default_factory=dict)
    """Ref or log -> why its commit could not be kept."""


def _heads(left: Left) -> tuple[str, dict[str, str]]:
    """What HEAD says, and every commit that a ref or a log names. Blocks."""
    found: dict[str, str] = {}
    head = trees.read(left.git, b"HEAD", 1024).decode("ascii", "replace").strip()
    wanted = [head.removeprefix("ref: ")] if head.startswith("ref: refs/heads/") else []
    if left.shared:
        for name in dict.fromkeys([*wanted, f"refs/heads/{left.branch}"]):
            _note(found, name, trees.read(left.common, name.encode(), 100))
    else:
        for entry in trees.survey(left.common / "refs", most=10 * MOST_HEADS).entries:
            if entry.kind == "file":
                _note(found, f"refs/{entry.shown}", trees.read(left.common / "refs", entry.path, 100))
        for entry in trees.survey(left.common / "worktrees", most=10 * MOST_HEADS).entries:
            if entry.path.endswith(b"/HEAD"):
                _note(found, f"worktrees/{entry.shown}", trees.read(left.common / "worktrees", entry.path, 100))
        for commit, name in PACKED.findall(trees.read(left.common, b"packed-refs", 16 << 20)):
            found.setdefault(name.decode(), commit.decode())
    _note(found, ONLY, head.encode())
    for name in BESIDE:
        _note(found, name, trees.read(left.git, name.encode(), 100))
    for entry in trees.survey(left.git / "logs", most=10 * MOST_HEADS).entries:
        if entry.kind == "file":
            _logged(found, left.git / "logs", entry)
    return head, found


def _note(found: dict[str, str], name: str, text: bytes) -> None:
    commit = text.decode("ascii", "replace").strip()
    if COMMIT.fullmatch(commit):
        found[name] = commit


def _logged(found: dict[str, str], logs: Path, entry: trees.Entry) -> None:
    known = set(found.values())
    for pair in MOVED.findall(trees.read(logs, entry.path, MOST_LOG)):
        for commit in (one.decode() for one in pair):
            if commit not in known and set(commit) != {"0"} and COMMIT.fullmatch(commit):
                known.add(commit)
                found[f"log of {entry.shown}: {commit[:12]}"] = commit


async def salvage(
    place: Place, left: Left, *, order_id: str, sandbox_id: str, base: str, have: Collection[str] = ()
) -> Salvaged:
    """Keep every commit the repository names that this host does not have, under refs/shopfloor/pins/. Idempotent.

    `have` are commits of this order that are known to be here.
    """
    if left.git.is_symlink() or left.common.is_symlink():  # whoever walks on below it is in somebody else's repository
        return Salvaged(missed={ONLY: ".git is a link, which is not followed"})
    head, found = await asyncio.to_thread(_heads, left)
    known = {base, *have}
    if not known.issuperset(found.values()):
        known |= await _known(place, order_id, sandbox_id, base, set(found.values()) - known)
    new = {name: commit for name, commit in found.items() if commit not in known}
    done = Salvaged()
    for name in list(new)[MOST_HEADS:]:
        done.missed[name] = f"more than {MOST_HEADS} commits are named"
        del new[name]
    if new:
        await _take(place, left, done, new, f"{PINS}/{bundles.order_part(order_id)}/{sandbox_id}", base)
    at = found.get(head.removeprefix("ref: "), found.get(ONLY))
    done.tip = at if at in known or at in done.heads.values() else None
    return done


async def _known(place: Place, order_id: str, sandbox_id: str, base: str, commits: set[str]) -> set[str]:
    """Those the origin has, and those this order handed out: another order's are none of its business."""
    asked = "".join(f"{commit}\n" for commit in sorted(commits)).encode()
    said = await git.run("cat-file", "--batch-check", git_dir=place.mirror, stdin=asked) if asked else b""
    known = {line.split()[0].decode() for line in said.splitlines() if not line.endswith(b"missing")}
    if commits <= known or not place.orders.exists():
        return known
    prefixes = (f"refs/shopfloor/orders/{order_id}/", f"{PINS}/{order_id}/")
    said = await git.run("for-each-ref", "--format=%(objectname) %(refname)", *prefixes, git_dir=place.orders)
    named = (line.split(" ", 1) for line in said.decode().splitlines())
    # Its own pins do not count: who made them may have died before they were written down.
    refs = [commit for commit, name in named if not name.startswith(f"{PINS}/{order_id}/{sandbox_id}/")]
    if refs:
        asked = "".join(f"{ref}\n" for ref in [*dict.fromkeys(refs), f"^{base}"]).encode()
        known |= set((await git.run("rev-list", "--stdin", git_dir=place.orders, stdin=asked)).decode().split())
    return known


async def _take(place: Place, left: Left, done: Salvaged, new: dict[str, str], prefix: str, base: str) -> None:
    async with place.scratch() as folder:
        raw = folder / "raw"
        notes = await asyncio.to_thread(_copy, left, raw, place.mirror / "objects")
        await _index(place, raw, notes)
        wrong = await _pack(place, raw, folder / "all", set(new.values()), base)
        bad: dict[str, str] = {}
        for commit in sorted(set(new.values())) if wrong else ():  # one of them may spoil it for the others
            if said := await _pack(place, raw, folder / commit, {commit}, base):
                bad[commit] = "; ".join([said, *notes[:3]])
    done.heads = {name: commit for name, commit in new.items() if commit not in bad}
    done.missed |= {name: bad[commit] for name, commit in new.items() if commit in bad}
    done.refs = [f"{prefix}/{commit}" for commit in sorted(set(done.heads.values()))]
    if done.refs:
        moves = [f"update {ref} {ref.rpartition('/')[2]}\n" for ref in done.refs]
        async with place.locked("orders") as lock:
            await bundles.update_refs(place, moves, lock)


def _copy(left: Left, raw: Path, origin: Path) -> list[str]:
    """Copy the bytes of its own objects. Blocks."""
    for name in ("pack", "info"):
        (raw / name).mkdir(parents=True)
    (raw / "info" / "alternates").write_text(f"{origin}\n")
    found, notes, size = trees.survey(left.common / "objects", most=MOST_OBJECTS), [], 0
    for entry in found.entries:
        wanted = LOOSE.fullmatch(entry.path) or PACK.fullmatch(entry.path)
        if entry.kind != "file" or not wanted or entry.mtime < (left.since - 1) * 10**9:
            continue
        size += entry.size
        if size > MOST_BYTES:
            notes.append(f"its objects have more than {MOST_BYTES} bytes")
            break
        _copy_one(found.root, entry, raw / entry.path.decode(), notes)
    return [*found.told()[:5], *notes]


def _copy_one(root: Path, entry: trees.Entry, place: Path, notes: list[str]) -> None:
    try:
        with trees.opened(root, entry.path) as file:
            place.parent.mkdir(exist_ok=True)
            with place.open("wb") as copy:
                left = entry.size
                while left > 0 and (chunk := file.read(min(left, trees.CHUNK))):
                    copy.write(chunk)
                    left -= len(chunk)
    except OSError as error:
        notes.append(f"{entry.shown}: {error.strerror}")


async def _index(place: Place, raw: Path, notes: list[str]) -> None:
    """Let git make its own index of each pack: the agent's is not believed."""
    for pack in (raw / "pack").glob("*.pack"):
        try:
            await git.run(
                *("index-pack", "--threads=1", f"--max-input-size={MOST_BYTES}", str(pack)),
                git_dir=place.mirror,
                env={"GIT_OBJECT_DIRECTORY": str(raw)},
                config={"core.bigFileThreshold": "32m"},
                timeout=bundles.IMPORT_SECONDS,
            )
        except Problem as problem:
            notes.append(f"{pack.name}: {problem.message}")
            pack.unlink(missing_ok=True)


async def _pack(place: Place, raw: Path, folder: Path, commits: set[str], base: str) -> str:
    """Pack some commits, check them, join them to the orders' objects; answers what is wrong with them, if anything is."""
    quarantine = folder / "checked"
    quarantine.mkdir(parents=True)
    asked = "".join(f"{commit}\n" for commit in [*sorted(commits), f"^{base}"]).encode()
    try:
        said = await git.run(
            *("pack-objects", "-q", "--revs", "--threads=1", str(folder / "p")),
            git_dir=place.mirror,
            env={"GIT_OBJECT_DIRECTORY": str(raw)},
            config={"core.bigFileThreshold": "32m"},
            stdin=asked,
            timeout=bundles.IMPORT_SECONDS,
        )
        pack = folder / f"p-{said.decode().strip()}.pack"
        with io.FileIO(pack) as file:
            await bundles.unpack(place, quarantine, file, max(pack.stat().st_size, 1 << 20))
        for commit in commits:
            await bundles.complete(place, quarantine, commit, base)
    except Problem as problem:
        return problem.message
    await bundles.orders(place)
    await asyncio.to_thread(bundles.join, quarantine, place.orders / "objects" / "pack")
    return ""
