"""The worker as one file that any Python runs, built once per content."""

import asyncio
import contextlib
import functools
import hashlib
import importlib.resources
import os
import subprocess
import tempfile
import threading
import zipfile
from collections.abc import Mapping
from pathlib import Path

from shopfloor.kit import log

logger = log.get(__name__)

SANDBOX_PYTHON = "/usr/bin/python3"
COMPILE = """
import py_compile, sys
for name in sys.argv[1:]:
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(name, cfile=name + "c", dfile=name, doraise=True, invalidation_mode=unchecked)
"""
BUILDING = threading.Lock()


async def worker_zipapp(folder: Path) -> Path:
    """The worker as one file below `folder`, named by its content; built when it is not there yet."""
    name, files = _worker_sources()
    place = folder / name
    if not place.exists():
        await asyncio.to_thread(_build_zipapp, place, files)
    return place


@functools.cache
def _worker_sources() -> tuple[str, dict[str, bytes]]:
    """The file's name, by its sources and the Python they are compiled for, and the sources."""
    with importlib.resources.as_file(importlib.resources.files("shopfloor_worker")) as root:
        files = {f"shopfloor_worker/{p.relative_to(root)}": p.read_bytes() for p in sorted(root.rglob("*.py"))}
    files["__main__.py"] = b"import sys\nfrom shopfloor_worker.__main__ import main\nsys.exit(main())\n"
    said = hashlib.sha256(COMPILE.encode())
    with contextlib.suppress(OSError):
        python = os.stat(SANDBOX_PYTHON)
        said.update(f"{os.path.realpath(SANDBOX_PYTHON)} {python.st_mtime_ns} {python.st_size}".encode())
    for name in sorted(files):
        said.update(f"{name} {len(files[name])}\n".encode() + files[name])
    return f"worker-{said.hexdigest()[:16]}.pyz", files


def _build_zipapp(place: Path, files: Mapping[str, bytes]) -> None:
    with BUILDING, contextlib.suppress(FileExistsError):
        if place.exists():
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(f"{place.name}.{os.getpid()}.part")
        with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
            for name, content in sorted({**files, **_compiled(files)}.items()):
                archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)
        part.chmod(0o444)
        part.rename(place)


def _compiled(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The sources as the sandbox's Python would compile them at every start; another Python passes them over for the sources."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, content in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(content)
        try:
            subprocess.run(
                [SANDBOX_PYTHON, "-I", "-S", "-c", COMPILE, *files],
                cwd=folder,
                check=True,
                capture_output=True,
                timeout=60,
            )
        except (OSError, subprocess.SubprocessError) as error:
            logger.info("worker_not_compiled", reason=str(error))
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.pyc")}
