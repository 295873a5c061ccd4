"""The real platform as processes of its own, for journeys: start it, talk HTTP to it, kill it, start it again."""

import asyncio
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from shopfloor.kit import plugins

ADAPTERS = "shopfloor.sandboxes.adapters"
GENEROUS = 120.0
"""Seconds: these machines are shared and noisy."""


def git(*args: str, cwd: Path) -> str:
    """Run git for the test's own repositories."""
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.invalid", "-c", "init.defaultBranch=main")
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(
        ["git", *identity, *args], cwd=cwd, check=True, capture_output=True, text=True, env=environment
    )
    return done.stdout.strip()


def sample_repository(folder: Path, files: dict[str, str] | None = None) -> Path:
    """A bare origin with one commit on main."""
    work = folder / "sample"
    work.mkdir(parents=True)
    for name, content in (files or {"README.md": "# Sample\n", "app.py": "print('hello')\n"}).items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(content)
    git("init", "-q", cwd=work)
    git("add", "-A", cwd=work)
    git("commit", "-qm", "first", cwd=work)
    origin = folder / "origin.git"
    git("clone", "-q", "--bare", str(work), str(origin), cwd=folder)
    return origin


def until[T](look: Callable[[], T | None], *, limit: float = GENEROUS, what: str = "it") -> T:
    """Look again and again until there is something to see."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited {limit} s for {what}")


class Platform:
    """One data directory and the processes that serve it."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.settings = {"max_sandboxes": 8, "heartbeat_seconds": 2, "default_agent": "script", **settings}
        self.environment: dict[str, str] = {}
        """Set for the server beside this process's own."""
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.client = httpx.Client(timeout=30)
        self.port = 0
        self.log = folder / "server.log"

    def start(self, command: str = "up", *, name: str = "server", port: int | None = None) -> None:
        """Start a process and, if it serves the API, wait until it answers."""
        serves = command in {"up", "serve"}
        if serves:
            self.port = port or self.port or _free_port()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SHOPFLOOR_")}
        environment |= {f"SHOPFLOOR_{key.upper()}": _text(value) for key, value in self.settings.items()}
        environment |= {"SHOPFLOOR_DATA_DIR": str(self.data), "SHOPFLOOR_CONFIG": str(self.folder / "shopfloor.toml")}
        environment |= self.environment
        environment |= {"SHOPFLOOR_LOG_JSON": "true", "SHOPFLOOR_PORT": str(self.port)}
        with self.log.open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-c", RUN, command],
                env=environment,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )
        if serves:
            self.client.base_url = httpx.URL(f"http://127.0.0.1:{self.port}")
            until(lambda: self._answers(name), what="the server to answer")

    def _answers(self, name: str) -> bool:
        if (code := self.processes[name].poll()) is not None:
            raise AssertionError(f"the server ended with {code}: {self.log.read_text()[-4000:]}")
        try:
            return self.client.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def kill(self, name: str = "server") -> None:
        """kill -9."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def stop(self, name: str = "server") -> int:
        """SIGTERM, and wait."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        return process.wait(GENEROUS)

    def close(self) -> None:
        """End everything, sandboxes included."""
        for name in list(self.processes):
            self.kill(name)
        asyncio.run(self._remove_sandboxes())
        self.client.close()

    async def _remove_sandboxes(self) -> None:
        for name in plugins.names(ADAPTERS):
            root = self.data / "sandboxes" / name
            if root.exists():
                module = plugins.load(ADAPTERS, name)
                adapter = module.create(root, module.Config())
                for found in await adapter.list():
                    await adapter.destroy(found.sandbox_id)

    def signal_inside(self, mark: bytes, number: int) -> int:
        """Send a signal to processes inside the sandboxes; answers how many there were."""
        found = self.inside(mark)
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        return len(found)

    def keepers(self) -> list[int]:
        """The processes that hold this data directory's sandboxes: whoever has the lock file of one open."""
        mine = f"{self.data}/sandboxes/"
        return [pid for pid in _pids() if any(f.startswith(mine) and f.endswith("/alive") for f in _open_files(pid))]

    def inside(self, mark: bytes) -> list[int]:
        """Processes inside this data directory's sandboxes whose command line holds `mark`."""
        parents = {pid: _parent(pid) for pid in _pids()}
        roots = set(self.keepers())
        return [pid for pid in parents if mark in _cmdline(pid) and _descends(pid, roots, parents)]

    def get(self, path: str, **params: Any) -> Any:
        """GET below /api/v1, answered with 200."""
        answer = self.client.get(f"/api/v1{path}", params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: Any = None, *, expect: int = 200) -> Any:
        """POST below /api/v1."""
        answer = self.client.post(f"/api/v1{path}", json=body)
        assert answer.status_code == expect, answer.text
        return answer.json()

    def order(self, repository: Path | str, script: Any, prompt: str = "Please", **fields: Any) -> str:
        """Create a work order by the script agent; answers its id."""
        options = fields.pop("agent_options", {"script": script})
        body = {
            "repository_url": str(repository),
            "initial_prompt": prompt,
            "agent": "script",
            "agent_options": options,
            **fields,
        }
        created = self.post("/agent-work-orders", body, expect=201)
        return str(created["agent_work_order"]["agent_work_order_id"])

    def show(self, order_id: str) -> dict[str, Any]:
        """The order."""
        order: dict[str, Any] = self.get(f"/agent-work-orders/{order_id}")["agent_work_order"]
        return order

    def finished(self, order_id: str, *, limit: float = GENEROUS) -> dict[str, Any]:
        """Wait until the order is completed, failed or cancelled."""

        def look() -> dict[str, Any] | None:
            order = self.show(order_id)
            return order if order["status"] in {"completed", "failed", "cancelled"} else None

        try:
            return until(look, limit=limit, what=f"{order_id} to finish")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.show(order_id)}\n{self.log.read_text()[-6000:]}") from None

    def events(self, order_id: str) -> list[dict[str, Any]]:
        """Everything that happened to the order."""
        entries: list[dict[str, Any]] = []
        while True:
            page = self.get(f"/agent-work-orders/{order_id}/logs", limit=1000, offset=len(entries))
            entries += page["log_entries"]
            if not page["has_more"]:
                return entries


RUN = """
import asyncio, sys
from shopfloor.kit import config, log
from shopfloor import server
settings = config.load()
log.configure(settings.log_level, json=True)
asyncio.run(server.run(settings, api=sys.argv[1] in ("up", "serve"), engine=sys.argv[1] in ("up", "engine")))
"""


@contextmanager
def folder() -> Iterator[Path]:
    """A short, traversable folder: sandboxes run as another user, sockets have short names."""
    place = Path(tempfile.gettempdir()) / f"sf-{secrets.token_hex(4)}"
    place.mkdir(mode=0o755)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def platform(**settings: Any) -> Iterator[Platform]:
    """A running platform in a folder of its own."""
    with folder() as place:
        house = Platform(place, **settings)
        try:
            house.start()
            yield house
        finally:
            house.close()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _open_files(pid: int) -> list[str]:
    try:
        return [os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        return []


def _cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return 0


def _descends(pid: int, roots: set[int], parents: dict[int, int]) -> bool:
    while pid := parents.get(pid, 0):
        if pid in roots:
            return True
    return False
