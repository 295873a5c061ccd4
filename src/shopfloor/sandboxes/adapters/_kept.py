"""Sandboxes held by keepers: everything the port asks for but the plan and the workspace, which an adapter adds."""

import asyncio
import contextlib
import itertools
import json
import os
import re
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from shopfloor.kit.errors import Malformed, NotFound, Unavailable
from shopfloor.sandboxes.adapters import _client, _folder, _limits
from shopfloor.sandboxes.adapters._keeper import plan
from shopfloor.sandboxes.adapters._keeper.plan import GatePlan, Plan
from shopfloor.sandboxes.adapters._spawn import Spawner
from shopfloor.sandboxes.port import Denied, ExecResult, Life, Remains, SandboxInfo, SandboxSpec

GOOD_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
PATIENCE = 3.0
"""How long a keeper may take to end its sandbox before it counts as hung."""
RECHECK = 2.0
NOT_LISTENING_SECONDS = 20.0
"""A keeper that holds its lock for so long without listening hangs."""


class SandboxNotFound(NotFound):
    """There is no such sandbox."""


class BadSandboxSpec(Malformed):
    """The sandbox cannot be made as described."""


class SandboxDidNotStart(Unavailable):
    """The sandbox did not start."""


class Kept:
    """The sandboxes below one folder. Holds no registry: a restart of the server loses nothing."""

    hints: ClassVar[Mapping[str, str]] = {}
    """What a failed start printed -> how to mend it."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._spawner = Spawner()

    def plan(self, spec: SandboxSpec, folder: Path) -> Plan:
        """What the keeper is to do; raises when the spec cannot be met."""
        raise NotImplementedError

    async def furnish(self, spec: SandboxSpec, folder: Path, lock: int) -> None:
        """Make the workspace; called again after a crash, so it starts by clearing what is there.

        Programs it starts inherit `lock`: what a killed server left at work counts as its creation until it is done.
        """

    async def unfurnish(self, folder: Path, found: Plan) -> None:
        """Forget the workspace wherever else it is known, after its folder is gone."""

    async def create(self, spec: SandboxSpec) -> SandboxInfo:
        """Create and start the sandbox, or re-attach to the one of that id."""
        if not GOOD_ID.fullmatch(spec.sandbox_id):
            raise BadSandboxSpec(f"{spec.sandbox_id!r} is no id of a sandbox", hint="Use [a-z0-9][a-z0-9._-]{0,99}.")
        folder = self._folder(spec.sandbox_id)
        plan = await asyncio.to_thread(self.plan, spec, folder)
        # Not in a thread: when this task is cancelled, the lock must not stay with a thread whose answer nobody takes.
        while (lock := _folder.claim(folder, plan, spec.lease_seconds)) is None:
            if _folder.was_started(folder):
                return await self._attach(spec.sandbox_id)
            await asyncio.sleep(0.01)  # another creator is at it, or what it left at work when it died
        try:
            try:
                await self.furnish(spec, folder, lock)
                started = await self._spawner.start(folder, lock)
            finally:
                os.close(lock)
        except Exception:
            await self.destroy(spec.sandbox_id)  # as said, or not at all
            raise
        info = await self.get(spec.sandbox_id)
        if not started or info is None:
            printed = await asyncio.to_thread(_printed, folder)
            await self.destroy(spec.sandbox_id)
            raise SandboxDidNotStart(f"the sandbox did not start: {printed}", hint=self._hint(printed))
        return info

    async def _attach(self, sandbox_id: str) -> SandboxInfo:
        info = await self.get(sandbox_id)
        if info is None:
            raise SandboxDidNotStart("the sandbox was removed while it was made")
        return info

    def _hint(self, printed: str) -> str:
        found = (hint for text, hint in self.hints.items() if text in printed)
        return next(found, "Run the adapter's doctor; it tries each part alone.")

    def _folder(self, sandbox_id: str) -> Path:
        if not GOOD_ID.fullmatch(sandbox_id):
            raise SandboxNotFound(f"there is no sandbox {sandbox_id!r}")
        return self.root / sandbox_id

    async def get(self, sandbox_id: str) -> SandboxInfo | None:
        """The sandbox of that id, from the facts of this instant."""
        try:
            return _folder.info(self._folder(sandbox_id))
        except SandboxNotFound:
            return None

    async def list(self) -> list[SandboxInfo]:
        """Every sandbox; what interrupted work left behind is removed on the way."""
        return [info for info in map(_folder.info, await self._reap()) if info]

    async def _reap(self) -> Sequence[Path]:
        await asyncio.to_thread(_limits.reap, self.root)
        return await _folder.reap(self.root)

    async def denied(self, sandbox_id: str, after: int) -> Sequence[Denied]:
        """What the keeper's gate has written down."""
        try:
            with (self._folder(sandbox_id) / plan.DENIED).open() as file:
                return [_denial(line) for line in itertools.islice(file, after, None) if line.endswith("\n")]
        except (FileNotFoundError, NotADirectoryError, SandboxNotFound):
            return []

    async def renew(self, sandbox_id: str, lease_seconds: float) -> None:
        """Push the end of its lease to `lease_seconds` from now."""
        try:
            _folder.renew(self._folder(sandbox_id), lease_seconds)
        except FileNotFoundError as error:
            raise SandboxNotFound(f"there is no sandbox {sandbox_id}") from error

    async def exec(
        self,
        sandbox_id: str,
        argv: tuple[str, ...],
        *,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        timeout: float = 300,
    ) -> ExecResult:
        """Run a command inside the running sandbox."""
        folder = self._folder(sandbox_id)
        if _folder.info(folder) is None:
            raise SandboxNotFound(f"there is no sandbox {sandbox_id}")
        return await _client.run(folder, argv, env=env or {}, stdin=stdin, timeout=timeout)

    def output(self, sandbox_id: str) -> bytes:
        """What the keeper has kept of it, outside of the sandbox's reach."""
        with contextlib.suppress(SandboxNotFound, FileNotFoundError, NotADirectoryError):
            return (self._folder(sandbox_id) / plan.OUTPUT).read_bytes()
        return b""

    async def wait(self, sandbox_id: str) -> SandboxInfo:
        """Answer once the sandbox has ended; woken by the keeper's end of a connection, which the kernel closes for the dead."""
        while True:
            info = await self.get(sandbox_id)
            if info is None:
                raise SandboxNotFound(f"there is no sandbox {sandbox_id}")
            if info.life is not Life.RUNNING:
                return info
            with contextlib.suppress(_client.SandboxNotRunning):
                with _client.connect(self._folder(sandbox_id)) as connection:
                    await _client.closed(connection, RECHECK)
                continue
            await asyncio.sleep(0.01)

    async def stop(self, sandbox_id: str, *, grace_seconds: float = 10) -> None:
        """Ask the main program to end, then end the whole sandbox."""
        folder = self._folder(sandbox_id)
        if _folder.info(folder) is None:
            raise SandboxNotFound(f"there is no sandbox {sandbox_id}")
        await self._end(folder, grace_seconds)

    async def _end(self, folder: Path, grace_seconds: float) -> None:
        connection = await self._reach(folder, grace_seconds)
        if connection is None:
            return
        with connection:
            keeper = _client.keeper_pid(connection)
            await _client.closed(connection, grace_seconds + PATIENCE)
        if not await _folder.free(folder, plan.ALIVE, 0.1):
            with contextlib.suppress(ProcessLookupError):
                os.kill(keeper, signal.SIGKILL)
            await _folder.free(folder, plan.ALIVE, PATIENCE)

    async def _reach(self, folder: Path, grace_seconds: float) -> socket.socket | None:
        """Ask the keeper to end its sandbox; None when it has ended. One that does not listen yet makes the sandbox just now, or hangs."""
        late = time.monotonic() + NOT_LISTENING_SECONDS
        while not await _folder.free(folder, plan.ALIVE, 0.05):
            with contextlib.suppress(_client.SandboxNotRunning):
                return _client.ask_to_stop(folder, grace_seconds)
            if time.monotonic() > late:
                await asyncio.to_thread(_folder.kill_holders, folder)
                late = time.monotonic() + PATIENCE
        return None

    async def halt(self, sandbox_id: str) -> None:
        """End the sandbox if it runs, at once and with all its processes; its files stay."""
        with contextlib.suppress(SandboxNotFound, FileNotFoundError, NotADirectoryError):
            await self._halt(self._folder(sandbox_id))

    async def _halt(self, folder: Path) -> Plan | None:
        """Answers the plan if it can be read; FileNotFoundError when there is no such sandbox."""
        try:
            found: Plan | None = plan.load(str(folder))
        except plan.BadPlan:
            found = None
        await self._end(folder, 0)
        if found is None:
            await asyncio.to_thread(_folder.kill_holders, folder)
        else:
            await _folder.end_rest(folder)
        return found

    def remains(self, sandbox_id: str) -> Remains | None:
        """Where its files lie on the host."""
        with contextlib.suppress(SandboxNotFound, FileNotFoundError, NotADirectoryError):
            folder = self._folder(sandbox_id)
            made = (folder / plan.PLAN).stat().st_mtime
            try:
                return self.laid_out(folder, plan.load(str(folder)), made)
            except plan.BadPlan:
                return self.laid_out(folder, None, made)
        return None

    def laid_out(self, folder: Path, found: Plan | None, made: float) -> Remains:
        """Where the files of the sandbox in `folder` lie; its plan may be unreadable. A repository of its own in the work tree, unless an adapter does it otherwise."""
        raise NotImplementedError

    async def destroy(self, sandbox_id: str) -> None:
        """End the sandbox if it runs and remove everything of it but the `writable` folders."""
        try:
            folder = self._folder(sandbox_id)
            found = await self._halt(folder)
        except (SandboxNotFound, FileNotFoundError, NotADirectoryError):
            return
        await _folder.remove(folder)
        if found:
            await self.unfurnish(folder, found)


def gate_plan(spec: SandboxSpec, address: str = "127.0.0.1") -> GatePlan | None:
    """The spec's gate in the keeper's words."""
    if spec.gate is None:
        return None
    pipes = {str(port): target for port, target in spec.gate.pipes.items()}
    return GatePlan(api_socket=str(spec.gate.api_socket), allow=sorted(spec.gate.allow), pipes=pipes, address=address)


def _printed(folder: Path) -> str:
    """The last lines of what the start printed."""
    text = ""
    for name in (plan.OUTPUT, plan.KEEPER_LOG):
        with contextlib.suppress(FileNotFoundError):
            text += (folder / name).read_text(errors="replace")
    return " ".join(text.split("\n")[-6:]).strip()[-800:] or "it said nothing"


def _denial(line: str) -> Denied:
    said = json.loads(line)
    return Denied(method=said["method"], target=said["target"], reason=said["why"])
