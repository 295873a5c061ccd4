"""What every real agent program must do in the `local` sandbox. A test file names the program; the claims are here."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from tests.support.model_server import ModelServer
from tests.support.platform import Platform, folder, git, sample_repository, until

HOUSE = Path(__file__).resolve().parents[2]
HOLD = "until [ -e /home/agent/go ]; do python3 -c 'import time; time.sleep(0.05)'; done; echo held > held.txt"
"""A command that runs until the test creates the file `go` in the agent's home."""
KEYS = {
    "anthropic": "sk-ant-no-agent-sees-this",
    "openai": "sk-no-agent-sees-this",
    "gemini": "AIza-no-agent-sees-this",
}
"""The real ones, as far as the house knows."""
SEARCH = (
    "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' > seen.txt; env >> seen.txt; "
    "grep -rasE 'no-agent-see[s]-this' /home /in /spool /tmp /workspace /run /etc /opt >> seen.txt; "
    "echo looked >> seen.txt"
)
"""One line: some agents take no more."""
NORMAL = {
    *("agent.session", "agent.message", "agent.thinking", "agent.tool_use", "agent.tool_result", "agent.permission"),
    *("agent.usage", "agent.retry", "agent.steered", "agent.turn_end", "agent.started", "agent.completed"),
    *("agent.restarted_in_place", "command.started", "command.output", "command.completed"),
    *("file.created", "file.modified", "file.deleted"),
}
"""Every agent speaks in these and no others."""


