"""The demo's repository, and the proof at its end: every delivered branch is checked out and its tests are run."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from shopfloor.cli.demo.house import DemoFailed

IDENTITY = ("-c", "user.name=Demo", "-c", "user.email=demo@shopfloor.invalid", "-c", "init.defaultBranch=main")


@dataclass(frozen=True, kw_only=True)
class Tested:
    """The tests of one checkout."""

    ran: int
    ok: bool
    output: str


def git(*arguments: str, at: Path) -> str:
    """Run git, untouched by the user's own settings; raises DemoFailed."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}
    command = ["git", *IDENTITY, *arguments]
    try:
        done = subprocess.run(
            command, cwd=at, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        raise DemoFailed("git is not installed", hint="Install git and try again.") from None
    if done.returncode:
        raise DemoFailed(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def make(place: Path, files: dict[str, str]) -> Path:
    """A bare origin below `place` with the files on main."""
    work = place / "first"
    for name, content in files.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(content)
    git("init", "-q", at=work)
    git("add", "-A", at=work)
    git("commit", "-qm", "A package with nothing in it but tests", at=work)
    origin = place / "pocket.git"
    git("clone", "-q", "--bare", str(work), str(origin), at=place)
    return origin


def run_tests(checkout: Path, *names: str) -> Tested:
    """Really run the tests in a checkout."""
    command = [sys.executable, "-m", "unittest", *names]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False, timeout=60)
    ran = re.search(r"Ran (\d+) test", done.stderr)
    number = int(ran[1]) if ran else 0
    return Tested(ran=number, ok=done.returncode == 0 and number > 0, output=done.stderr)


def checked_out(origin: Path, place: Path, *branches: str) -> Path:
    """A fresh clone with one branch, or with several merged into main."""
    clone = place / ("merged" if len(branches) > 1 else branches[0])
    git("clone", "-q", str(origin), str(clone), at=place)
    if len(branches) == 1:
        git("checkout", "-q", branches[0], at=clone)
        return clone
    for branch in branches:
        git("merge", "-q", "--no-edit", f"origin/{branch}", at=clone)
    return clone


def commits(origin: Path, branch: str) -> int:
    """How many commits a branch has beyond main."""
    return int(git("rev-list", "--count", f"main..{branch}", at=origin))
