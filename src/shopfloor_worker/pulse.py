"""The heartbeat, beside everything else."""

import contextlib
import os
import threading
import time
from typing import Callable

from shopfloor_worker.child import processes
from shopfloor_worker.outbox import Outbox


def start(outbox: Outbox, every: float, status: "Callable[[], tuple[str, str]]") -> None:
    """Beat now and every so many seconds, as long as the process lives."""

    def beat() -> None:
        while True:
            state, action = status()
            outbox.event("sandbox.heartbeat", {"status": state, "current_action": action, "memory_mb": memory_mb()})
            time.sleep(every)

    threading.Thread(target=beat, daemon=True).start()


def memory_mb() -> int:
    """Resident memory of this process and everything below it; shared pages count each time."""
    parents, pages = {}, {}
    for name in processes():
        with contextlib.suppress(OSError, ValueError, IndexError):
            with open(f"/proc/{name}/stat", encoding="latin-1") as file:
                fields = file.read().rpartition(")")[2].split()
            parents[int(name)], pages[int(name)] = int(fields[1]), int(fields[21])
    mine = {os.getpid()}
    grown = True
    while grown:
        below = {pid for pid, parent in parents.items() if parent in mine} - mine
        mine |= below
        grown = bool(below)
    return sum(pages.get(pid, 0) for pid in mine) * os.sysconf("SC_PAGE_SIZE") >> 20
