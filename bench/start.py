"""Request accepted -> agent's first command running, warm mirror, 10,000 files; against bare overlay + bubblewrap + the same agent program."""

import json
import os
import statistics
import subprocess
import time
import uuid
from pathlib import Path

from tests.support.platform import Platform, folder, git

from bench.sandbox import repository
from shopfloor.sandboxes.adapters.local import bubblewrap

ROUNDS = 20
STAMP = "date +%s%N > stamp"


def main() -> None:
    with folder() as place:
        golden = repository(place)
        origin = place / "origin.git"
        git("clone", "-q", "--bare", str(golden), str(origin), cwd=place)
        house = Platform(place, max_sandboxes=4)
        try:
            house.start()
            ours = [_ours(house, origin) for _ in range(ROUNDS + 1)][1:]
            worker = next((house.data / "worker").glob("*.pyz"))
            bare = [_bare(place, golden, worker) for _ in range(ROUNDS + 1)][1:]
        finally:
            house.close()
    print("request accepted -> agent's first command (target: at most 3x)")
    for name, values in (("bare", bare), ("ours", ours)):
        print(f"  {name:5} median {statistics.median(values):6.1f} ms, best {min(values):6.1f} ms")
    print(f"  ratio of medians {statistics.median(ours) / statistics.median(bare):.2f}x")


def _ours(house: Platform, origin: Path) -> float:
    """Milliseconds from the answer to the request to the agent's first command."""
    order_id = house.order(origin, [{"run": {"command": STAMP}}], workflow_type="build")
    accepted = time.time_ns()
    branch = house.finished(order_id)["git_branch_name"]
    return (int(git("show", f"{branch}:stamp", cwd=origin)) - accepted) / 1e6


def _bare(place: Path, golden: Path, worker: Path) -> float:
    """The same agent program, started by a bare script: overlay, namespaces, exec."""
    found = bubblewrap.find()
    work = place / f"bare-{uuid.uuid4().hex[:8]}"
    for part in ("upper", "work", "home", "in"):
        (work / part).mkdir(parents=True)
    job = {
        "home": "/home/agent",
        "workspace": "/workspace",
        "agent": {"options": {"script": [{"run": {"command": STAMP}}]}},
    }
    (work / "in" / "job.json").write_text(json.dumps(job | {"attempt_id": "bare-1"}))
    binds = ["--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib"]
    binds += ["--symlink", "usr/lib64", "/lib64", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    binds += ["--overlay-src", str(golden), "--overlay", str(work / "upper"), str(work / "work"), "/workspace"]
    binds += [
        "--bind",
        str(work / "home"),
        "/home/agent",
        "--ro-bind",
        str(work / "in"),
        "/in",
        "--ro-bind",
        str(worker),
        "/w.pyz",
    ]
    program = ["python3", "-I", "-S", "/w.pyz", "--script-agent", "/in/job.json"]
    command = [
        str(found.program),
        "--unshare-all",
        "--die-with-parent",
        *binds,
        "--chdir",
        "/workspace",
        "--",
        *program,
    ]
    line = json.dumps({"type": "prompt", "text": "x", "ident": "p1", "step": "build"}).encode() + b"\n"
    environment = {**os.environ, "LD_LIBRARY_PATH": str(found.libraries or "")}
    began = time.time_ns()
    agent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment)
    assert agent.stdin
    agent.stdin.write(line)
    agent.stdin.flush()
    stamp = work / "upper" / "stamp"
    deadline = time.monotonic() + 60
    while not (stamp.exists() and stamp.read_text().strip()):
        assert time.monotonic() < deadline, "the bare agent did not run"
        time.sleep(0.002)
    agent.kill()
    agent.wait()
    return (int(stamp.read_text()) - began) / 1e6


if __name__ == "__main__":
    main()
