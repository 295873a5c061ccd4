"""A workspace, a job and a real worker process, for tests of the worker."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.door import Door

HOUSE = Path(__file__).resolve().parents[2]
AUTHOR = {"GIT_AUTHOR_NAME": "T", "GIT_AUTHOR_EMAIL": "t@t", "GIT_COMMITTER_NAME": "T", "GIT_COMMITTER_EMAIL": "t@t"}
PHASES = {"plan": "planning", "build": "implementing", "test": "testing"}


def oldest_python() -> str:
    """Python 3.9 when this machine has one, else this Python."""
    uv = shutil.which("uv") or str(HOUSE / ".tools/bin/uv")
    ask = ["-c", "import sys; print(sys.executable)"]
    tries = [[str(p), *ask] for p in ("python3.9", *Path.home().glob(".pyenv/versions/3.9*/bin/python3.9"))]
    if Path(uv).exists():
        tries.insert(0, [uv, "python", "find", "--no-python-downloads", "3.9"])
    for command in tries:
        if not shutil.which(command[0]):
            continue
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        if found.returncode == 0 and found.stdout.strip():
            return found.stdout.strip()
    return sys.executable


def git(folder: Path, *arguments: str) -> str:
    """Run git and answer what it printed."""
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", **AUTHOR}
    done = subprocess.run(["git", *arguments], cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"git {arguments}: {done.stderr}"
    return done.stdout.strip()


@dataclass
class Bench:
    """Everything a worker finds in its sandbox, in a temporary folder."""

    root: Path
    door: Door
    pyz: Path
    python: str
    job: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("home", "spool", "workspace"):
            (self.root / name).mkdir()
        git(self.workspace, "init", "-q", "-b", "main")
        (self.workspace / "README.md").write_text("hello\n")
        git(self.workspace, "add", "-A")
        git(self.workspace, "commit", "-qm", "start")
        base = git(self.workspace, "rev-parse", "HEAD")
        git(self.workspace, "checkout", "-qb", "feat-wo-1")
        self.job = {
            "protocol": 1,
            "sandbox_id": self.door.sandbox_id,
            "work_order_id": "wo-1",
            "attempt_id": "wo-1-1",
            "fencing": 1,
            "api": {"url": self.door.url, "token": self.door.token},
            "heartbeat_seconds": 15,
            "server_away_seconds": 900,
            "workspace": str(self.workspace),
            "home": str(self.root / "home"),
            "spool": str(self.root / "spool"),
            "branch": "feat-wo-1",
            "base_commit": base,
            "resume_bundle": None,
            "author": {"name": "Shopfloor", "email": "agent@shopfloor.invalid"},
            "agent": {"adapter": "script", "program": [], "model": None, "env": {}, "options": {}},
            "steps": [],
        }

    @property
    def workspace(self) -> Path:
        """The agent's copy of the code."""
        return self.root / "workspace"

    def steps(self, *names: str, prompt: str = "Please do it.") -> None:
        """The steps of the job."""
        self.job["steps"] = [{"name": n, "phase": PHASES[n], "prompt": prompt, "done": False} for n in names]

    def script(self, script: Any, *steps: str) -> None:
        """A job for the script agent."""
        self.job["agent"]["options"] = {"script": script}
        self.steps(*(steps or ("build",)))

    def start(self) -> subprocess.Popen[bytes]:
        """Start the worker as its sandbox would."""
        place = self.root / "job.json"
        place.write_text(json.dumps(self.job))
        env = {"PATH": os.environ["PATH"], "HOME": self.job["home"], "LANG": "C.UTF-8", **self.env}
        with (self.root / "worker.log").open("ab") as log:
            process = subprocess.Popen([self.python, "-I", str(self.pyz), str(place)], env=env, stderr=log, stdout=log)
        self.processes.append(process)
        return process

    def finish(self, process: subprocess.Popen[bytes], timeout: float = 60) -> int:
        """The exit code."""
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the worker still runs; events: {self.door.types()[-15:]}; {self.log()}") from None

    def run(self) -> int:
        """Start the worker and wait for its end."""
        return self.finish(self.start())

    def log(self) -> str:
        """What the worker printed."""
        return (self.root / "worker.log").read_text()

    @property
    def result(self) -> dict[str, Any]:
        """The submitted result."""
        assert self.door.results, f"no result; {self.log()}"
        return self.door.results[0]

    def agents(self) -> list[int]:
        """Processes that belong to the agent, wherever they went."""
        mark = f"SHOPFLOOR_AGENT_OF={self.job['sandbox_id']}".encode()
        return [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and mark in environ(p).split(b"\0")]

    def agent(self) -> int:
        """The agent program's own process: the worker's child."""
        worker = self.processes[-1].pid
        children = Path(f"/proc/{worker}/task/{worker}/children")
        until = time.monotonic() + 30
        while time.monotonic() < until:
            found = [int(pid) for pid in children.read_text().split() if int(pid) in self.agents()]
            if found:
                return found[0]
        raise AssertionError("the worker has no agent")

    def close(self) -> None:
        """End what still runs."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
        for pid in self.agents():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def environ(process: Path) -> bytes:
    """A process's environment; empty when it has gone."""
    try:
        return (process / "environ").read_bytes()
    except OSError:
        return b""
