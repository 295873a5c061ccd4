"""The demo's own platform: a server process on a free port, its data in a temporary folder, nothing left of it afterwards."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from shopfloor.cli import processes
from shopfloor.cli.client import API, ORDERS, Client
from shopfloor.kit.errors import Problem, Unavailable

START_SECONDS = 60.0
STOP_SECONDS = 20.0


class DemoFailed(Unavailable):
    """The demo did not work."""


class House:
    """A running platform; `close` ends it with everything it started."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.data = Path(tempfile.mkdtemp(prefix="shopfloor-demo-")).resolve()
        self.data.chmod(0o711)  # sandboxes run as another user and must pass through
        self.url = ""
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and wait until it serves."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SHOPFLOOR_")}
        environment |= {
            "SHOPFLOOR_CONFIG": str(self.data / "shopfloor.toml"),
            "SHOPFLOOR_DEFAULT_AGENT": "script",
            "SHOPFLOOR_HEARTBEAT_SECONDS": "5",
            "SHOPFLOOR_ORPHAN_SECONDS": "60",
            "SHOPFLOOR_LOG_JSON": "true",
        }
        (self.data / "shopfloor.toml").touch()
        options = ["--data-dir", str(self.data), "--host", "127.0.0.1", "--port", "0", "--max-sandboxes", "3"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "shopfloor.cli.main", "up", *options],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is ours: we end the server after its sandboxes
            )
        self.url = f"http://127.0.0.1:{self._port()}"

    def check(self) -> None:
        """Raise DemoFailed when the server is gone."""
        if self.process is None or self.process.poll() is not None:
            code = self.process.returncode if self.process else None
            raise DemoFailed(f"the server ended with exit code {code}", hint=f"Its log: {self.log}")

    def _port(self) -> int:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            for line in self.log.read_bytes().splitlines():
                with contextlib.suppress(ValueError):
                    said = json.loads(line)
                    if isinstance(said, dict) and said.get("event") == "server_started":
                        return int(said["port"])
            self.check()
            time.sleep(0.05)
        raise DemoFailed(f"the server did not start within {START_SECONDS:.0f} s", hint=f"Its log: {self.log}")

    def close(self) -> None:
        """Cancel what runs, remove its sandboxes, end the server, remove its data. A second Ctrl-C does not stop this."""
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            if self.process and self.process.poll() is None:
                with contextlib.suppress(Problem):
                    self._clear()
                self._end()
            self._sweep()
            shutil.rmtree(self.data, ignore_errors=True)
        finally:
            signal.signal(signal.SIGINT, before)

    def _clear(self) -> None:
        if not self.url:
            return
        with Client(self.url, timeout=15) as client:
            for status in ("pending", "running"):
                for order in client.get(ORDERS, status=status, limit=100)["agent_work_orders"]:
                    client.post(f"{ORDERS}/{order['agent_work_order_id']}/cancel")
            for sandbox in client.get(f"{API}/sandboxes", state="RUNNING", limit=100)["sandboxes"]:
                client.delete(f"{API}/sandboxes/{sandbox['sandbox_id']}", force=True)

    def _sweep(self) -> None:
        """End what still works in our data, and wait until it has: a process that dies may write once more."""
        deadline = time.monotonic() + STOP_SECONDS
        while (left := processes.inside(self.data)) and time.monotonic() < deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    def _end(self) -> None:
        assert self.process
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
