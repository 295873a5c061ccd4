"""Watching what no kernel limit holds: memory without a control group, disk always."""

import contextlib
import os
import subprocess
import time

from shopfloor.sandboxes.adapters._keeper.plan import Plan

FREE_FLOOR = 512 << 20
"""A sandbox ends rather than leave the host's disk with less."""
FEW_FILES = 20_000
FILE_SIZE = 4096
"""Files may be so small on average: a file system runs out of them, too."""
MEASURE = 'du -s --total --block-size=1 -- "$@" | tail -n 1; du -s --total --inodes -- "$@" | tail -n 1'
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
        self.command = [*as_root, "sh", "-c", MEASURE, "du", *self.folders]
        self.running: subprocess.Popen[bytes] | None = None
        self.began = 0.0
        self.used = self.files = 0
        self.most_files = max(FEW_FILES, plan.disk // FILE_SIZE)
        self.free_then = self._free()
        self.next = time.monotonic() + 1

    def exceeded(self) -> str:
        """Why the sandbox must end: it has written more, or more files, than it may, or the host's disk is nearly full; else empty."""
        free = self._free()
        if self.running:
            self._collect()
        elif self.folders and (time.monotonic() > self.next or self.free_then - free > self.limit - self.used):
            self.began, self.free_then = time.monotonic(), free
            self.running = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        if self.used > self.limit:
            return "disk_limit"
        if self.files > self.most_files:
            return "file_limit"
        return "host_disk_full" if free < FREE_FLOOR and self.used > 0 else ""

    def _collect(self) -> None:
        assert self.running
        if self.running.poll() is None:
            return
        out = self.running.stdout.read() if self.running.stdout else b""
        with contextlib.suppress(ValueError, IndexError):
            used, files = out.splitlines()
            self.used, self.files = int(used.split()[0]), int(files.split()[0])
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
