"""What a sandbox adapter must do. A sandbox is a workspace (how the code gets in) x an isolation (what holds the agent)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol


class Workspace(StrEnum):
    """How the agent's copy of the code is made."""

    BRANCH = "branch"
    WORKTREE = "worktree"
    OVERLAY = "overlay"


class Isolation(StrEnum):
    """What stands between the agent and the host."""

    NONE = "none"
    BWRAP = "bwrap"


class Network(StrEnum):
    """What the sandbox can reach."""

    NONE = "none"
    ALLOW_LIST = "allow_list"
    OPEN = "open"


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What an adapter really gives on this host, limits in force included."""

    workspace: Workspace
    isolation: Isolation
    network: Network
    limits: Mapping[str, str]
    """Limit name (processes, memory, disk, cpu, tmp) -> what enforces it (cgroup, rlimit, tmpfs, watchdog, "" for nothing)."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a sandbox may use. Sizes in bytes."""

    processes: int = 256
    memory: int = 4 << 30
    disk: int = 4 << 30
    """Written to the workspace, home and spool together."""
    tmp: int = 512 << 20


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """The code a sandbox starts from; the host owns all of it and no sandbox can write it."""

    mirror: Path
    """Bare repository."""
    golden: Path
    """Clean checkout (with its own .git, HEAD detached) of `base_commit`: the lower layer of an overlay."""
    base_commit: str
    branch: str
    """The branch the work is committed to; exists in the workspace when the program starts."""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """The only ways out of the sandbox's network."""

    api_socket: Path
    """Unix socket of the server's sandbox door; inside it is http://127.0.0.1:8787."""
    allow: frozenset[str] = frozenset()
    """`host:port` that HTTP(S)_PROXY=http://127.0.0.1:3128 may reach."""
    pipes: Mapping[int, str] = field(default_factory=dict)
    """Port on the sandbox's loopback -> host `address:port` it is wired to (a local model server, say)."""


@dataclass(frozen=True, kw_only=True)
class SandboxSpec:
    """One sandbox, to be created as said or not at all."""

    sandbox_id: str
    """Unique, `[a-z0-9][a-z0-9._-]{0,99}`; creating the same id again re-attaches."""
    labels: Mapping[str, str]
    checkout: Checkout | None
    """None: an empty workspace."""
    argv: tuple[str, ...]
    """The main program (paths as seen inside). The sandbox exits when it exits."""
    env: Mapping[str, str]
    """The whole environment beyond PATH, HOME, LANG, TMPDIR and the proxy variables."""
    read_only: Mapping[str, Path] = field(default_factory=dict)
    """Path inside -> host file or folder shown read-only."""
    writable: Mapping[str, Path] = field(default_factory=dict)
    """Path inside -> host folder or file kept after the sandbox is gone (agent home, spool)."""
    gate: Gate | None = None
    """None: no network at all."""
    limits: Limits = Limits()
    lease_seconds: float = 900
    """The sandbox ends itself when nobody renews it for so long."""
    allow_no_isolation: bool = False
    """Must be true for an adapter whose isolation is none."""


@dataclass(frozen=True, kw_only=True)
class View:
    """How the programs in a sandbox see it. Known before it is created, so that a job can be written for it."""

    paths: Mapping[str, str]
    """Path of the spec (/workspace, /tmp, /home/agent and every mount) -> what it is called inside."""
    address: str = "127.0.0.1"
    """Where the gate listens: the API on port 8787, the proxy on 3128, each pipe on its own port."""

    @property
    def api_url(self) -> str:
        """The API's sandbox door."""
        return f"http://{self.address}:8787"

    def path(self, asked: str) -> str:
        """What a path of the spec, or one below it, is called inside; any other text is answered as it is."""
        for parent in sorted(self.paths, key=len, reverse=True):
            if asked == parent or asked.startswith(f"{parent}/"):
                return self.paths[parent] + asked[len(parent) :]
        return asked


class Life(StrEnum):
    """What an adapter sees of a sandbox, from the operating system's facts alone."""

    RUNNING = "running"
    EXITED = "exited"
    LOST = "lost"
    """Its keeper died without saying how."""


