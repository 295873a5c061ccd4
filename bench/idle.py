"""What it costs when nothing happens: memory and processor of an idle `up`, and how fast the command line answers."""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from tests.support.platform import folder, platform

SETTLE_SECONDS = 65
"""For a minute after its start DBOS looks for schedules every second."""
SECONDS = 20
TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    with platform() as house:
        pid = house.processes["server"].pid
        time.sleep(SETTLE_SECONDS)
        family = _family(pid)
        before = sum(map(_cpu, family))
        time.sleep(SECONDS)
        used = (sum(map(_cpu, family)) - before) / TICKS / SECONDS
        memory = sum(map(_pss, family)) / 1024
    print(f"idle up: {used:.2%} of a core (target 1 %), {memory:.0f} MB in {len(family)} processes (target 150)")
    times = [_help() for _ in range(7)]
    bare = [_help("-c", "pass") for _ in range(7)]
    print(f"--help: {statistics.median(times):.2f} s (target 0.3), bare python {statistics.median(bare):.2f} s")


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(p for child in children for p in _family(int(child)))]


def _cpu(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _pss(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def _help(*arguments: str) -> float:
    began = time.perf_counter()
    with folder() as place:
        command = [sys.executable, *(arguments or ("-m", "shopfloor.cli.main", "--help"))]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=place)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