def program(name: str) -> str:
    """The path of an agent program, fetched by the project's own tool when it is not there."""
    tool = [sys.executable, str(HOUSE / "tools/get_agents.py"), name]
    done = subprocess.run(tool, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"the agent {name} could not be fetched: {done.stderr}"
    return done.stdout.strip()


@contextmanager
def crew(settings: str) -> Iterator[tuple[Platform, ModelServer]]:
    """A platform whose agents talk through the gateway to a scripted model."""
    with ModelServer([]) as model, folder() as place:
        accounts = "".join(f'[accounts.{api}]\nbase_url = "{model.url}"\n' for api in KEYS)
        (place / "shopfloor.toml").write_text(settings + accounts)
        house = Platform(place)
        house.environment.update({f"{api.upper()}_API_KEY": key for api, key in KEYS.items()})
        try:
            house.start()
            yield house, model
        finally:
            house.close()


class Job:
    """One work order in the hands of a real agent."""

    def __init__(self, house: Platform, model: ModelServer, agent: str, origin: Path) -> None:
        self.house, self.model, self.agent, self.origin = house, model, agent, origin
        self.order_id = ""

    def start(self, *script: dict[str, Any], agent: str | None = None, **fields: Any) -> "Job":
        """Hand the order over, with what the model will say."""
        self.model.script = list(script)
        self.model.requests.clear()
        self.model.refused.clear()
        body = {
            "repository_url": str(self.origin),
            "agent": agent or self.agent,
            "workflow_type": "build",
            "initial_prompt": "Please make the file.",
            **fields,
        }
        created = self.house.post("/agent-work-orders", body, expect=201)
        self.order_id = str(created["agent_work_order"]["agent_work_order_id"])
        return self

    def of(self, event: str) -> list[dict[str, Any]]:
        """The order's events of a type."""
        return [entry for entry in self.house.events(self.order_id) if entry["event"] == event]

    def holding(self) -> "Job":
        """Wait until the agent's command runs."""
        until(lambda: self.of("command.started"), what="the agent's command to run")
        return self

    def release(self) -> None:
        """Let the command end."""
        (self.house.data / "homes" / self.order_id / "go").touch()

    @property
    def sandbox(self) -> str:
        """The order's newest sandbox."""
        return str(self.house.show(self.order_id)["sandbox_identifier"])

    def end(self, status: str = "completed") -> dict[str, Any]:
        """The order, once it has ended as it should."""
        order = self.house.finished(self.order_id)
        assert order["status"] == status, (order["reason"], self.log())
        return order

    def log(self) -> str:
        """What happened, in short, for a failing test."""
        kept = [{k: str(v)[:200] for k, v in e.items() if k not in {"timestamp", "level"}} for e in self.entries()]
        return "\n".join(json.dumps(entry) for entry in kept[-40:])

    def entries(self) -> list[dict[str, Any]]:
        """Everything but heartbeats."""
        return [e for e in self.house.events(self.order_id) if e["event"] != "sandbox.heartbeat"]

    def file(self, name: str) -> str:
        """A file of the delivered branch."""
        return git("show", f"{self.house.show(self.order_id)['git_branch_name']}:{name}", cwd=self.origin)


class RealAgent:
    """The claims. `job` comes from a fixture of the test file."""

    steered: ClassVar[list[str]] = ["accepted", "delivered", "seen", "done"]
    mark: ClassVar[bytes]
    """In the command line of the agent's own process."""
    error: ClassVar[str] = "401"
    """What the order's reason names when the model refuses."""
    denied: ClassVar[str]
    """The tool that the careful profile denies."""
    permissions: ClassVar[bool] = True
    remembers: ClassVar[bool] = True
    """It can go on with a conversation."""
    remembers_a_cut_turn: ClassVar[bool] = True
    """What the model said in a turn that was interrupted is in the conversation (or in the account of it)."""
    keeps_a_killed_turn: ClassVar[bool] = True
    """The conversation is on disk before its first turn has ended; else that turn is begun anew."""
    tells_usage: ClassVar[bool] = True

    def test_a_turn_edits_the_repository(self, job: Job) -> None:
        job.start(
            {"text": "I begin.", "write": ["/workspace/hello.txt", "hi\n"]},
            {"bash": "cat /workspace/hello.txt > /workspace/copy.txt"},
            {"text": "All is done."},
        ).end()
        assert (job.file("hello.txt"), job.file("copy.txt")) == ("hi", "hi")
        said = {e["event"] for e in job.entries() if e["event"].startswith(("agent.", "command.", "file."))}
        assert said <= NORMAL
        assert {"agent.session", "agent.message", "agent.tool_use", "agent.tool_result", "agent.turn_end"} <= said
        assert {"command.started", "command.completed", "file.created"} <= said
        used, finished = job.of("agent.tool_use"), job.of("agent.tool_result")
        assert [u["id"] for u in used] == [f["id"] for f in finished]
        if self.tells_usage:
            assert sum(usage["input_tokens"] for usage in job.of("agent.usage")) > 0

    def test_a_prompt_during_a_tool_call_reaches_the_model(self, job: Job) -> None:
        heard = {"write": ["/workspace/heard.txt", "heard\n"]}
        job.start({"text": "One moment.", "bash": HOLD}, heard, {"text": "Heard."}, {"text": "Yes."})
        job.holding()
        said = job.house.post(f"/agent-work-orders/{job.order_id}/prompt", {"prompt_text": "Mind the gap, please."})
        message = f"/sandboxes/{job.sandbox}/messages/{said['message_id']}"
        self.given(job, message)
        job.release()
        job.end()
        assert job.model.said("Mind the gap, please.")
        assert job.house.get(message)["state"] == "done"
        last = json.dumps(job.model.requests[-1]["body"])
        assert "Please make the file." in last
        assert "Mind the gap, please." in last

    def given(self, job: Job, message: str) -> None:
        """Wait until the text is with the program."""
        until(lambda: job.house.get(message)["state"] != "accepted", what="the message to be delivered")

    def test_an_interrupt_stops_it_and_a_retry_goes_on(self, job: Job) -> None:
        job.start({"text": "A word to remember: heliotrope.", "bash": HOLD}, {"text": "never said"}).holding()
        job.house.post(f"/sandboxes/{job.sandbox}/messages", {"content": "", "message_type": "interrupt"})
        order = job.end("cancelled")
        assert "interrupted" in order["reason"]
        assert job.of("agent.turn_end")[-1]["reason"] == "interrupted"
        assert not job.house.inside(self.mark)
        again = {"text": "Going on.", "write": ["/workspace/more.txt", "more\n"]}
        job.model.script = [again] * 3 + [{"text": "Done."}] * 3  # at whichever turn it takes the conversation up
        job.model.requests.clear()
        job.house.post(f"/agent-work-orders/{job.order_id}/retry", {"prompt": "Go on, please."})
        job.end()
        assert job.model.said("heliotrope") is self.remembers_a_cut_turn
        assert "Please make the file." in json.dumps(job.model.requests[0]["body"])
        assert job.model.said("Go on, please.")

    def test_a_killed_program_goes_on(self, job: Job) -> None:
        job.start(
            {"text": "First.", "bash": HOLD},
            {"write": ["/workspace/two.txt", "2\n"]},
            {"text": "Done."},
            {"text": "Done."},
        ).holding()
        assert job.house.signal_inside(self.mark, signal.SIGKILL) >= 1
        job.release()
        job.end()
        assert job.file("two.txt") == "2"
        assert job.of("agent.restarted_in_place")[0]["exit_code"] == -9
        assert "Please make the file." in json.dumps(job.model.requests[-1]["body"])
        if self.remembers and self.keeps_a_killed_turn:
            assert len({session["session_id"] for session in job.of("agent.session")}) == 1

    def test_a_model_that_refuses_fails_the_order_with_its_reason(self, job: Job) -> None:
        order = job.start({"error": 401}).end("failed")
        assert self.error in order["error_message"]

    def test_no_real_key_is_inside(self, job: Job) -> None:
        """Environment, command lines and memory of every process's start, and every file it can read."""
        job.start({"bash": SEARCH}, {"text": "Done."}, {"text": "Done."}).end()
        seen = job.file("seen.txt")
        assert "looked" in seen
        assert not [key for key in KEYS.values() if key in seen]
        assert any(key in str(request["headers"]) for request in job.model.requests for key in KEYS.values())

    def test_a_denied_tool_is_not_run(self, job: Job) -> None:
        if not self.permissions:
            return
        job.start(
            {"text": "I try.", "write": ["/workspace/no.txt", "x\n"]},
            {"text": "Then without."},
            agent=f"careful-{job.agent}",
        )
        order = job.end("failed")
        answer = job.of("agent.permission")[0]
        assert (answer["tool"], answer["decision"], answer["by"]) == (self.denied, "deny", "profile")
        assert "changed nothing" in order["reason"]
        assert not [file for file in job.of("file.created") if file["path"] == "no.txt"]


@contextmanager
def a_job(house: Platform, model: ModelServer, agent: str) -> Iterator[Job]:
    """An order to be made, with a repository of its own."""
    with folder() as place:
        yield Job(house, model, agent, sample_repository(place))
