"""Looking at this machine's process table (Linux: /proc)."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def inside(folder: Path) -> dict[int, Path]:
    """Processes whose working directory lies below a folder, and that directory: the keepers of its sandboxes."""
    found = {}
    for pid in _pids():
        with contextlib.suppress(OSError):
            place = Path(os.readlink(f"/proc/{pid}/cwd").removesuffix(" (deleted)"))
            if place.is_relative_to(folder):
                found[pid] = place
    return found


def below(ancestors: list[int]) -> list[int]:
    """Every process that descends from others, parents before children."""
    children: dict[int, list[int]] = {}
    for pid in _pids():
        with contextlib.suppress(OSError, ValueError, IndexError):
            stat = Path(f"/proc/{pid}/stat").read_bytes()
            children.setdefault(int(stat.rpartition(b")")[2].split()[1]), []).append(pid)
    found, level = [], list(ancestors)
    while level:
        level = [child for pid in level for child in children.get(pid, ()) if child not in found]
        found += level
    return found


def command(pid: int) -> list[str]:
    """The command line of a process; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
    except OSError:
        return []


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())
