"""A repository of its own on the work's branch; the agent runs as a plain process of this user."""

import asyncio
from pathlib import Path

from shopfloor.sandboxes.adapters import _branch
from shopfloor.sandboxes.adapters._kept import SandboxDidNotStart
from shopfloor.sandboxes.adapters._plain import Config, Plain
from shopfloor.sandboxes.port import SandboxSpec, Workspace

__all__ = ["Config", "GitBranch", "create"]


def create(root: Path, config: Config) -> "GitBranch":  # noqa: ARG001 -- there is nothing to configure
    """The adapter, keeping its sandboxes below `root`."""
    return GitBranch(root)


class GitBranch(Plain):
    """Full copies without isolation."""

    name = "git_branch"
    workspace = Workspace.BRANCH

    async def check_out(self, spec: SandboxSpec, workspace: Path, lock: int) -> None:
        """Copy the golden checkout, repository and all: it never changes, so no lock is needed, and nothing is shared with it."""
        assert spec.checkout
        copy = ("cp", "-a", "--no-preserve=ownership", "--reflink=auto", "--")
        process = await asyncio.create_subprocess_exec(
            *copy, str(spec.checkout.golden), str(workspace), stderr=asyncio.subprocess.PIPE, pass_fds=(lock,)
        )
        _, complaint = await process.communicate()
        if process.returncode:
            raise SandboxDidNotStart(
                f"the code could not be copied: {complaint.decode(errors='replace').strip()[-300:]}"
            )
        _branch.start(workspace / ".git", spec.checkout, None)
