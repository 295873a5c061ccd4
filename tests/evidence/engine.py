"""One engine's checking part as a program of its own, to be killed: `python -m tests.evidence.engine URL DATA`."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from shopfloor.kit.db import Database
from tests.evidence.conftest import engine_over

ROOT = Path(__file__).resolve().parents[2]


def started(url: str, data: Path) -> subprocess.Popen[bytes]:
    """The program, at work until it is killed."""
    command = [sys.executable, "-m", "tests.evidence.engine", url, str(data)]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"})


async def main(url: str, data: Path) -> None:
    async with engine_over(Database(url), data):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
