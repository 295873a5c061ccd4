"""Golden checkouts: one clean work tree with its own .git for each commit, the read-only ground that sandboxes stand on.

A golden is on a detached HEAD and has no remote and no user; the worker makes its branch inside (`git checkout -B BRANCH BASE`).
Filters, hooks, LFS and submodules of the repository are not run or fetched. Its symbolic links are real: follow none of them.
"""

import asyncio
import functools
import os
import shutil
import time
from pathlib import Path

from shopfloor.forges.mirrors.mirror import has
from shopfloor.forges.mirrors.places import Place, publish
from shopfloor.forges.rules import COMMIT
from shopfloor.kit import git
from shopfloor.kit.errors import Conflict, Malformed

CHECKOUT_SECONDS = 900.0
FRESH_SECONDS = 600.0
"""A golden used within this time is not evicted: its sandbox may be about to be created."""
CONFIG = """[core]
\trepositoryformatversion = {version}
\tfilemode = true
\tbare = false
\tlogallrefupdates = true
\tcheckStat = minimal
\ttrustctime = false
[gc]
\tauto = 0
[maintenance]
\tauto = false
{extensions}"""


class GoldenGone(Conflict):
    """The checkout was removed in the meantime."""

    hint = "Ask for it again."


class NotACommit(Malformed):
    """That is not the full hash of a commit."""


def golden_path(place: Place, commit: str, owner: tuple[int, int] | None) -> Path:
    """Where the golden of a commit lies, made or not."""
    if not COMMIT.fullmatch(commit):
        raise NotACommit(f"{commit[:80]!r} is not the full hash of a commit")
    return place.goldens / (f"{commit}-{owner[0]}-{owner[1]}" if owner else commit)


def warm(place: Place, path: Path) -> bool:
    """Whether the golden exists; marks it as used. One made before the machine last started may lack bytes: it is made anew."""
    used = _used(place, path)
    try:
        if used.read_text() != _boot():
            return False
        os.utime(used)
    except FileNotFoundError:
        return False
    return path.is_dir()


@functools.cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        return "unknown"


async def make(place: Place, commit: str, owner: tuple[int, int] | None) -> Path:
    """Make the golden of a commit that the mirror has, or that orders handed out, or find it made."""
    path = golden_path(place, commit, owner)
    async with place.locked("goldens"):
        if warm(place, path):
            return path
        async with place.scratch() as folder:
            made = folder / "golden"
            async with place.locked():
                await asyncio.to_thread(_copy, place.mirror, made, commit)
                if not await has(place.mirror, commit):
                    await _lend(place, made, commit)
            await _check_out(made, commit)
            if owner and owner != (os.geteuid(), os.getegid()):
                await asyncio.to_thread(_give, made, owner)
            made.chmod(0o755)
            if path.exists():
                path.rename(folder / "old")
            _used(place, path).write_text(_boot())
            publish(made, path)
    return path


def _copy(mirror: Path, made: Path, commit: str) -> None:
    """The repository part: objects as files of their own, tags and the origin's branches, a configuration of ours."""
    inner = made / ".git"
    for folder in ("objects/info", "objects/pack", "refs/heads", "refs/tags", "info"):
        (inner / folder).mkdir(parents=True)
    for source in sorted((mirror / "objects" / "pack").iterdir()):
        if source.suffix in {".pack", ".idx", ".rev"}:
            shutil.copyfile(source, inner / "objects" / "pack" / source.name)
    for source in (mirror / "objects").glob("??/*"):
        (inner / "objects" / source.parent.name).mkdir(exist_ok=True)
        shutil.copyfile(source, inner / "objects" / source.parent.name / source.name)
    wide = len(commit) == 64
    extensions = "[extensions]\n\tobjectformat = sha256\n" if wide else ""
    (inner / "config").write_text(CONFIG.format(version=int(wide), extensions=extensions))
    (inner / "HEAD").write_text(f"{commit}\n")
    packed = mirror / "packed-refs"
    if packed.exists():
        (inner / "packed-refs").write_bytes(packed.read_bytes().replace(b" refs/heads/", b" refs/remotes/origin/"))


