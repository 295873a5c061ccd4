"""Entry: start the agent of the first open step before anything else is loaded, then the rest of the worker beside it."""

import json
import os
import signal
import sys

from shopfloor_worker import adapters, child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main() -> int:
    """Run the job whose file is named on the command line; answers the exit code."""
    if sys.argv[1:2] == ["--script-agent"]:
        from shopfloor_worker import script_agent

        return script_agent.main(sys.argv[2:])
    if sys.argv[1:2] == ["--runner"]:
        return _runner(*sys.argv[2:])
    if len(sys.argv) != 2:
        print("usage: python3 -I worker.pyz JOB.json", file=sys.stderr)
        return 64
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # inherited as ignored, it would hide how the agent ended
    signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda told, _frame: signals.append(told))
    with open(sys.argv[1], encoding="utf-8") as file:
        job = json.load(file)
    adapter = adapters.make(job)
    first = next((step for step in job["steps"] if not step["done"]), None)
    new = not job.get("resume_bundle") and not os.path.exists(os.path.join(job["spool"], "outbox.jsonl"))
    if job.get("origin"):
        _connect(job)
    early = child.launch(adapter, job) if new and first else None
    if early and first and early.running:
        early.write(adapter.opening() + adapter.say(first["prompt"], "prompt-1", "prompt", first["name"]))
    from shopfloor_worker.run import Worker

    return Worker(job, adapter, early, signals).run()


def _connect(job: "dict[str, Any]") -> None:
    """Before the agent looks. Without it the work goes on, and is delivered as ever."""
    from shopfloor_worker.repo import GitFailed, Repo

    try:
        Repo(job).connect(job["origin"])
    except GitFailed as error:
        print(f"origin could not be set: {error}", file=sys.stderr)


def _runner(name: str, job: str, session: str = "") -> int:
    """Be an agent that is a Python package, in the Python that has it."""
    import importlib

    with open(job, encoding="utf-8") as file:
        told = json.load(file)
    code: int = importlib.import_module(f"shopfloor_worker.runners.{name}").main(told, session)
    return code


if __name__ == "__main__":
    sys.exit(main())
