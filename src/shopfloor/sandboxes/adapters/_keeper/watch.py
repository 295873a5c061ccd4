"""Watching what no kernel limit holds: memory without a control group, disk always."""

import contextlib
import os
import subprocess
import time

from shopfloor.sandboxes.adapters._keeper.plan import Plan

FREE_FLOOR = 512 << 20
"""A sandbox ends rather than leave the host's disk with less."""
PAGE = os.sysconf("SC_PAGE_SIZE")
REST = 20
"""A measurement may take one part in so many of the time."""


class Memory:
    """Sums the memory of everything below one process, private and shared files in memory alike."""

    def __init__(self, plan: Plan) -> None:
        self.limit = plan.memory
        self.enforced = any("memory" in group.path for group in plan.cgroups)
        self.next = time.monotonic() + 1

    def exceeded(self, root: int) -> bool:
        """Whether the processes below `root` use more than the limit."""
        now = time.monotonic()
        if self.enforced or now < self.next:
            return False
        used = sum(_memory(pid) for pid in below(root))
        self.next = time.monotonic() + max(1.0, REST * (time.monotonic() - now))
        return used > self.limit


class Disk:
    """Measures the writable folders with `du`, beside the keeper's loop; at once when the file system fills quickly."""

    def __init__(self, plan: Plan, folder: str) -> None:
        self.limit = plan.disk
        self.folder = folder
        self.folders = [f for f in plan.watched if os.path.exists(f)]
        # Folders an agent closed to itself (mode 000) are read with the capabilities of a user namespace.
        as_root = [] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user"]
        self.command = [*as_root, "du", "-s", "--total", "--block-size=1", "--", *self.folders]
        self.running: subprocess.Popen[bytes] | None = None
        self.began = 0.0
        self.used = 0
        self.free_then = self._free()
        self.next = time.monotonic() + 1

    def exceeded(self) -> bool:
        """Whether the sandbox has written more than its limit, or the host's disk is nearly full."""
        free = self._free()
        if self.running:
            self._collect()
        elif self.folders and (time.monotonic() > self.next or self.free_then - free > self.limit - self.used):
            self.began, self.free_then = time.monotonic(), free
            self.running = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        return self.used > self.limit or (free < FREE_FLOOR and self.used > 0)

    def _collect(self) -> None:
        assert self.running
        if self.running.poll() is None:
            return
        out = self.running.stdout.read() if self.running.stdout else b""
        with contextlib.suppress(ValueError, IndexError):
            self.used = int(out.splitlines()[-1].split()[0])
        self.running = None
        self.next = time.monotonic() + max(2.0, REST * (time.monotonic() - self.began))

    def _free(self) -> int:
        state = os.statvfs(self.folder)
        return state.f_bavail * state.f_frsize


def _stat(pid: int) -> list[bytes]:
    """The fields of a process after its name, which may hold anything."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()


def parent(pid: int) -> int:
    """The parent of a process."""
    return int(_stat(pid)[1])


def identity(pid: int) -> str:
    """A process by number and start time: the number alone is given away again."""
    return f"{pid} {_stat(pid)[19].decode()}"


def parents() -> dict[int, int]:
    """Every process of the host and its parent."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                found[int(name)] = parent(int(name))
    return found


def below(root: int) -> list[int]:
    """All descendants of `root`."""
    children: dict[int, list[int]] = {}
    for pid, parent in parents().items():
        children.setdefault(parent, []).append(pid)
    found, waiting = [], [root]
    while waiting:
        more = children.get(waiting.pop(), [])
        found += more
        waiting += more
    return found


def _memory(pid: int) -> int:
    used = 0
    with contextlib.suppress(OSError, ValueError), open(f"/proc/{pid}/status", "rb") as file:
        for line in file:
            if line.startswith((b"RssAnon:", b"RssShmem:")):
                used += int(line.split()[1]) * 1024
    return used
