"""The agent program as a process: lines in, lines out, and how it is ended with everything it started."""

import contextlib
import errno
import os
import signal
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Optional

    from shopfloor_worker.port import Adapter

MARK = "SHOPFLOOR_AGENT_OF"
"""In the environment of everything the agent starts, so that left-overs are found wherever they went."""
STDERR_KEPT = 4096


class Program:
    """A running program and its pipes. Not `subprocess`, whose import alone takes longer than starting the agent."""

    def __init__(self, argv: "list[str]", env: "dict[str, str]") -> None:
        path = _found(argv[0], env)
        pipes = [os.pipe() for _ in range(3)]
        theirs = [pipes[0][0], pipes[1][1], pipes[2][1]]
        try:
            self.pid = os.posix_spawn(
                path,
                argv,
                env,
                file_actions=[(os.POSIX_SPAWN_DUP2, end, number) for number, end in enumerate(theirs)],
                setsid=True,
                setsigmask=[],
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
            )
        except BaseException:
            for end in sum(pipes, ()):
                os.close(end)
            raise
        for end in theirs:
            os.close(end)
        self.stdin, self.stdout, self.stderr = (
            os.fdopen(pipes[0][1], "wb"),
            os.fdopen(pipes[1][0], "rb"),
            os.fdopen(pipes[2][0], "rb"),
        )
        self._lock = threading.Lock()
        self._code: "Optional[int]" = None

    def poll(self) -> "Optional[int]":
        """Its exit code, negative for a signal; None while it runs."""
        with self._lock:
            if self._code is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                self._code = os.waitstatus_to_exitcode(status) if pid else None
            return self._code

    def wait(self, seconds: float) -> "Optional[int]":
        """As `poll`, within so many seconds."""
        end = time.monotonic() + seconds
        while (code := self.poll()) is None and time.monotonic() < end:
            time.sleep(0.01)
        return code


def _found(name: str, env: "dict[str, str]") -> str:
    """Where the program is, by the PATH it will see itself."""
    if os.sep in name:
        return name
    for place in os.get_exec_path(env):
        if os.access(os.path.join(place, name), os.X_OK):
            return os.path.join(place, name)
    raise FileNotFoundError(errno.ENOENT, "not found on the PATH")


class Child:
    """A started program, or one that could not be started (`failure` says why)."""

    def __init__(
        self,
        argv: "list[str]",
        env: "dict[str, str]",
        cwd: str,
        mark: str,
        files: "Optional[dict[str, str]]" = None,
    ) -> None:
        self.mark, self.started_at, self.failure = mark, time.time(), ""
        self.stderr = b""
        self._program: "Optional[Program]" = None
        self._lock, self._mail, self._wake = threading.Lock(), [], threading.Event()  # type: tuple[Any, list[Any], Any]
        try:
            for path, text in (files or {}).items():
                put(path, text)
            os.chdir(cwd)
            self._program = Program(argv, env)
            threading.Thread(target=self._write, daemon=True).start()
        except (OSError, ValueError) as error:
            self.failure = f"cannot start the agent program {argv[0]}: {error}"

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._program is not None and self._program.poll() is None

    @property
    def pid(self) -> int:
        """Its process id; 0 when it never started."""
        return self._program.pid if self._program else 0

    def listen(self, hear: "Callable[[Child, Optional[bytes]], None]", log: "Callable[[bytes], None]") -> None:
        """Hand every line of output to `hear`, then None at its end."""
        if self._program is None:
            hear(self, None)
            return
        for work in (lambda: self._read(hear, log), self._read_errors):
            threading.Thread(target=work, daemon=True).start()

    def write(self, data: bytes, written: "Optional[Callable[[], None]]" = None) -> None:
        """Queue bytes for its input; `written` is called once the program's pipe has them."""
        if data:
            self._queue(data, written)

    def close_input(self) -> None:
        """Let it see the end of its input after what is queued."""
        self._queue(b"", None)

    def _queue(self, data: bytes, written: "Optional[Callable[[], None]]") -> None:
        with self._lock:
            self._mail.append((data, written))
        self._wake.set()

    def wait(self, seconds: float) -> "Optional[int]":
        """Its exit code (negative: signal) within so many seconds."""
        return self._program.wait(seconds) if self._program else None

    def stop(self, polite: float, term: float) -> "Optional[int]":
        """End it: close its input, then TERM, then KILL for it and everything it started."""
        if self._program is None:
            return None
        self.close_input()
        if self.wait(polite) is None:
            self._signal(signal.SIGTERM)
            if self.wait(term) is None:
                self._signal(signal.SIGKILL)
        code = self.wait(5)
        self._signal(signal.SIGKILL)
        sweep(self.mark)
        return code

    def _signal(self, number: int) -> None:
        with contextlib.suppress(OSError):
            os.killpg(self.pid, number)

    def _read(self, hear: "Callable[[Child, Optional[bytes]], None]", log: "Callable[[bytes], None]") -> None:
        assert self._program
        with contextlib.suppress(OSError, ValueError):
            for line in self._program.stdout:
                log(line)
                hear(self, line)
        hear(self, None)

    def _read_errors(self) -> None:
        assert self._program
        with contextlib.suppress(OSError, ValueError):
            while piece := self._program.stderr.read1(STDERR_KEPT):
                self.stderr = (self.stderr + piece)[-STDERR_KEPT:]

    def _write(self) -> None:
        assert self._program
        pipe = self._program.stdin
        with contextlib.suppress(OSError, ValueError):
            while True:
                self._wake.wait()
                with self._lock:
                    self._wake.clear()
                    mail, self._mail = self._mail, []
                for data, written in mail:
                    if not data:
                        pipe.close()
                        return
                    pipe.write(data)
                    pipe.flush()
                    if written:
                        written()


def launch(adapter: "Adapter", job: "dict[str, Any]") -> Child:
    """Start the agent program of the job in the workspace."""
    mark = str(job["sandbox_id"])
    env = {**os.environ, "HOME": job["home"], **adapter.environment(), **(job["agent"].get("env") or {}), MARK: mark}
    files = {os.path.join(job["home"], path): text for path, text in (job["agent"].get("files") or {}).items()}
    return Child(adapter.command(), env, job["workspace"], mark, files)


def put(path: str, text: str) -> None:
    """Write a file of the agent's home, whole or not at all."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    part = f"{path}.{os.getpid()}.part"
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(part, path)


def processes() -> "list[str]":
    """The ids of all processes to be seen; none where there is no /proc."""
    try:
        return [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def sweep(mark: str) -> int:
    """Kill every process left of an agent: its children outlive it, in groups of their own. Answers how many."""
    wanted = f"{MARK}={mark}".encode()
    killed = 0
    for name in processes():
        if int(name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            with open(f"/proc/{name}/environ", "rb") as file:
                if wanted not in file.read().split(b"\0"):
                    continue
            os.kill(int(name), signal.SIGKILL)
            killed += 1
    return killed
