"""What is kept of a repository's orders beside what they delivered: told as listings, given out as bundles, let go by policy."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from shopfloor.forges.mirrors import bundles
from shopfloor.forges.mirrors.mirror import has
from shopfloor.forges.mirrors.places import Place, init
from shopfloor.forges.mirrors.salvage import PINS, Left, Salvaged, salvage
from shopfloor.forges.rules import COMMIT, looks_like_git, our_branch
from shopfloor.kit import git
from shopfloor.kit.errors import Conflict

LISTING = 256 << 20
SECONDS = 600.0
AUTHOR = "Shopfloor <agent@shopfloor.invalid>"

Blob = tuple[str, str]
"""Mode and object id, as git lists a file."""


class NothingKept(Conflict):
    """There is nothing of it that a branch could hold."""

    hint = "Restore it into a folder, or look at its note."


@dataclass(frozen=True)
class Wrote:
    """A file for a work commit: its mode, and where its content is read from."""

    path: bytes
    mode: str
    size: int
    content: IO[bytes]


class Keeping:
    """The kept commits of one repository."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def holds_any(self) -> bool:
        """Whether this host has anything of the repository."""
        return self.place.mirror.exists()

    async def has(self, commit: str) -> bool:
        """Whether this host has a commit of the origin."""
        return await has(self.place.mirror, commit)

    async def salvage(
        self, left: Left, *, order_id: str, sandbox_id: str, base: str, have: Collection[str] = ()
    ) -> Salvaged:
        """Keep every commit that a sandbox made and did not hand out; `have` are those that it did. Idempotent."""
        return await salvage(self.place, left, order_id=order_id, sandbox_id=sandbox_id, base=base, have=have)

    async def listing(self, commit: str) -> dict[bytes, Blob]:
        """Every file of a commit."""
        said = await git.run("ls-tree", "-r", "-z", commit, git_dir=self._reads(), max_output=LISTING, timeout=SECONDS)
        found = {}
        for line in filter(None, said.split(b"\0")):
            facts, _, path = line.partition(b"\t")
            mode, _, blob = facts.split(b" ")
            found[path] = (mode.decode(), blob.decode())
        return found

    async def other(self, commit: str, base: str) -> dict[bytes, Blob | None]:
        """The files that `base` has otherwise than a commit: as it has them, None where it has none."""
        if commit == base:
            return {}
        what = ("diff-tree", "-r", "-z", "--raw", "--no-renames", commit, base)
        fields = (await git.run(*what, git_dir=self._reads(), max_output=LISTING, timeout=SECONDS)).split(b"\0")
        found: dict[bytes, Blob | None] = {}
        for facts, path in zip(fields[0::2], fields[1::2], strict=False):
            _, mode, _, blob, status = facts.decode().split(" ")
            found[path] = None if status == "D" else (mode, blob)
        return found

    def _reads(self) -> Path:
        """The repository that has it all: the orders' borrows the mirror's objects."""
        return self.place.orders if self.place.orders.exists() else self.place.mirror

    async def drop(self, refs: Iterable[str]) -> None:
        """Let kept commits go; only their names, what else holds them keeps them. Idempotent."""
        named = [ref for ref in refs if ref.startswith(f"{PINS}/") and COMMIT.fullmatch(ref.rpartition("/")[2])]
        if not named or not self.place.orders.exists():
            return
        async with self.place.locked("orders") as lock:
            there = [ref for ref in named if await bundles.ref_of(self.place, ref)]
            await bundles.update_refs(self.place, [f"delete {ref}\n" for ref in there], lock)

    @contextlib.asynccontextmanager
    async def bundle(
        self, *, branch: str, base: str, tip: str, heads: Sequence[str] = (), work: "Work | None" = None
    ) -> AsyncIterator[tuple[Path, str]]:
        """A bundle of `branch` at `tip`, with what was not committed as one more commit, and other commits as recovered-N. Answers the file and its head."""
        async with self.place.scratch() as folder:
            made = folder / "work.git"
            await init(made, base)
            objects = [
                self.place.mirror / "objects",
                *([self.place.orders / "objects"] if self.place.orders.exists() else []),
            ]
            (made / "objects" / "info").mkdir(exist_ok=True)
            (made / "objects" / "info" / "alternates").write_text("".join(f"{path}\n" for path in objects))
            head = await work.commit(made, folder, tip) if work else tip
            named = {f"refs/heads/{our_branch(branch)}": head}
            others = [commit for commit in dict.fromkeys(heads) if commit not in {head, tip}]
            named |= {f"refs/heads/recovered-{number}": commit for number, commit in enumerate(others, 1)}
            moves = "".join(f"update {name} {commit}\n" for name, commit in named.items()).encode()
            await git.run("update-ref", "--stdin", git_dir=made, stdin=moves)
            new = await git.run("rev-list", "--max-count=1", *named, f"^{base}", git_dir=made)
            if not new.strip():
                raise NothingKept
            out = folder / "out.bundle"
            await git.run("bundle", "create", "-q", str(out), *named, f"^{base}", git_dir=made, timeout=SECONDS)
            yield out, head


@dataclass(frozen=True)
class Work:
    """What lay in a work tree uncommitted, to be made a commit."""

    wrote: Iterable[Wrote]
    gone: Sequence[bytes]
    back: dict[bytes, Blob]
    """Files that stood as in the base, not as in the tip."""
    message: str
    seconds: int

    async def commit(self, git_dir: Path, folder: Path, tip: str) -> str:
        """Write it, over `tip`; answers the commit. Names that some system takes for .git are left out."""
        script = folder / "script"
        await asyncio.to_thread(self._write, script, tip)
        with script.open("rb", buffering=0) as told:
            await git.run("fast-import", "--quiet", "--done", git_dir=git_dir, stdin=told, timeout=SECONDS)
        return (await git.run("rev-parse", "refs/heads/work", git_dir=git_dir)).decode().strip()

    def _write(self, script: Path, tip: str) -> None:
        with script.open("wb") as out:
            self._script(out, tip)

    def _script(self, out: IO[bytes], tip: str) -> None:
        message = self.message.encode()
        out.write(b"commit refs/heads/work\nmark :1\n")
        out.write(f"committer {AUTHOR} {self.seconds} +0000\ndata {len(message)}\n".encode())
        out.write(message + f"\nfrom {tip}\n".encode())
        out.writelines(b"D " + quoted(path) + b"\n" for path in self.gone)
        out.writelines(f"M {mode} {blob} ".encode() + quoted(path) + b"\n" for path, (mode, blob) in self.back.items())
        for file in self.wrote:
            if any(looks_like_git(part) for part in file.path.decode("utf-8", "replace").split("/")):
                continue
            out.write(f"M {file.mode} inline ".encode() + quoted(file.path) + f"\ndata {file.size}\n".encode())
            while chunk := file.content.read(1 << 20):
                out.write(chunk)
            out.write(b"\n")
        out.write(b"done\n")


def quoted(path: bytes) -> bytes:
    """A path as fast-import takes any."""
    return b'"' + b"".join(bytes([c]) if c > 32 and c < 127 and c not in b'"\\' else b"\\%03o" % c for c in path) + b'"'
