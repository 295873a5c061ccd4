"""What the folder of a sandbox says about it. Nothing is remembered: files and kernel locks are all there is."""

import asyncio
import contextlib
import json
import os
import select
import signal
import time
from pathlib import Path

from shopfloor.kit import ids, log
from shopfloor.kit.errors import Problem
from shopfloor.sandboxes.adapters._keeper import cgroups, locks, plan, watch
from shopfloor.sandboxes.adapters._keeper.plan import Plan
from shopfloor.sandboxes.port import Life, SandboxInfo

NEW, GONE = ".new-", ".gone-"
MARK = "SHOPFLOOR_SANDBOX_FOLDER"
"""Variable that marks the processes of a sandbox without isolation."""


logger = log.get(__name__)


class NotRemoved(Problem):
    """Something of the sandbox could not be removed."""


def info(folder: Path) -> SandboxInfo | None:
    """The sandbox in `folder`, from the facts of this instant; None when there is none."""
    try:
        found = plan.load(str(folder))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except plan.BadPlan as error:
        return SandboxInfo(
            sandbox_id=folder.name,
            labels={},
            life=Life.LOST,
            exit_code=None,
            reason=str(error),
            workspace=folder / plan.WORKSPACE,
        )
    workspace = folder / plan.OVERLAY / "upper" if found.bwrap else folder / plan.WORKSPACE
    life, code, reason = _life(folder)
    return SandboxInfo(
        sandbox_id=found.sandbox_id,
        labels=found.labels,
        life=life,
        exit_code=code,
        reason=reason,
        workspace=workspace,
    )


def _life(folder: Path) -> tuple[Life, int | None, str]:
    # The lock first: the keeper writes how it ended before it lets go.
    if locks.held(str(folder / plan.ALIVE)):
        return Life.RUNNING, None, ""
    try:
        ended = json.loads((folder / plan.EXIT).read_bytes())
    except FileNotFoundError:
        started = (folder / plan.STARTED).exists()
        return Life.LOST, None, "" if started else "never_started"
    return Life.EXITED, ended["exit_code"], ended["reason"]


def claim(folder: Path, wanted: Plan, lease_seconds: float) -> int | None:
    """Become the creator of the sandbox: answers the open lock, None when it was started already (or another is at it)."""
    while True:
        if folder.exists():
            return _claim_existing(folder, lease_seconds)
        fresh = folder.with_name(f"{NEW}{folder.name}{ids.new('')}")
        with contextlib.suppress(FileNotFoundError):  # reaped under our hands, before it was locked: again
            lock = _make(fresh, wanted, lease_seconds)
            if lock is None:
                continue
            try:
                fresh.rename(folder)
            except OSError:
                os.close(lock)
                if not folder.exists():
                    raise
                continue
            return lock


def _make(fresh: Path, wanted: Plan, lease_seconds: float) -> int | None:
    fresh.mkdir(mode=0o700, parents=True)
    lock = locks.take(str(fresh / plan.ALIVE))
    if lock is not None:
        renew(fresh, lease_seconds)
        plan.write(str(fresh / plan.PLAN), wanted.dump())
    return lock


def _claim_existing(folder: Path, lease_seconds: float) -> int | None:
    if was_started(folder):
        return None
    lock = locks.take(str(folder / plan.ALIVE))
    if lock is not None and was_started(folder):
        os.close(lock)
        return None
    if lock is not None:
        renew(folder, lease_seconds)
    return lock


def was_started(folder: Path) -> bool:
    """Whether a start was tried, successfully or not."""
    return (folder / plan.STARTED).exists() or (folder / plan.EXIT).exists()


def renew(folder: Path, lease_seconds: float) -> None:
    """Write the end of the lease down; FileNotFoundError when there is no such sandbox."""
    plan.write(str(folder / plan.LEASE), str(time.monotonic() + lease_seconds).encode())


async def free(folder: Path, name: str, patience: float) -> bool:
    """Wait until nobody holds a lock; answers whether that came true."""
    end = time.monotonic() + patience
    while locks.held(str(folder / name)):
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.005)
    return True


async def remove(folder: Path) -> None:
    """Take the folder away at once, then delete it. Its content is hostile: coreutils never follow a link out of it."""
    gone = folder.with_name(f"{GONE}{folder.name}{ids.new('')}")
    try:
        folder.rename(gone)
    except FileNotFoundError:
        return
    await delete(gone)


async def delete(gone: Path) -> None:
    """Delete a tree, also folders closed by mode or by the overlay's own work folder."""
    for command in (["rm", "-rf"], ["chmod", "-R", "u+rwX"], ["rm", "-rf"], ["rm", "-rf"]):
        process = await asyncio.create_subprocess_exec(
            *command, "--", str(gone), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        await process.wait()
        if not os.path.lexists(gone):
            return
    raise NotRemoved(f"{gone} could not be removed", hint="Look who owns what is left in it, and remove it by hand.")


async def reap(root: Path) -> list[Path]:
    """Delete what interrupted creations and removals left; answers the folders of sandboxes."""
    folders = []
    for entry in sorted(root.iterdir()) if root.exists() else []:
        left_over = entry.name.startswith(NEW) and not locks.held(str(entry / plan.ALIVE))
        if left_over or entry.name.startswith(GONE):
            try:
                await delete(entry)
            except NotRemoved as error:  # nobody else has to wait for it; it is tried again at the next turn
                logger.warning("left_over_not_removed", path=str(entry), error=error.message)
        elif not entry.name.startswith("."):
            folders.append(entry)
    return folders


async def end_rest(folder: Path) -> None:
    """Kill what a dead keeper may have left running; bwrap's processes die with it, in their own time."""
    gone = await _end_first(folder)
    found = plan.load(str(folder))
    if found.cgroups:
        gone = await asyncio.to_thread(cgroups.remove, found.cgroups) and gone
    if not found.bwrap:
        await asyncio.to_thread(_kill_marked, f"{MARK}={folder}".encode())
    if not gone:
        raise NotRemoved(
            f"processes of {found.sandbox_id} do not die", hint="Look at them with ps; one may hang in the kernel."
        )


async def _end_first(folder: Path, patience: float = 10) -> bool:
    """Kill the sandbox's process 1, if it is still the one written down; answers whether it, and so all it held, is gone."""
    end = time.monotonic() + patience
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        identity = (folder / plan.FIRST).read_text()
        pid = int(identity.split()[0])
        with os.fdopen(os.pidfd_open(pid)) as handle:
            while watch.identity(pid) == identity and not select.select([handle], [], [], 0)[0]:
                signal.pidfd_send_signal(handle.fileno(), signal.SIGKILL)
                if time.monotonic() > end:
                    return False
                await asyncio.sleep(0.002)
    return True


def kill_holders(folder: Path) -> None:
    """Kill whoever has the lock file of a sandbox open: its keeper, or a program that a killed server left at work."""
    lock = str(folder / plan.ALIVE)
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if int(pid) != os.getpid() and any(os.path.realpath(f) == lock for f in _open_files(pid)):
                os.kill(int(pid), signal.SIGKILL)


def _open_files(pid: str) -> list[str]:
    return [os.path.join(f"/proc/{pid}/fd", name) for name in os.listdir(f"/proc/{pid}/fd")]


def _kill_marked(mark: bytes) -> None:
    for _ in range(1000):
        marked = [pid for pid in os.listdir("/proc") if pid.isdigit() and mark in _environment(pid)]
        if not marked:
            return
        for pid in marked:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        time.sleep(0.005)


def _environment(pid: str) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []
