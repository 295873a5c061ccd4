"""The control groups of one sandbox: made by its keeper, removed by it or by whoever reaps after it."""

import contextlib
import os
import signal
import time

from shopfloor.sandboxes.adapters._keeper.plan import Cgroup


def make(groups: list[Cgroup]) -> None:
    """Create the groups with their limits. Called before anything is started in them."""
    for group in groups:
        os.makedirs(group.path, exist_ok=True)
        for name, value in group.settings.items():
            with open(os.path.join(group.path, name), "w") as file:
                file.write(value)


def enter(groups: list[Cgroup], pid: int = 0) -> None:
    """Move a process (0: this one) into the groups."""
    for group in groups:
        with open(os.path.join(group.path, "cgroup.procs"), "w") as file:
            file.write(str(pid))


def members(groups: list[Cgroup]) -> set[int]:
    """The processes in any of the groups."""
    found: set[int] = set()
    for group in groups:
        with contextlib.suppress(OSError), open(os.path.join(group.path, "cgroup.procs")) as file:
            found.update(int(line) for line in file if int(line) > 0)
    return found


def remove(groups: list[Cgroup], *, patience: float = 10) -> bool:
    """Kill what is left in the groups and remove them; answers whether they are gone."""
    end = time.monotonic() + patience
    while True:
        for pid in members(groups):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for group in groups:
            with contextlib.suppress(OSError):
                os.rmdir(group.path)
        if not any(os.path.exists(group.path) for group in groups):
            return True
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
