"""Which limits this host lets us enforce, and the control groups that do."""

import hashlib
import os
from functools import cache
from pathlib import Path

from shopfloor.kit import ids
from shopfloor.sandboxes.adapters._keeper.cgroups import remove
from shopfloor.sandboxes.adapters._keeper.plan import Cgroup
from shopfloor.sandboxes.port import Limits

CGROUPS = Path("/sys/fs/cgroup")
PREFIX = "shopfloor-"


def _own(controller: str) -> Path | None:
    """The folder of this process's own group, in which a group for a sandbox may be made."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            return CGROUPS / controller / path.lstrip("/")
        if not names and controller in _controllers(CGROUPS / path.lstrip("/")):
            return CGROUPS / path.lstrip("/")
    return None


def _controllers(folder: Path) -> list[str]:
    # Version 2: groups below have a controller only where it was handed down to them.
    try:
        return (folder / "cgroup.subtree_control").read_text().split()
    except OSError:
        return []


@cache
def parents() -> dict[str, Path]:
    """Controller -> folder in which groups can really be made; tried once."""
    found = {}
    for controller in ("memory", "pids"):
        place = _own(controller)
        if place is None:
            continue
        trial = place / ids.new("shopfloor-trial")
        try:
            trial.mkdir()
            trial.rmdir()
        except OSError:
            continue
        found[controller] = place
    return found


def cgroups(folder: Path, limits: Limits) -> list[Cgroup]:
    """The groups for the sandbox in `folder`; empty where the host allows none."""
    groups: dict[str, dict[str, str]] = {}
    for controller, place in parents().items():
        settings = groups.setdefault(str(place / _name(folder)), {})
        second = os.path.exists(place / "cgroup.controllers")
        if controller == "pids":
            settings["pids.max"] = str(limits.processes)
        else:
            settings["memory.max" if second else "memory.limit_in_bytes"] = str(limits.memory)
    return [Cgroup(path=path, settings=settings) for path, settings in groups.items()]


def _name(folder: Path) -> str:
    return f"{PREFIX}{folder.name}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}"


def reap(root: Path) -> None:
    """Remove the groups of sandboxes below `root` whose folder is gone, by whatever hand."""
    for place in set(parents().values()):
        for group in place.glob(f"{PREFIX}*"):
            folder = root / group.name.removeprefix(PREFIX).rpartition("-")[0]
            if group.name == _name(folder) and not folder.exists():
                remove([Cgroup(path=str(group), settings={})], patience=1)


def in_force(*, isolated: bool) -> dict[str, str]:
    """Limit -> what enforces it here; empty for nothing."""
    return {
        "processes": "cgroup" if "pids" in parents() else ("rlimit" if isolated else ""),
        "memory": "cgroup" if "memory" in parents() else "watchdog",
        "disk": "watchdog",
        "cpu": "nice",
        "tmp": "tmpfs" if isolated else "",
    }