async def _lend(place: Place, made: Path, commit: str) -> None:
    """Add what orders handed out of this commit, and no object of any other work."""
    heads = await git.run("for-each-ref", "--format=^%(objectname)", git_dir=place.mirror)
    await git.run(
        *("pack-objects", "--revs", "-q", str(made / ".git" / "objects" / "pack" / "pack")),
        git_dir=place.orders,
        stdin=f"{commit}\n".encode() + heads,
        timeout=CHECKOUT_SECONDS,
    )


async def _check_out(made: Path, commit: str) -> None:
    """Write the files. Nobody but us can reach this folder yet."""
    await git.run(
        *("checkout", "--quiet", "--force", "--detach", commit, "--"),
        git_dir=made / ".git",
        env={"GIT_WORK_TREE": str(made)},
        config={"core.symlinks": "true", "core.fsync": "none"},
        timeout=CHECKOUT_SECONDS,
    )


def _give(made: Path, owner: tuple[int, int]) -> None:
    """Hand the whole tree to the sandboxes' user, links themselves included."""
    for folder, folders, files in os.walk(made):
        for name in (*folders, *files):
            os.chown(os.path.join(folder, name), *owner, follow_symlinks=False)
    os.chown(made, *owner)


def _used(place: Place, path: Path) -> Path:
    return place.pins / f"{path.name}.used"


async def pin(place: Place, path: Path, sandbox_id: str) -> None:
    """Keep a golden for as long as a sandbox stands on it."""
    async with place.locked("goldens"):
        if path.parent != place.goldens or not path.is_dir():
            raise GoldenGone(f"there is no golden {path.name[:100]!r}")
        folder = place.pins / path.name
        folder.mkdir(exist_ok=True)
        (folder / _safe(sandbox_id)).touch()


async def unpin(place: Place, sandbox_id: str) -> None:
    """The sandbox is gone; its goldens may go, too. Idempotent."""
    async with place.locked("goldens"):
        for pinned in place.pins.glob(f"*/{_safe(sandbox_id)}"):
            pinned.unlink(missing_ok=True)


def pinned_by(place: Place, path: Path) -> list[str]:
    """The sandboxes that stand on a golden."""
    folder = place.pins / path.name
    return sorted(os.listdir(folder)) if folder.is_dir() else []


async def evict(place: Place, keep: int, unused_for: float = FRESH_SECONDS, *, patience: float) -> list[Path]:
    """Remove goldens that no sandbox stands on, but the `keep` last used; sweep what killed processes left.

    Raises RepositoryBusy when a checkout is being made for longer than `patience` seconds.
    """
    gone = []
    async with place.locked("goldens", patience=patience):
        free = [path for path in place.goldens.iterdir() if not pinned_by(place, path)]
        free.sort(key=lambda path: _when(place, path), reverse=True)
        for path in free[keep:]:
            if time.time() - _when(place, path) < unused_for:
                continue
            async with place.scratch() as folder:
                path.rename(folder / "gone")
            _used(place, path).unlink(missing_ok=True)
            shutil.rmtree(place.pins / path.name, ignore_errors=True)
            gone.append(path)
    await asyncio.to_thread(place.sweep)
    return gone


def _when(place: Place, path: Path) -> float:
    used = _used(place, path)
    return used.stat().st_mtime if used.exists() else 0.0


def _safe(sandbox_id: str) -> str:
    if not sandbox_id or "/" in sandbox_id or sandbox_id.startswith(".") or any(c in sandbox_id for c in "*?[]\0"):
        raise Malformed(f"{sandbox_id[:100]!r} is not the id of a sandbox")
    return sandbox_id
