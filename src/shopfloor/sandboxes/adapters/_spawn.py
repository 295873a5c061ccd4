"""Starting keepers: one helper process per server forks them, so that starting a sandbox does not start an interpreter."""

import array
import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import shopfloor

PACKAGES = str(Path(shopfloor.__file__).parent.parent)
PROGRAM = (
    "import sys; sys.path.append(sys.argv[1]); from shopfloor.sandboxes.adapters._keeper.spawner import main; main()"
)


START_SECONDS = 60.0
"""A keeper that says nothing for so long will never say anything."""


class Spawner:
    """The helper process, started at the first need and again when it died. It ends when this object does."""

    def __init__(self) -> None:
        self._channel: socket.socket | None = None

    async def start(self, folder: Path, lock: int) -> bool:
        """Hand `folder` and its lock to a new keeper; answers whether the main program started."""
        report, theirs = os.pipe()
        try:
            try:
                self._send(folder, lock, theirs)
            finally:
                os.close(theirs)
            async with asyncio.timeout(START_SECONDS):
                said = await _read(report)
        except TimeoutError:
            said = b""
        finally:
            os.close(report)
        return bool(said) and bool(json.loads(said)["started"])

    def _send(self, folder: Path, lock: int, report: int) -> None:
        message = [json.dumps({"folder": str(folder)}).encode()]
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [lock, report]))]
        if self._channel is not None:
            with contextlib.suppress(OSError):
                self._channel.sendmsg(message, rights)
                return
        self._channel = _spawner()
        self._channel.sendmsg(message, rights)


def _spawner() -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", PROGRAM, PACKAGES],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
            cwd="/",
            start_new_session=True,
        )
    return ours


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def _read(handle: int) -> bytes:
    """What comes through a pipe before it is closed."""
    loop, data = asyncio.get_running_loop(), b""
    while True:
        ready = loop.create_future()
        loop.add_reader(handle, _set, ready)
        try:
            await ready
        finally:
            loop.remove_reader(handle)
        more = os.read(handle, 4096)
        if not more:
            return data
        data += more
