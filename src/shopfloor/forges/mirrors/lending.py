"""What one order's agent may fetch and push against itself: a repository of a moment's life with nothing of other orders in it."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from shopfloor.forges.mirrors.bundles import IMPORT_SECONDS, BundleRefused, index, is_ancestor
from shopfloor.forges.mirrors.mirror import has
from shopfloor.forges.mirrors.places import Place, init
from shopfloor.kit import git

FETCH_SECONDS = 600.0
MOST_FETCHED = 4 << 30
PASSING = {"core.fsync": "none", "pack.threads": "1"}
"""What is made here is gone in a moment."""


class NotForward(BundleRefused):
    """The push would take back commits that are here already."""

    hint = "Fetch them and build on them."


class NothingNew(BundleRefused):
    """The push holds no commit beyond the base of the work order."""


@dataclass(frozen=True)
class Lent:
    """A bare repository: the origin's base branch, and the order's own where it has one."""

    folder: Path
    """Removed with everything in it."""
    git_dir: Path
    ref: str
    """The order's own branch."""
    base_commit: str
    heads: Mapping[str, str]
    """Reference -> commit; never empty."""

    async def offered(self) -> bytes:
        """What can be fetched, as git's protocol (version 0) tells it."""
        return await git.run("upload-pack", "--stateless-rpc", "--advertise-refs", str(self.git_dir))

    async def answer(self, request: bytes, into: BinaryIO) -> None:
        """Write the answer to a fetch, also git's own words about one that asks for what is not here."""
        await git.call(
            *("upload-pack", "--stateless-rpc", str(self.git_dir)),
            stdin=request,
            into=into,
            config=PASSING,
            timeout=FETCH_SECONDS,
            max_file=MOST_FETCHED,
        )

    async def take(self, pack: BinaryIO, size: int, head: str) -> Path:
        """The bundle `BASE..BRANCH` of a push of `head`, whose pack a file of `size` bytes goes on with; raises BundleRefused."""
        await index(self.git_dir, pack, size)
        if not await has(self.git_dir, head):
            raise BundleRefused(f"the push does not bring the commit {head[:12]}")
        if (tip := self.heads.get(self.ref)) and not await is_ancestor(self.git_dir, tip, head):
            raise NotForward(f"the branch only goes forward: {head[:12]} does not contain {tip[:12]}, fetch it first")
        made = self.folder / "out.bundle"
        try:
            new = await git.run("rev-list", "--max-count=1", head, f"^{self.base_commit}", git_dir=self.git_dir)
            if not new.strip():
                raise NothingNew
            await git.run("update-ref", self.ref, head, git_dir=self.git_dir, config=PASSING)
            await git.run(
                *("bundle", "create", "-q", str(made), self.ref, f"^{self.base_commit}"),
                git_dir=self.git_dir,
                config=PASSING,
                timeout=IMPORT_SECONDS,
            )
        except git.GitFailed as error:
            raise BundleRefused(f"git cannot follow the push: {error.message}") from error
        return made


@contextlib.asynccontextmanager
async def lent(
    place: Place, *, branch: str, base_branch: str, base_commit: str, tip: str | None
) -> AsyncIterator[Lent]:
    """Make it, with the order's own branch at `tip` if this host has that commit; `base_commit..tip` is all it holds of any order."""
    base, own = f"refs/heads/{base_branch}", f"refs/heads/{branch}"
    async with place.scratch() as folder:
        made = folder / "lent.git"
        await init(made, base_commit, borrow=str(place.mirror / "objects"))
        now = await git.call("rev-parse", "--verify", "-q", "--end-of-options", base, git_dir=place.mirror)
        heads = {base: now.stdout.decode().strip() or base_commit}
        if tip and await has(place.orders, tip):
            await git.run(
                *("pack-objects", "-q", "--revs", str(made / "objects" / "pack" / "pack")),
                git_dir=place.orders,
                stdin=f"{tip}\n^{base_commit}\n".encode(),
                config=PASSING,
                timeout=IMPORT_SECONDS,
            )
            heads[own] = tip
        moves = "".join(f"create {ref} {commit}\n" for ref, commit in heads.items()).encode()
        await git.run("update-ref", "--stdin", git_dir=made, stdin=moves, config=PASSING)
        await git.run("symbolic-ref", "HEAD", base, git_dir=made, config=PASSING)
        yield Lent(folder=folder, git_dir=made, ref=own, base_commit=base_commit, heads=heads)
