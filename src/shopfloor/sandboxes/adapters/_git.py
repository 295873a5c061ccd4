"""git on the host, for making workspaces: nothing a repository says is run or asked for."""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator
from pathlib import Path

from shopfloor.kit.errors import Unavailable

SETTINGS = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.symlinks": "true",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "protocol.allow": "never",
    "protocol.file.allow": "always",
    "safe.directory": "*",
    "submodule.recurse": "false",
    "advice.detachedHead": "false",
}
LOCK = "shopfloor.lock"


class GitFailed(Unavailable):
    """git could not make the workspace."""


async def run(*args: str, cwd: Path) -> str:
    """Run git in `cwd`; answers what it printed, raises GitFailed with what it complained about."""
    numbered = list(enumerate(SETTINGS.items()))
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": "/nonexistent",
        "LANG": "C.UTF-8",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_CONFIG_COUNT": str(len(numbered)),
        **{f"GIT_CONFIG_KEY_{i}": key for i, (key, _) in numbered},
        **{f"GIT_CONFIG_VALUE_{i}": value for i, (_, value) in numbered},
    }
    process = await asyncio.create_subprocess_exec(
        "git",
        *args,
        cwd=cwd,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    if process.returncode:
        raise GitFailed(f"git {args[0]}: {err.decode(errors='replace').strip()[-500:]}")
    return out.decode(errors="replace")


@contextlib.asynccontextmanager
async def locked(mirror: Path) -> AsyncIterator[None]:
    """Alone with the mirror's list of worktrees: git itself is not safe against itself there, between processes neither."""
    try:
        handle = os.open(mirror / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise GitFailed(f"the mirror {mirror} cannot be used: {error.strerror}") from error
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(0.01)
        yield
    finally:
        os.close(handle)
