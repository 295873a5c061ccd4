"""The default sandbox: a rootless overlay over a clean checkout, bubblewrap around it, an allow-list gate for its network."""

import asyncio
import os
import sys
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict, Field

from shopfloor.sandboxes.adapters import _branch
from shopfloor.sandboxes.adapters import _limits as limits
from shopfloor.sandboxes.adapters._keeper import plan as plans
from shopfloor.sandboxes.adapters._keeper import profile
from shopfloor.sandboxes.adapters._keeper.plan import Plan
from shopfloor.sandboxes.adapters._kept import BadSandboxSpec, Kept, gate_plan
from shopfloor.sandboxes.adapters.local import bubblewrap
from shopfloor.sandboxes.port import Capabilities, Finding, Isolation, Network, Remains, SandboxSpec, View, Workspace

WORKSPACE = "/workspace"
HINTS = {
    "setting up uid map": "This system forbids user namespaces to ordinary programs (AppArmor, Ubuntu >= 23.10): install bubblewrap "
    ">= 0.11 with its profile as /usr/bin/bwrap, or set kernel.apparmor_restrict_unprivileged_userns=0.",
    "RTM_NEWADDR": "This system forbids user namespaces to ordinary programs (AppArmor): see 'setting up uid map'.",
    "No permissions to create new namespace": "User namespaces are off: set kernel.unprivileged_userns_clone=1, or user.max_user_namespaces > 0.",
    "Can't mount proc": "This is a container whose /proc is masked: start it with seccomp=unconfined and unmask=ALL.",
    "Value too large": "The checkout below the workspace belongs to another user: it must be owned by the adapter's `owner`.",
    "os.unshare": "This system forbids namespaces to this user: see kernel.unprivileged_userns_clone, user.max_user_namespaces and AppArmor.",
}


class Config(BaseModel):
    """Settings of the local sandbox."""

    model_config = ConfigDict(extra="forbid")

    uid: int = Field(64646, ge=1)
    """Host user and group that sandboxes run as when the server runs as root; it needs no entry in /etc/passwd."""


def create(root: Path, config: Config) -> "Local":
    """The adapter, keeping its sandboxes below `root`."""
    return Local(root, config)


class Local(Kept):
    """Sandboxes on this host, isolated by bubblewrap."""

    name = "local"
    hints = HINTS

    def __init__(self, root: Path, config: Config) -> None:
        super().__init__(root)
        self.config = config

    @property
    def owner(self) -> tuple[int, int] | None:
        """The service user of a server that runs as root; else nobody but the server's own."""
        return (self.config.uid, self.config.uid) if os.geteuid() == 0 else None

    async def capabilities(self) -> Capabilities:
        """Overlay, bubblewrap, allow list; and the limits this host lets us enforce."""
        return Capabilities(
            workspace=Workspace.OVERLAY,
            isolation=Isolation.BWRAP,
            network=Network.ALLOW_LIST,
            limits=await asyncio.to_thread(limits.in_force, isolated=True),
        )

    async def doctor(self) -> list[Finding]:
        """Start real sandboxes and report what worked."""
        from shopfloor.sandboxes.adapters.local import doctor  # knows this class

        return await doctor.examine(self)

    def view(self, spec: SandboxSpec) -> View:
        """As asked."""
        return View(paths={path: path for path in (WORKSPACE, "/tmp", "/home/agent", *spec.read_only, *spec.writable)})  # noqa: S108

    def plan(self, spec: SandboxSpec, folder: Path) -> Plan:
        """The spec in the keeper's words."""
        _check_mounts(spec)
        found = bubblewrap.find()
        read_only, writable = ({p: str(s) for p, s in m.items()} for m in (spec.read_only, spec.writable))
        return Plan(
            sandbox_id=spec.sandbox_id,
            labels=dict(spec.labels),
            argv=list(spec.argv),
            env=dict(spec.env),
            directory=WORKSPACE,
            processes=spec.limits.processes,
            memory=spec.limits.memory,
            disk=spec.limits.disk,
            tmp=spec.limits.tmp,
            watched=[str(folder / plans.OVERLAY / "upper"), *writable.values()],
            gate=gate_plan(spec),
            cgroups=limits.cgroups(folder, spec.limits),
            bwrap=str(found.program),
            libraries=str(found.libraries or ""),
            python="" if os.path.exists(profile.PYTHON) else sys.base_prefix,
            lower=str(spec.checkout.golden) if spec.checkout else "",
            read_only=read_only,
            writable=writable,
            owner=self.owner,
        )

    def laid_out(self, folder: Path, found: Plan | None, made: float) -> Remains:  # noqa: ARG002 -- nothing else is shown inside
        """The upper layer holds what differs from the golden checkout, its repository included."""
        upper = folder / plans.OVERLAY / "upper"
        return Remains(files=upper, layered=True, git=upper / ".git", common=upper / ".git")

    async def furnish(self, spec: SandboxSpec, folder: Path, lock: int) -> None:  # noqa: ARG002 -- starts no program
        """The layers of the overlay, owned by whoever writes them, and the branch."""
        for part in ("", "upper", "work"):
            place = folder / plans.OVERLAY / part
            place.mkdir(mode=0o755, exist_ok=True)
            if self.owner:
                os.chown(place, *self.owner)
        if spec.checkout:
            _branch.start(folder / plans.OVERLAY / "upper" / ".git", spec.checkout, self.owner)


def _check_mounts(spec: SandboxSpec) -> None:
    """A mount point below a folder with hostile content could be a link; so none is allowed there."""
    if not spec.argv:
        raise BadSandboxSpec("argv is empty")
    hostile = [PurePosixPath(p) for p in (WORKSPACE, "/tmp", "/home/agent", *spec.writable)]  # noqa: S108
    for text in (*spec.read_only, *spec.writable):
        path = PurePosixPath(text)
        if not path.is_absolute() or ".." in path.parts or str(path) != text or len(path.parts) < 2:
            raise BadSandboxSpec(f"{text!r} is no clean absolute path")
        if path == PurePosixPath(WORKSPACE) or any(folder in path.parents for folder in hostile):
            raise BadSandboxSpec(
                f"{text} lies in a folder that the agent can write", hint="Mount it elsewhere, such as /in."
            )
