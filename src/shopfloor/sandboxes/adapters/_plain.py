"""Sandboxes without isolation: a workspace of their own, a clean environment, a keeper that ends them; nothing holds the agent back."""

import asyncio
import hashlib
import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from shopfloor.kit.errors import Forbidden
from shopfloor.sandboxes.adapters import _folder, _limits
from shopfloor.sandboxes.adapters._keeper import plan as plans
from shopfloor.sandboxes.adapters._keeper.plan import Plan
from shopfloor.sandboxes.adapters._kept import BadSandboxSpec, Kept, gate_plan
from shopfloor.sandboxes.port import Capabilities, Finding, Isolation, Network, Remains, SandboxSpec, View, Workspace

PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


class Config(BaseModel):
    """There is nothing to set."""

    model_config = ConfigDict(extra="forbid")


class NoIsolation(Forbidden):
    """This sandbox would not isolate the agent."""

    hint = (
        "The agent could read and change everything this user can, and reach any network. Use the sandbox 'local', "
        "or allow it for this order by allow_no_isolation."
    )


class Plain(Kept):
    """What git_branch and git_worktree share."""

    name: str
    workspace: Workspace

    @property
    def owner(self) -> tuple[int, int] | None:
        """Everything belongs to the server's own user."""
        return None

    async def capabilities(self) -> Capabilities:
        """A workspace and some limits; no isolation."""
        found = await asyncio.to_thread(_limits.in_force, isolated=False)
        return Capabilities(workspace=self.workspace, isolation=Isolation.NONE, network=Network.OPEN, limits=found)

    async def doctor(self) -> list[Finding]:
        """There is little to try: git and a process."""
        return [Finding(name=self.name, ok=True, detail="works wherever git does; it does not isolate the agent")]

    def view(self, spec: SandboxSpec) -> View:
        """The host's own paths, and an address of the loopback network that belongs to this sandbox alone."""
        folder = self.root / spec.sandbox_id
        digest = hashlib.sha256(os.fsencode(folder)).digest()
        paths = {
            "/workspace": str(folder / plans.WORKSPACE),
            "/tmp": str(folder / "tmp"),  # noqa: S108
            "/home/agent": str(folder / "home"),
            **{path: str(source) for path, source in (*spec.read_only.items(), *spec.writable.items())},
        }
        return View(paths=paths, address=f"127.{64 + digest[0] % 128}.{digest[1]}.{1 + digest[2] % 254}")

    def plan(self, spec: SandboxSpec, folder: Path) -> Plan:
        """The spec in the keeper's words, with host paths for the spec's own."""
        if not spec.allow_no_isolation:
            raise NoIsolation
        if not spec.argv:
            raise BadSandboxSpec("argv is empty")
        view = self.view(spec)
        base = {
            "PATH": PATH,
            "HOME": view.path("/home/agent"),
            "LANG": "C.UTF-8",
            "TMPDIR": view.path("/tmp"),  # noqa: S108
            _folder.MARK: str(folder),
        }
        return Plan(
            sandbox_id=spec.sandbox_id,
            labels=dict(spec.labels),
            argv=[view.path(part) for part in spec.argv],
            env={**base, **spec.env},
            directory=view.path("/workspace"),
            processes=spec.limits.processes,
            memory=spec.limits.memory,
            disk=spec.limits.disk,
            tmp=spec.limits.tmp,
            watched=[str(folder), *(str(source) for source in spec.writable.values())],
            gate=gate_plan(spec, view.address),
            cgroups=_limits.cgroups(folder, spec.limits),
        )

    async def furnish(self, spec: SandboxSpec, folder: Path, lock: int) -> None:
        """Its folders, and the code."""
        workspace = folder / plans.WORKSPACE
        if workspace.exists():
            await _folder.delete(workspace)
        for name in ("tmp", "home"):
            (folder / name).mkdir(exist_ok=True)
        if spec.checkout is None:
            workspace.mkdir()
        else:
            await self.check_out(spec, workspace, lock)

    def laid_out(self, folder: Path, found: Plan | None, made: float) -> Remains:  # noqa: ARG002 -- for adapters that share
        """A whole work tree with its repository inside; what is older than the sandbox came with the golden checkout."""
        files = folder / plans.WORKSPACE
        return Remains(files=files, layered=False, git=files / ".git", common=files / ".git", since=made)

    async def check_out(self, spec: SandboxSpec, workspace: Path, lock: int) -> None:
        """Put the code into `workspace`."""
        raise NotImplementedError
