"""The exec service inside a sandbox: runs what the keeper asks for. Any Python >= 3.9, standard library only."""

from __future__ import annotations

import array
import contextlib
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterable
from typing import Any, NoReturn

try:
    import ctypes

    libc: Any = ctypes.CDLL(None)
except (ImportError, OSError):  # a minimal Python: orphans of a command outlive its timeout
    libc = None

PR_SET_CHILD_SUBREAPER = 36
CHANNEL = 3


def receive(channel: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """One request of the keeper: (message, file descriptors); the message is None at the end."""
    data, rights, _, _ = channel.recvmsg(4096, socket.CMSG_SPACE(4 * 4))
    handles = array.array("i")
    for _, _, payload in rights:
        handles.frombytes(payload[: len(payload) - len(payload) % 4])
    return (json.loads(data) if data else None), list(handles)


def adopt_orphans() -> None:
    """Become the parent of everything that is orphaned below, so that a timeout finds it."""
    if libc:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def start(request: dict[str, Any], handles: list[int]) -> int:
    """Run the command in its own session; answers its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        for number, handle in enumerate(handles):
            os.dup2(handle, number)
        os.closerange(3, 256)
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.execvpe(request["argv"][0], request["argv"], {**os.environ, **request["env"]})  # noqa: S606 -- as the host asked
    except OSError as error:
        os.write(2, f"{request['argv'][0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def descendants() -> list[int]:
    """Everything below this process."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                continue
    found: list[int] = []
    known = {os.getpid()}
    while True:
        more = [pid for pid, parent in parents.items() if parent in known and pid not in known]
        if not more:
            return found
        known.update(more)
        found += more


def kill_all(first: int) -> None:
    """Kill the command's group and everything below; repeats because the dying may fork."""
    for _ in range(200):
        for pid in [-first, *descendants()]:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.005)


def supervise(request: dict[str, Any], handles: list[int], cancelled: int) -> tuple[int, bool]:
    """Run one command to its end, its timeout or its cancellation; answers (exit code, timed out)."""
    adopt_orphans()
    awake, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    pid = start(request, handles)
    for handle in handles:
        os.close(handle)
    end = time.monotonic() + request["timeout"]
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
            return (128 - code if code < 0 else code), False
        left = end - time.monotonic()
        ready, _, _ = select.select([awake, cancelled], [], [], max(0.0, min(left, 60)))
        if awake in ready:
            os.read(awake, 4096)
        if cancelled in ready or (not ready and left <= 0):
            kill_all(pid)
            return (128 + signal.SIGKILL, False) if cancelled in ready else (124, True)


def serve(channel: socket.socket, *, alone: bool) -> None:
    """Answer requests until the keeper is gone. `alone`: this is the sandbox's own pid namespace, so end everything with it."""
    running: dict[int, int] = {}  # id of the request -> pipe end whose closing cancels it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        request, handles = receive(channel)
        if request is None:
            break
        if request["op"] == "cancel":
            if request["id"] in running:
                os.close(running.pop(request["id"]))
        elif request["op"] == "exec":
            cancelled, cancel = os.pipe()
            pid = os.fork()
            if pid == 0:
                one(channel, request, handles, running.values(), cancelled, cancel)
            os.close(cancelled)
            running[request["id"]] = cancel
        for handle in handles:
            os.close(handle)
    if alone:
        os.kill(-1, signal.SIGKILL)


def one(
    channel: socket.socket,
    request: dict[str, Any],
    handles: list[int],
    others: Iterable[int],
    cancelled: int,
    cancel: int,
) -> NoReturn:
    """The process beside one command."""
    try:
        for handle in [cancel, *others]:
            os.close(handle)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with os.fdopen(handles[0], "rb") as file:
            file.seek(0)
            request.update(json.load(file))
        code, timed_out = supervise(request, handles[1:], cancelled)
        channel.send(json.dumps({"id": request["id"], "exit_code": code, "timed_out": timed_out}).encode())
    finally:
        os._exit(0)


if __name__ == "__main__":
    shared = len(sys.argv) > 1  # without isolation: the folder to work in
    if shared:
        os.chdir(sys.argv[1])
    serve(socket.socket(fileno=CHANNEL), alone=not shared)
