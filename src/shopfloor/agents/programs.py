"""Where agents' programs are on this machine, and what of them a sandbox is shown."""

import importlib.util
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shopfloor.agents.profiles import SYSTEM, Profile
from shopfloor.kit.errors import Misconfigured

INSIDE = "/opt/agent"
INSTALL: Mapping[str, str] = {
    "claude": "npm i -g @anthropic-ai/claude-code, or pip install claude-agent-sdk",
    "codex": "npm i -g @openai/codex",
    "opencode": "npm i -g opencode-ai",
    "gemini": "npm i -g @google/gemini-cli",
    "openhands": "uv venv --python 3.12 ENV && uv pip install --python ENV openhands-sdk openhands-tools",
    "mini": "uv venv --python 3.12 ENV && uv pip install --python ENV mini-swe-agent mcp",
}
NATIVE: Mapping[str, tuple[str, ...]] = {
    "claude": ("@anthropic-ai/claude-code-linux-*/claude",),
    "codex": ("@openai/codex-linux-*/vendor/*/bin/codex",),
    "opencode": ("opencode-linux-*/bin/opencode",),
}
"""Where npm puts the real program when what it puts on the PATH is a script that starts it, below a node_modules folder."""
OWN_PYTHON = frozenset({"openhands", "mini"})
"""Adapters whose program is the Python of an environment that has their packages; what it runs is part of the worker."""


class ProgramMissing(Misconfigured):
    """The agent's program is not on this machine."""

    status = 422


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program as a sandbox sees it."""

    command: list[str]
    """With its first arguments, by the paths inside."""
    shown: dict[str, Path] = field(default_factory=dict)
    """Path inside -> file or folder here, links resolved."""
    file: Path
    """The real file."""


def find(profile: Profile) -> Program:
    """The program of a profile: as it names it, on PATH, else the one in the Agent SDK's package. Raises ProgramMissing."""
    named = profile.program[0] if profile.program else profile.adapter
    arguments = (profile.program or [])[1:]
    if profile.adapter in OWN_PYTHON and not profile.program:
        raise _missing(profile, f"agent {profile.name!r} needs the Python of an environment with its packages")
    found = shutil.which(named) or (None if profile.program else _bundled(profile))
    if not found:
        raise _missing(profile, f"the program {named!r} of agent {profile.name!r} is not here")
    mounts = _mounts(profile, Path(found))
    real = Path(found).resolve()
    if profile.adapter in OWN_PYTHON:
        place = Path(os.path.normpath(os.path.abspath(found)))
        return Program(command=[str(place), *arguments], shown=mounts, file=real)
    interpreter: list[str] = []
    if _is_script(real):
        native = _native(profile, real)
        if native is None:
            interpreter, own = _interpreter(profile, real, mounts)
            mounts |= own
        real = native or real
    inside = _inside(real, mounts)
    if interpreter or inside:
        command = [*interpreter, inside or str(real)]
    else:
        mounts[f"{INSIDE}/{profile.name}"] = real
        command = [f"{INSIDE}/{profile.name}"]
    return Program(command=[*command, *arguments], shown=mounts, file=real)


def _missing(profile: Profile, what: str) -> ProgramMissing:
    key = f"agents.{profile.name}.program"
    install = INSTALL.get(profile.name) or INSTALL.get(profile.adapter, "its own way")
    path = "ENV/bin/python" if profile.adapter in OWN_PYTHON else "/path"
    return ProgramMissing(what, hint=f"Install it ({install}), or name it: {key} = ['{path}'].")


def _mounts(profile: Profile, found: Path) -> dict[str, Path]:
    """The folders that must be there too, at their own paths."""
    folders = [*profile.mounts, *(_python_folders(found) if profile.adapter in OWN_PYTHON else ())]
    for folder in folders:
        if not folder.is_dir():
            key = f"agents.{profile.name}.mounts"
            raise ProgramMissing(f"{key}: there is no folder {folder}", hint=f"Correct {key}.")
    return {str(folder): folder.resolve() for folder in folders if not _visible(folder)}


def _python_folders(python: Path) -> Iterator[Path]:
    """A virtual environment, and the Python it was made from when that lies somewhere of its own."""
    place = Path(os.path.normpath(os.path.abspath(python)))
    environment = place.parent.parent
    if (environment / "pyvenv.cfg").exists():
        yield environment
        base = _home_of(environment)
        if base and not _visible(base):
            yield base


def _home_of(environment: Path) -> Path | None:
    for line in (environment / "pyvenv.cfg").read_text(errors="replace").splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "home" and value.strip():
            return Path(os.path.normpath(value.strip())).parent
    return None


def _interpreter(profile: Profile, script: Path, mounts: Mapping[str, Path]) -> tuple[list[str], dict[str, Path]]:
    """How a Node program of several files is run and what must be shown for it; other scripts need files nobody knows."""
    with script.open("rb") as file:
        first = file.readline(200).decode(errors="replace")
    node = shutil.which("node") if "node" in first else None
    if node is None:
        key = f"agents.{profile.name}.program"
        what = "Node, which is not here" if "node" in first else "other files"
        raise ProgramMissing(
            f"{script} is a script that needs {what}", hint=f"Name the native binary: {key} = ['/path/to/program']."
        )
    real = Path(node).resolve()
    shown: dict[str, Path] = {}
    command = str(real)
    if not _visible(real):
        command = f"{INSIDE}/node"
        shown[command] = real
    root = _package_of(script)
    if not _visible(root) and not _inside(root, mounts):
        shown[str(root)] = root
    return [command], shown


def _package_of(script: Path) -> Path:
    """The folder that holds a Node program with all it needs: the outermost node_modules, else its package."""
    modules = [parent for parent in script.parents if parent.name == "node_modules"]
    if modules:
        return modules[-1]
    return next((parent for parent in script.parents if (parent / "package.json").exists()), script.parent)


def _native(profile: Profile, script: Path) -> Path | None:
    """The native program behind a script that only starts it."""
    patterns = NATIVE.get(profile.name) or NATIVE.get(profile.adapter, ())
    for modules in (parent for parent in script.parents if parent.name == "node_modules"):
        for nested in (modules, *(folder / "node_modules" for folder in script.parents if folder != modules)):
            for pattern in patterns:
                if found := sorted(nested.glob(pattern)):
                    return found[0].resolve()
    return None


def _bundled(profile: Profile) -> str | None:
    package = importlib.util.find_spec("claude_agent_sdk") if profile.adapter == "claude" else None
    if package is None or not package.origin:
        return None
    return shutil.which(str(Path(package.origin).parent / "_bundled" / "claude"))


def _is_script(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(2) == b"#!" or file.suffix in {".js", ".mjs", ".cjs"}


def _visible(path: Path) -> bool:
    """Whether every sandbox shows it anyway."""
    return any(path.is_relative_to(system) for system in SYSTEM)


def _inside(path: Path, mounts: Mapping[str, Path]) -> str | None:
    """What a file in one of the mounts is called inside."""
    for place, folder in mounts.items():
        if path.is_relative_to(folder):
            return str(Path(place) / path.relative_to(folder))
    return None
