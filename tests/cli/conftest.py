"""The real command as a process, against a real server that it started itself."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from shopfloor.cli import processes
from tests.support.platform import GENEROUS, folder, git, until

PLAN_BUILD_TEST = {
    "plan": [{"say": "I will greet."}, {"write": {"path": "specs/plan.md", "content": "# Plan\n"}}],
    "build": [{"write": {"path": "greet.py", "content": "print('good morning')\n"}}],
    "test": [{"run": {"command": "python3 greet.py > result.txt"}}],
}
WAITS = [
    {"say": "waiting for you"},
    {"wait_for_message": {"timeout": 90}},
    {"write": {"path": "heard.txt", "content": "$message\n"}},
]
FAILS = [{"fail": {"reason": "the tests are a lie"}}]


@dataclass
class Shop:
    """The command, and the server it talks to."""

    url: str
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SHOPFLOOR_")}
        environment |= {"SHOPFLOOR_URL": self.url, "NO_COLOR": "1", **self.environment, **options.pop("env", {})}
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        command = [sys.executable, "-m", "shopfloor.cli.main", *arguments]
        return subprocess.Popen(command, env=environment, text=True, **options)

    def __call__(self, *arguments: str, said: str | None = None, **options: Any) -> "Done":
        if said is not None:
            options["stdin"] = subprocess.PIPE
        process = self.start(*arguments, **options)
        out, err = process.communicate(said, timeout=GENEROUS)
        return Done(process.returncode, out, err)

    def json(self, *arguments: str) -> Any:
        done = self(*arguments, "--json")
        assert done.code == 0, done
        return json.loads(done.out)

    def run(self, repository: Path, script: object, *more: str, workflow: str = "build", **options: Any) -> "Done":
        words = ["--agent", "script", "--workflow", workflow, "--option", f"script={json.dumps(script)}"]
        return self("run", str(repository), "Please greet", *words, *more, **options)

    def order(self, repository: Path, script: object, *more: str, workflow: str = "build") -> str:
        done = self.run(repository, script, "--detach", *more, workflow=workflow)
        assert done.code == 0, done
        return done.out.strip()

    def speaking(self, order_id: str) -> None:
        """Wait until the order's agent has said something."""
        logs = f"{self.url}/api/v1/agent-work-orders/{order_id}/logs"
        until(lambda: "waiting for you" in httpx.get(logs, params={"limit": 1000}).text, what="the agent to speak")


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str


def repository(place: Path, files: Mapping[str, str] | None = None) -> Path:
    """A plain folder with a git repository, as a user has it."""
    work = place / "project"
    work.mkdir()
    for name, content in (files or {"README.md": "# Sample\n"}).items():
        (work / name).write_text(content)
    git("init", "-q", cwd=work)
    git("add", "-A", cwd=work)
    git("commit", "-qm", "first", cwd=work)
    return work


def port_of(log: Path, server: subprocess.Popen[Any]) -> int:
    """The port a server says it listens on."""

    def look() -> int | None:
        assert server.poll() is None, log.read_text()
        for line in log.read_text().splitlines():
            if '"server_started"' in line:
                return int(json.loads(line)["port"])
        return None

    return until(look, what="the server to start")


@pytest.fixture(scope="session")
def shop() -> Iterator[Shop]:
    """A server started by `shopfloor up`, shared by all tests of the command."""
    with folder() as place:
        (place / "shopfloor.toml").write_text("")
        settings = {
            "SHOPFLOOR_DEFAULT_AGENT": "script",
            "SHOPFLOOR_HEARTBEAT_SECONDS": "5",
            "SHOPFLOOR_CONFIG": str(place / "shopfloor.toml"),
            "SHOPFLOOR_DATA_DIR": str(place / "data"),
        }
        log = place / "server.log"
        with log.open("w") as file:
            server = Shop("", settings).start("up", "--port", "0", stdout=file, stderr=file)
        try:
            yield Shop(f"http://127.0.0.1:{port_of(log, server)}", settings)
        finally:
            server.terminate()
            try:
                server.wait(GENEROUS)
            finally:
                server.kill()
                for keeper in processes.inside(place):  # sandboxes outlive their server; these must not
                    os.kill(keeper, signal.SIGKILL)


@pytest.fixture
def place() -> Iterator[Path]:
    """A short folder that sandboxes can pass through."""
    with folder() as made:
        yield made


@pytest.fixture
def nobody(place: Path) -> Shop:
    """The command, with no server anywhere."""
    return Shop("http://127.0.0.1:9", {"SHOPFLOOR_CONFIG": str(place / "none.toml"), "SHOPFLOOR_DATA_DIR": str(place)})
