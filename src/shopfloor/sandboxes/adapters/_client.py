"""Talking to the keeper of a running sandbox, over the socket in its folder."""

import array
import asyncio
import contextlib
import fcntl
import functools
import json
import os
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shopfloor.kit.errors import Conflict, Unavailable
from shopfloor.sandboxes.adapters._keeper import plan
from shopfloor.sandboxes.port import ExecResult

OUTPUT_LIMIT = 10 << 20
LATE = 4.0
"""How much longer than the timeout an answer may take; an agent can kill the service that gives it."""


class SandboxNotRunning(Conflict):
    """The sandbox is not running."""


class ExecUnavailable(Unavailable):
    """No command can be run in this sandbox."""

    hint = "The agent may have killed the service inside; stop the sandbox and start another."


def connect(folder: Path) -> socket.socket:
    """A connection to the keeper; SandboxNotRunning when there is none."""
    try:
        handle = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise SandboxNotRunning from error
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        # A path of its own would be too long for a socket address in deep data folders.
        connection.setblocking(False)
        connection.connect(f"/proc/self/fd/{handle}/{plan.CONTROL}")
    except OSError as error:
        connection.close()
        raise SandboxNotRunning from error
    finally:
        os.close(handle)
    return connection


def keeper_pid(connection: socket.socket) -> int:
    """The process at the other end, as the kernel knows it."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid: int = struct.unpack("3i", credentials)[0]
    return pid


async def closed(connection: socket.socket, patience: float) -> None:
    """Wait until the keeper closes the connection, by purpose or by death, but not longer than `patience`."""
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(patience):
            while await asyncio.get_running_loop().sock_recv(connection, 4096):
                pass


def ask_to_stop(folder: Path, grace_seconds: float) -> socket.socket:
    """Tell the keeper to end its sandbox; answers the connection."""
    connection = connect(folder)
    try:
        connection.send(json.dumps({"op": "stop", "grace": grace_seconds}).encode())
    except OSError as error:
        connection.close()
        raise SandboxNotRunning from error
    return connection


class _Collector(asyncio.Protocol):
    """Keeps the beginning of a stream and reads on to its end."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.ended = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.data += data[: OUTPUT_LIMIT - len(self.data)]

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio's signature
        self.ended.set()


async def run(
    folder: Path, argv: tuple[str, ...], *, env: Mapping[str, str], stdin: bytes, timeout: float
) -> ExecResult:
    """Run a command in the sandbox in `folder`."""
    loop = asyncio.get_running_loop()
    request = json.dumps({"argv": argv, "env": dict(env), "timeout": timeout}).encode()
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(connect(folder))
        ours = [_file(stack, request), _file(stack, stdin)]
        collectors = [_Collector(), _Collector()]
        inside = []
        for collector in collectors:
            read, write = os.pipe()
            inside.append(write)
            transport, _ = await loop.connect_read_pipe(functools.partial(_same, collector), os.fdopen(read, "rb", 0))
            stack.callback(transport.close)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [*ours, *inside]))]
        try:
            connection.sendmsg([b'{"op": "exec"}'], rights)
        except OSError as error:
            raise SandboxNotRunning from error
        finally:
            for handle in inside:
                os.close(handle)
        answer = await _answer(connection, timeout + LATE)
        with contextlib.suppress(TimeoutError):  # an orphan may hold the pipes open for as long as it likes
            async with asyncio.timeout(1):
                await asyncio.gather(*(c.ended.wait() for c in collectors))
        out, err = (bytes(c.data) for c in collectors)
        return ExecResult(exit_code=answer["exit_code"], stdout=out, stderr=err, timed_out=answer["timed_out"])


def _same(collector: _Collector) -> _Collector:
    return collector


async def _answer(connection: socket.socket, patience: float) -> dict[str, Any]:
    try:
        async with asyncio.timeout(patience):
            data = await asyncio.get_running_loop().sock_recv(connection, 4096)
    except TimeoutError:
        return {"exit_code": 124, "timed_out": True}
    except OSError:
        data = b""
    if not data:
        raise SandboxNotRunning("the sandbox ended while the command ran")
    answer: dict[str, Any] = json.loads(data)
    if "error" in answer:
        raise ExecUnavailable(answer["error"])
    return answer


def _file(stack: contextlib.ExitStack, content: bytes) -> int:
    """A sealed file in memory: the other side reads it, cannot change it, and nothing waits for a writer."""
    handle = os.memfd_create("request", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    stack.callback(os.close, handle)
    with open(os.dup(handle), "wb") as file:
        file.write(content)
    os.lseek(handle, 0, os.SEEK_SET)
    seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    fcntl.fcntl(handle, fcntl.F_ADD_SEALS, seals)
    return handle