@dataclass(frozen=True, kw_only=True)
class SandboxInfo:
    """A sandbox as the adapter finds it."""

    sandbox_id: str
    labels: Mapping[str, str]
    life: Life
    exit_code: int | None = None
    """Of the main program; 128+N for signal N."""
    reason: str = ""
    """Why it ended, when the adapter ended it (lease_expired, disk_limit, file_limit, host_disk_full, memory_limit, stopped)."""
    workspace: Path | None = None
    """Where the workspace's own files lie on the host, for measuring and removal only: hostile content."""


@dataclass(frozen=True, kw_only=True)
class Denied:
    """An attempt to reach something that the gate refused."""

    method: str
    target: str
    """`host:port`, in the agent's words."""
    reason: str


@dataclass(frozen=True, kw_only=True)
class Remains:
    """Where what an agent left lies on the host, as the adapter laid it out: hostile content, to be read by `kit.trees` alone."""

    files: Path
    """The work tree."""
    layered: bool
    """Only what differs from the base commit lies there (an overlay's upper layer); else everything does."""
    git: Path
    """The folder with HEAD and its log, where the program's own hand has not moved it."""
    common: Path
    """The folder with refs and objects."""
    shared: bool = False
    """Other sandboxes have refs and objects there, too."""
    since: float = 0
    """Objects that are older are not this sandbox's."""


@dataclass(frozen=True, kw_only=True)
class ExecResult:
    """A command that ran in a sandbox to its end or to its timeout."""

    exit_code: int
    """128+N for signal N; 124 with timed_out."""
    stdout: bytes
    stderr: bytes
    timed_out: bool = False


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing `doctor` tried."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


class Adapter(Protocol):
    """A provider of sandboxes on this host. Each module in adapters/ has `Config` (pydantic, extra=forbid) and
    `create(root: Path, config: Config) -> Adapter`, where `root` is the folder it may use.
    """

    name: str

    @property
    def owner(self) -> tuple[int, int] | None:
        """The uid and gid that must own goldens and `writable` folders; None: this process's own."""

    async def capabilities(self) -> Capabilities:
        """What this host really gives."""

    async def doctor(self) -> list[Finding]:
        """Start a real sandbox and report what worked, with the fix for what did not."""

    def view(self, spec: SandboxSpec) -> View:
        """How the programs in that sandbox will see their paths and the gate; the identity where there is isolation.

        `create` translates the parts of `argv` itself; what is written into files is the caller's to translate.
        """

    async def create(self, spec: SandboxSpec) -> SandboxInfo:
        """Create and start the sandbox, or re-attach to the one of that id."""

    async def get(self, sandbox_id: str) -> SandboxInfo | None:
        """The sandbox of that id, also after a restart of this process; None when there is none."""

    async def list(self) -> list[SandboxInfo]:
        """Every sandbox below `root`, running or not."""

    async def denied(self, sandbox_id: str, after: int) -> Sequence[Denied]:
        """What the gate refused, but for the first `after` times; empty when there is no such sandbox."""

    async def renew(self, sandbox_id: str, lease_seconds: float) -> None:
        """Push the end of its lease to `lease_seconds` from now."""

    async def exec(
        self,
        sandbox_id: str,
        argv: tuple[str, ...],
        *,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        timeout: float = 300,
    ) -> ExecResult:
        """Run a command inside the running sandbox; at the timeout it and its children are killed. Output is capped at 10 MiB each."""

    def output(self, sandbox_id: str) -> bytes:
        """What the main program printed, both ways together: all of it up to 1 MiB, else that and its last 64 KiB. Empty without a sandbox. Blocks."""

    async def wait(self, sandbox_id: str) -> SandboxInfo:
        """Answer once the sandbox has ended, however it ended."""

    async def stop(self, sandbox_id: str, *, grace_seconds: float = 10) -> None:
        """Ask the main program to end (SIGTERM), then end the whole sandbox."""

    async def halt(self, sandbox_id: str) -> None:
        """End the sandbox if it runs, at once and with all its processes; its files stay. Idempotent."""

    def remains(self, sandbox_id: str) -> Remains | None:
        """Where its files lie; None when there is no such sandbox here."""

    async def destroy(self, sandbox_id: str) -> None:
        """End the sandbox if it runs and remove everything of it but the `writable` folders. Idempotent."""
