"""The keeper: holds one sandbox from its start to its end, whatever becomes of the server."""

import array
import contextlib
import json
import os
import select
import selectors
import signal
import socket
import struct
import time
from collections.abc import Callable

from shopfloor.sandboxes.adapters._keeper import cgroups, launch, locks, watch
from shopfloor.sandboxes.adapters._keeper.gate import Gate
from shopfloor.sandboxes.adapters._keeper.plan import (
    ALIVE,
    CONTROL,
    EXIT,
    FIRST,
    KEEPER_LOG,
    LEASE,
    OUTPUT,
    STARTED,
    Plan,
    load,
    write,
)
from shopfloor.sandboxes.adapters._keeper.service import receive

TICK = 0.25
OUTPUT_LIMIT = 1 << 20
OUTPUT_END = 64 << 10
LEASE_GRACE = 5.0
CREDENTIALS = struct.Struct("3i")


class Keeper:
    """One sandbox and the loop that serves it."""

    def __init__(self, plan: Plan, report: int) -> None:
        self.plan = plan
        self.report = report
        self.events = selectors.DefaultSelector()
        self.memory = watch.Memory(plan)
        self.disk = watch.Disk(plan, ".")
        self.reason = ""
        self.kill_at: float | None = None
        self.began = False
        self.main = -1
        """pidfd of the main program."""
        self.first = -1
        """pidfd of the sandbox's process 1."""
        self.exit_code: int | None = None
        self.requests: dict[int, socket.socket] = {}
        self.numbers = 0
        self.awake = False
        self.written = 0
        self.left_out = 0
        self.end_of_output = b""

    def run(self) -> None:
        """Start the sandbox, serve it, write down how it ended."""
        self._start()
        while self.exit_code is None:
            for key, _ in self.events.select(TICK):
                handler: Callable[[], None] = key.data
                handler()
            self._tick()
        self._finish()

    def _listen(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(CONTROL)
        self.control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.bind(CONTROL)
        self.control.listen(64)
        self.control.setblocking(False)
        self.events.register(self.control, selectors.EVENT_READ, self._accept)

    def _start(self) -> None:
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Before anybody can write to it: a greeting that comes sooner names no process, and is waited for in vain.
        self.channel.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        listeners, their_listeners = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.output, their_output = os.pipe()
        handles = launch.Handles(channel=theirs, listeners=their_listeners, output=their_output)
        os.close(os.open(STARTED, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        if not self.plan.bwrap:
            cgroups.make(self.plan.cgroups)
        self.pid = launch.fork(self.plan, handles)
        os.close(their_output)
        their_listeners.close()
        if self.plan.bwrap:
            theirs.close()
            self._prepare_groups()
            self._open_gate(listeners)
        else:
            self._start_plain(theirs)
        listeners.close()
        self._listen()
        self.channel.setblocking(False)
        os.set_blocking(self.output, False)
        self.events.register(self.channel, selectors.EVENT_READ, self._heard)
        self.events.register(self.output, selectors.EVENT_READ, self._copy_output)
        self.events.register(os.pidfd_open(self.pid), selectors.EVENT_READ, self._ended)

    def _prepare_groups(self) -> None:
        """Make the groups while the child builds the sandbox. The kernel takes milliseconds for the first move of a process and
        little for the next: moving bwrap now makes the move of the main program quick.
        """
        cgroups.make(self.plan.cgroups)
        with contextlib.suppress(ProcessLookupError):
            cgroups.enter(self.plan.cgroups, self.pid)

    def _open_gate(self, channel: socket.socket) -> None:
        """Take over the sockets that the child bound inside. Nothing comes when the child failed: its exit says so."""
        if self.plan.gate is None:
            return
        data, rights, _, _ = channel.recvmsg(1, socket.CMSG_SPACE(4 * 64))
        if not data:
            return
        numbers = array.array("i")
        for _, _, payload in rights:
            numbers.frombytes(payload[: len(payload) - len(payload) % 4])
        Gate(self.plan.gate, ".").serve([socket.socket(fileno=number) for number in numbers])

    def _start_plain(self, theirs: socket.socket) -> None:
        """Without isolation: the gate listens on the host, the exec service is a child of ours, orphans come to us."""
        launch.prctl(launch.PR_SET_CHILD_SUBREAPER, 1)
        launch.fork_service(self.plan, theirs)
        theirs.close()
        if self.plan.gate:
            ports = [launch.API_PORT, launch.PROXY_PORT, *(int(p) for p in self.plan.gate.pipes)]
            Gate(self.plan.gate, ".").serve([launch.listen(self.plan.gate.address, port) for port in ports])
        self.awake = True
        self._started(self.pid)

    def _tick(self) -> None:
        now = time.monotonic()
        if self.kill_at is not None and now >= self.kill_at:
            self._kill()
        elif not self.reason and self._lease_ended(now):
            self.end("lease_expired", LEASE_GRACE)
        elif reason := self.disk.exceeded():
            self.end(reason, 0)
        elif self.memory.exceeded(os.getpid()):
            self.end("memory_limit", 0)

    def _lease_ended(self, now: float) -> bool:
        try:
            with open(LEASE, "rb") as file:
                return now > float(file.read())
        except (OSError, ValueError):
            return True  # the folder was taken away: nobody wants this sandbox

    def end(self, reason: str, grace: float) -> None:
        """End the sandbox: ask the main program, and kill everything `grace` seconds later."""
        self.reason = self.reason or reason
        kill_at = time.monotonic() + grace
        self.kill_at = kill_at if self.kill_at is None else min(self.kill_at, kill_at)
        if grace <= 0:
            self._kill()
            return
        if self.main >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.main, signal.SIGTERM)

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._kill_first()

    def _kill_first(self) -> None:
        """Process 1 is dead only after everything in its pid namespace."""
        if self.first >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.first, signal.SIGKILL)

    def _await_first(self) -> None:
        if self.first >= 0:
            select.select([self.first], [], [])

    def _ended(self) -> None:
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self.exit_code = 128 - code if code < 0 else code

    def _finish(self) -> None:
        """Only when nothing of the sandbox lives is its end written down."""
        self._copy_output()
        self._end_output()
        self._kill_first()
        self._await_first()
        if not self.plan.bwrap:
            self._kill_orphans()
        cgroups.remove(self.plan.cgroups)
        if not self.began:
            self.reason = "start_failed"
        write(EXIT, json.dumps({"exit_code": self.exit_code, "reason": self.reason}).encode())
        self._say({"started": False})
        with contextlib.suppress(FileNotFoundError):
            os.unlink(CONTROL)

    def _kill_orphans(self) -> None:
        """Kill all that came below us, until there is nothing: the dying may still fork."""
        while pids := watch.below(os.getpid()):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            time.sleep(0.002)

    def _started(self, main: int) -> None:
        self.began = True
        self.main = os.pidfd_open(main)
        self._say({"started": True})

    def _say(self, message: dict[str, object]) -> None:
        """Tell the creator; it may be gone, and need not hear twice."""
        if self.report >= 0:
            with contextlib.suppress(BrokenPipeError):
                os.write(self.report, json.dumps(message).encode())
            os.close(self.report)
            self.report = -1

    def _copy_output(self) -> None:
        """Keep the first part of what the main program prints; read on, so that it never blocks on us."""
        with contextlib.suppress(BlockingIOError):
            data = os.read(self.output, 1 << 20)
            if not data:
                with contextlib.suppress(KeyError):
                    self.events.unregister(self.output)
                return
            room = OUTPUT_LIMIT - self.written
            if room:
                with contextlib.suppress(OSError), open(OUTPUT, "ab") as file:  # a full disk must not end the sandbox
                    self.written += file.write(data[:room])
            self.left_out += len(data[room:])
            self.end_of_output = (self.end_of_output + data[room:])[-OUTPUT_END:]

    def _end_output(self) -> None:
        """Of what was too much, keep the end: that is where programs say how it went."""
        if self.left_out:
            gap = self.left_out - len(self.end_of_output)
            with contextlib.suppress(OSError), open(OUTPUT, "ab") as file:
                file.write(b"\n[%d bytes left out]\n%b" % (gap, self.end_of_output))

    def _heard(self) -> None:
        """A message from inside: hostile, so anything unexpected is dropped. recv() takes no file descriptors."""
        if not self.began:
            self._greet()
            return
        try:
            data = self.channel.recv(4096)
        except BlockingIOError:
            return
        except OSError:  # closed with something unread
            data = b""
        if not data:
            self.events.unregister(self.channel)
            for number in list(self.requests):
                self._answer(number, {"error": "the exec service inside was killed"})
            return
        with contextlib.suppress(ValueError, KeyError, TypeError, OverflowError, RecursionError):
            answer = json.loads(data)
            code = int(answer["exit_code"]) & 0xFF
            result: dict[str, object] = {"exit_code": code, "timed_out": bool(answer["timed_out"])}
            self._answer(int(answer["id"]), result)

    def _greet(self) -> None:
        """The shell that will become the main program waits; its pid comes from the kernel."""
        data, said, _, _ = self.channel.recvmsg(1, socket.CMSG_SPACE(CREDENTIALS.size))
        if not data:
            self.events.unregister(self.channel)
            return
        pid, _, _ = CREDENTIALS.unpack(said[0][2])
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            # Process 1 runs as the agent's user: an agent that rewrites its memory must not outlive us. So it is known by name.
            first = watch.parent(pid)
            self.first = os.pidfd_open(first)
            write(FIRST, watch.identity(first).encode())
            for process in (first, pid):
                cgroups.enter(self.plan.cgroups, process)
            self._started(pid)
            self.channel.send(b"\n")

    def _answer(self, number: int, result: dict[str, object]) -> None:
        connection = self.requests.pop(number, None)
        if connection:
            self._reply(connection, result)
            self._close(connection)

    def _reply(self, connection: socket.socket, message: dict[str, object]) -> None:
        with contextlib.suppress(OSError):
            connection.send(json.dumps(message).encode())

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self.control.accept()
            self.events.register(connection, selectors.EVENT_READ, lambda: self._requested(connection))

    def _requested(self, connection: socket.socket) -> None:
        try:
            request, handles = receive(connection)
        except (OSError, ValueError):
            request, handles = None, []
        if request is None:
            self._close(connection)
        elif request["op"] == "stop":
            self.end("stopped", float(request["grace"]))
        elif request["op"] == "exec":
            self._forward(connection, handles)
        for handle in handles:
            os.close(handle)

    def _forward(self, connection: socket.socket, handles: list[int]) -> None:
        self.numbers += 1
        number = self.numbers
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", handles))]
        try:
            if not self.awake:
                self.channel.send(b"\n")
                self.awake = True
            self.channel.sendmsg([json.dumps({"op": "exec", "id": number}).encode()], rights)
        except OSError as error:
            self._reply(connection, {"error": f"the exec service inside does not answer ({error.strerror})"})
            self._close(connection)
            return
        self.requests[number] = connection

    def _close(self, connection: socket.socket) -> None:
        """Forget a caller; whatever it still had running is cancelled."""
        for number in [n for n, c in self.requests.items() if c is connection]:
            del self.requests[number]
            with contextlib.suppress(OSError):
                self.channel.send(json.dumps({"op": "cancel", "id": number}).encode())
        with contextlib.suppress(KeyError, ValueError):
            self.events.unregister(connection)
        connection.close()


def keep(folder: str, report: int) -> None:
    """Be the keeper of the sandbox in `folder`, whose lock this process already holds."""
    os.setsid()
    for kind in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, signal.SIG_DFL)
    os.umask(0o077)
    os.chdir(folder)
    log = os.open(KEEPER_LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for number, handle in ((0, null), (1, log), (2, log), (launch.CHANNEL, null)):
        os.dup2(handle, number)
    assert locks.held(ALIVE)
    Keeper(load("."), report).run()
