"""Putting a fresh checkout on the work's branch by writing two small files: no git runs, so nothing in the repository can."""

import os
import re
from pathlib import Path

from shopfloor.sandboxes.adapters._kept import BadSandboxSpec
from shopfloor.sandboxes.port import Checkout

COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
PART = re.compile(r"(?!\.)[A-Za-z0-9._+@=-]+(?<!\.lock)(?<!\.)")


def start(git_dir: Path, code: Checkout, owner: tuple[int, int] | None) -> None:
    """Let HEAD be `code.branch` at the base commit. `git_dir` may be a layer above the real one."""
    parts = code.branch.split("/")
    if ".." in code.branch or "@{" in code.branch or not all(PART.fullmatch(part) for part in parts):
        raise BadSandboxSpec(f"{code.branch!r} is no name for a branch")
    if not COMMIT.fullmatch(code.base_commit):
        raise BadSandboxSpec(f"{code.base_commit!r} is no commit")
    _write(git_dir, ("refs", "heads", *parts), f"{code.base_commit}\n", owner)
    _write(git_dir, ("HEAD",), f"ref: refs/heads/{code.branch}\n", owner)


def _write(folder: Path, parts: tuple[str, ...], text: str, owner: tuple[int, int] | None) -> None:
    for name in ("", *parts[:-1]):
        folder /= name
        if not folder.exists():
            folder.mkdir(mode=0o755)
            _give(folder, owner)
    (folder / parts[-1]).write_text(text)
    _give(folder / parts[-1], owner)


def _give(path: Path, owner: tuple[int, int] | None) -> None:
    if owner:
        os.chown(path, *owner)
