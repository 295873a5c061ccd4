"""Put uv into .tools/bin when the machine has none. Standard library only; prints the path of uv.

Tries, in this order: uv on PATH, a venv with pip, pip --target, the wheel itself (Debian ships Python without venv and pip).
"""

import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path

VERSION = "0.13.8"
TOOLS = Path(__file__).resolve().parent.parent / ".tools"


def quietly(*command: str) -> None:
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)


def by_pip(target: Path) -> None:
    venv = TOOLS / "pip"
    try:
        quietly(sys.executable, "-m", "venv", str(venv))
        python = venv / "bin" / "python"
    except subprocess.CalledProcessError:
        python = Path(sys.executable)
    package = f"uv=={VERSION}"
    quietly(str(python), "-m", "pip", "install", "--target", str(TOOLS / "uv"), package)
    shutil.copy2(TOOLS / "uv" / "bin" / "uv", target)


def by_wheel(target: Path) -> None:
    with urllib.request.urlopen(f"https://pypi.org/pypi/uv/{VERSION}/json", timeout=60) as answer:
        files = json.load(answer)["urls"]
    libc = "musllinux" if "musl" in (platform.libc_ver()[0] or "musl") else "manylinux"
    system = libc if sys.platform == "linux" else "macosx"
    wheel = next(f for f in files if system in f["filename"] and platform.machine() in f["filename"])
    with urllib.request.urlopen(wheel["url"], timeout=300) as answer:
        data = answer.read()
    if hashlib.sha256(data).hexdigest() != wheel["digests"]["sha256"]:
        raise SystemExit("uv: the downloaded wheel does not match its published hash; try again")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        name = next(n for n in archive.namelist() if n.endswith("/scripts/uv"))
        target.write_bytes(archive.read(name))


def main() -> None:
    found = shutil.which("uv")
    target = TOOLS / "bin" / "uv"
    if not found and not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            by_pip(target)
        except (subprocess.CalledProcessError, OSError):
            try:
                by_wheel(target)
            except (OSError, StopIteration) as error:
                raise SystemExit(
                    f"uv could not be installed ({error}); install it yourself: https://docs.astral.sh/uv"
                ) from error
        os.chmod(target, 0o755)
    print(found or target)


main()
