"""A clone of its own on the work's branch; the agent runs as a plain process of this user."""

from pathlib import Path

from shopfloor.sandboxes.adapters import _git
from shopfloor.sandboxes.adapters._plain import Config, Plain
from shopfloor.sandboxes.port import SandboxSpec, Workspace

__all__ = ["Config", "GitBranch", "create"]


def create(root: Path, config: Config) -> "GitBranch":  # noqa: ARG001 -- there is nothing to configure
    """The adapter, keeping its sandboxes below `root`."""
    return GitBranch(root)


class GitBranch(Plain):
    """Clones without isolation."""

    name = "git_branch"
    workspace = Workspace.BRANCH

    async def check_out(self, spec: SandboxSpec, workspace: Path) -> None:
        """Clone: files of the mirror are copied, never linked, so that nothing the agent does reaches it."""
        assert spec.checkout
        code = spec.checkout
        await _git.run(
            "clone",
            "-q",
            "--no-hardlinks",
            "--no-checkout",
            "--",
            str(code.mirror),
            str(workspace),
            cwd=workspace.parent,
        )
        await _git.run("checkout", "-q", "-B", code.branch, code.base_commit, "--", cwd=workspace)
