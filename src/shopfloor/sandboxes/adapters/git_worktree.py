"""A worktree of the mirror; the agent runs as a plain process of this user and shares the repository with the others."""

import asyncio
import os
from pathlib import Path

from shopfloor.sandboxes.adapters import _git
from shopfloor.sandboxes.adapters._keeper.plan import Plan
from shopfloor.sandboxes.adapters._plain import Config, Plain
from shopfloor.sandboxes.port import SandboxSpec, Workspace

__all__ = ["Config", "GitWorktree", "create"]


def create(root: Path, config: Config) -> "GitWorktree":  # noqa: ARG001 -- there is nothing to configure
    """The adapter, keeping its sandboxes below `root`."""
    return GitWorktree(root)


class GitWorktree(Plain):
    """Worktrees without isolation."""

    name = "git_worktree"
    workspace = Workspace.WORKTREE

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._checkouts = asyncio.Semaphore(os.cpu_count() or 1)

    def plan(self, spec: SandboxSpec, folder: Path) -> Plan:
        """As for any plain sandbox, and the mirror it belongs to."""
        plan = super().plan(spec, folder)
        if spec.checkout:
            plan.lower = str(spec.checkout.mirror)
        return plan

    async def check_out(self, spec: SandboxSpec, workspace: Path) -> None:
        """Register under the repository's lock, write the files outside it."""
        assert spec.checkout
        code = spec.checkout
        async with _git.locked(code.mirror):
            await _git.run("worktree", "prune", "--expire=now", cwd=code.mirror)
            args = ("--no-checkout", "-B", code.branch, str(workspace), code.base_commit)
            await _git.run("worktree", "add", "-q", *args, cwd=code.mirror)
        async with self._checkouts:
            await _git.run("reset", "-q", "--hard", cwd=workspace)

    async def unfurnish(self, folder: Path, found: Plan) -> None:  # noqa: ARG002 -- git sees itself that it is gone
        """Take the worktree off the mirror's list; its branch stays, it holds the work."""
        mirror = Path(found.lower)
        if found.lower and mirror.exists():
            async with _git.locked(mirror):
                await _git.run("worktree", "prune", "--expire=now", cwd=mirror)
