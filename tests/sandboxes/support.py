"""What sandbox tests need: code to work on, a sandbox to try things in, and eyes for what is left behind."""

import asyncio
import os
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from shopfloor.sandboxes.port import Adapter, Capabilities, Checkout, ExecResult, SandboxInfo, SandboxSpec

AUTHOR = ("-c", "user.name=Test", "-c", "user.email=test@example.invalid")
FOR_EVER = ("sleep", "600")


def git(*args: str, cwd: Path) -> str:
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", "LANG": "C.UTF-8"}
    done = subprocess.run(["git", *AUTHOR, *args], cwd=cwd, env=env, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def code(folder: Path) -> Checkout:
    """A mirror with one commit and a clean checkout of it."""
    source, mirror, golden = folder / "source", folder / "mirror.git", folder / "golden"
    source.mkdir(parents=True)
    git("init", "-q", "-b", "main", cwd=source)
    (source / "README.md").write_text("hello\n")
    (source / "größe 😀.txt").write_text("ünïcode\n")
    git("add", "-A", cwd=source)
    git("commit", "-qm", "first", cwd=source)
    git("clone", "-q", "--bare", str(source), str(mirror), cwd=folder)
    git("clone", "-q", str(mirror), str(golden), cwd=folder)
    git("checkout", "-q", "--detach", cwd=golden)
    return Checkout(mirror=mirror, golden=golden, base_commit=git("rev-parse", "HEAD", cwd=source), branch="feat")


def give(path: Path, owner: tuple[int, int] | None) -> None:
    """Make `path` and all below it belong to who runs in sandboxes."""
    if owner:
        for folder, _, files in os.walk(path):
            for name in (folder, *(os.path.join(folder, f) for f in files)):
                os.chown(name, *owner, follow_symlinks=False)


@dataclass
class Shop:
    """One adapter and what its sandboxes start from."""

    adapter: Adapter
    open_again: Callable[[], Adapter]
    """The same sandboxes as a new server sees them."""
    folder: Path
    checkout: Checkout
    capabilities: Capabilities
    made: list[str] = field(default_factory=list)

    def new_id(self) -> str:
        return f"t-{uuid.uuid4().hex[:10]}"

    def new_folder(self, name: str = "out") -> Path:
        place = self.folder / f"{name}-{uuid.uuid4().hex[:10]}"
        place.mkdir(parents=True)
        give(place, self.adapter.owner)
        return place

    def spec(self, *argv: str, **changes: Any) -> SandboxSpec:
        name = self.new_id()
        spec = SandboxSpec(
            sandbox_id=name,
            labels={"order": "wo-1"},
            checkout=replace(self.checkout, branch=f"feat/{name}"),
            argv=argv or FOR_EVER,
            env={},
            lease_seconds=120,
            allow_no_isolation=True,
        )
        return replace(spec, **changes)

    @asynccontextmanager
    async def running(self, *argv: str, **changes: Any) -> AsyncIterator["Sandbox"]:
        """A sandbox for the length of a block."""
        spec = self.spec(*argv, **changes)
        try:
            yield Sandbox(self, spec, await self.adapter.create(spec))
        finally:
            await self.adapter.destroy(spec.sandbox_id)

    async def ended(self, *argv: str, **changes: Any) -> SandboxInfo:
        """How a sandbox ended that ran by itself."""
        async with self.running(*argv, **changes) as sandbox:
            return await sandbox.wait()


@dataclass
class Sandbox:
    """A running sandbox."""

    shop: Shop
    spec: SandboxSpec
    info: SandboxInfo

    @property
    def id(self) -> str:
        return self.spec.sandbox_id

    def path(self, asked: str) -> str:
        return self.shop.adapter.view(self.spec).path(asked)

    async def sh(self, script: str, **how: Any) -> ExecResult:
        """Run a shell script inside."""
        return await self.shop.adapter.exec(self.id, ("sh", "-c", script), **how)

    async def said(self, script: str, **how: Any) -> str:
        """What a script that must work prints."""
        result = await self.sh(script, **how)
        assert result.exit_code == 0, result
        return result.stdout.decode().strip()

    async def wait(self) -> SandboxInfo:
        async with asyncio.timeout(30):
            return await self.shop.adapter.wait(self.id)

    @property
    def folder(self) -> Path:
        assert self.info.workspace
        return next(p for p in self.info.workspace.parents if p.name == self.id)


async def until(true: Callable[[], object], patience: float = 20) -> None:
    """Wait for something another process does."""
    end = time.monotonic() + patience
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.01)


def processes(folder: Path) -> list[int]:
    """Every process that works in `folder` or has anything of it mounted, keepers included; not this one and its helper."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            cwd = os.readlink(f"/proc/{name}/cwd")
            mounts = Path(f"/proc/{name}/mountinfo").read_text()
        except OSError:
            continue
        if cwd.startswith(str(folder)) or str(folder) in mounts:
            found.append(int(name))
    return found


def keeper(sandbox: Sandbox) -> int:
    """The pid of a sandbox's keeper: the process whose working directory is its folder."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{name}/cwd") == str(sandbox.folder):
                return int(name)
        except OSError:
            continue
    raise AssertionError("there is no keeper")


def control_groups(name: str) -> list[Path]:
    """Control groups made for a sandbox."""
    return [Path(folder) for folder, _, _ in os.walk("/sys/fs/cgroup") if name in folder]
