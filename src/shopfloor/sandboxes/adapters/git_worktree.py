"""A worktree of a repository that all worktrees of one origin share; the agent runs as a plain process of this user."""

import asyncio
import contextlib
import fcntl
import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from shopfloor.kit import git, trees
from shopfloor.sandboxes.adapters import _folder
from shopfloor.sandboxes.adapters._keeper.plan import Plan
from shopfloor.sandboxes.adapters._kept import SandboxDidNotStart
from shopfloor.sandboxes.adapters._plain import Config, Plain
from shopfloor.sandboxes.port import Checkout, Remains, SandboxSpec, Workspace

__all__ = ["Config", "GitWorktree", "create"]

SHARED = ".repositories"
CHECKOUT_TIMEOUT = 600


def create(root: Path, config: Config) -> "GitWorktree":  # noqa: ARG001 -- there is nothing to configure
    """The adapter, keeping its sandboxes below `root`."""
    return GitWorktree(root)


class GitWorktree(Plain):
    """Worktrees without isolation."""

    name = "git_worktree"
    workspace = Workspace.WORKTREE

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._cores = asyncio.Semaphore(os.cpu_count() or 1)

    def plan(self, spec: SandboxSpec, folder: Path) -> Plan:
        """As for any plain sandbox, and the repository it will belong to."""
        plan = super().plan(spec, folder)
        if spec.checkout:
            plan.lower = str(self._shared(spec.checkout.mirror))
        return plan

    def _shared(self, mirror: Path) -> Path:
        """The repository of the worktrees. Not the mirror itself: its next fetch would prune the branches that hold the work."""
        return self.root / SHARED / f"{hashlib.sha256(os.fsencode(mirror)).hexdigest()[:32]}.git"

    async def check_out(self, spec: SandboxSpec, workspace: Path, lock: int) -> None:
        """Register under the repository's lock, write the files outside it."""
        assert spec.checkout
        code = spec.checkout
        shared = self._shared(code.mirror)
        async with _locked(shared) as alone:
            held = (alone, lock)
            await _make(shared, code, held)
            await git.run("worktree", "prune", "--expire=now", git_dir=shared, keep_open=held)
            what = ("-q", "--no-checkout", "-B", code.branch, str(workspace), code.base_commit)
            await git.run("worktree", "add", *what, git_dir=shared, keep_open=held)
        async with self._cores:
            # Nothing but git has written there yet.
            await git.run("reset", "-q", "--hard", cwd=workspace, timeout=CHECKOUT_TIMEOUT, keep_open=(lock,))

    def laid_out(self, folder: Path, found: Plan | None, made: float) -> Remains:
        """The objects lie in the shared repository, HEAD in the folder git made there for this worktree."""
        own = super().laid_out(folder, found, made)
        if found is None or not found.lower:
            return own
        shared, pointer = Path(found.lower), os.fsencode(own.files / ".git")
        for entry in (shared / "worktrees").glob("*"):
            if trees.read(entry, b"gitdir", 4096).strip() == pointer:
                return replace(own, git=entry, common=shared, shared=True)
        return replace(own, git=shared / "worktrees" / "gone", common=shared, shared=True)

    async def unfurnish(self, folder: Path, found: Plan) -> None:  # noqa: ARG002 -- git sees itself that it is gone
        """Take the worktree off the list; its branch stays, it holds the work."""
        shared = Path(found.lower)
        if found.lower and shared.exists():
            async with _locked(shared) as alone:
                await git.run("worktree", "prune", "--expire=now", git_dir=shared, keep_open=(alone,))


async def _make(shared: Path, code: Checkout, held: tuple[int, ...]) -> None:
    """A bare repository that borrows the mirror's objects; it appears whole or not at all."""
    if shared.exists():
        return
    if not (code.mirror / "objects").is_dir():
        raise SandboxDidNotStart(f"there is no repository at {code.mirror}")
    fresh = shared.with_suffix(".new")
    if fresh.exists():
        await _folder.delete(fresh)
    kind = f"--object-format={'sha256' if len(code.base_commit) == 64 else 'sha1'}"
    await git.run("init", "-q", "--bare", "--template=", kind, "-b", "main", str(fresh), keep_open=held)
    (fresh / "objects" / "info").mkdir(exist_ok=True)
    (fresh / "objects" / "info" / "alternates").write_text(f"{code.mirror / 'objects'}\n")
    fresh.rename(shared)


@contextlib.asynccontextmanager
async def _locked(shared: Path) -> AsyncIterator[int]:
    """Alone with the list of worktrees: git is not safe against itself there, between processes neither.

    Answers the open lock, for git to inherit: it may outlive a killed server.
    """
    shared.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(shared.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(0.01)
        yield handle
    finally:
        os.close(handle)
