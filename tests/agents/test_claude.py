"""The real Claude program, driven by the real worker, against a scripted model on loopback."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shopfloor.agents import service as agents
from shopfloor.kit.config import Settings
from tests.support.model_server import ModelServer, Step
from tests.support.workers import Bench, git

pytestmark = pytest.mark.claude
HOLD = "until [ -e go ]; do python3 -c 'import time; time.sleep(0.05)'; done; echo held > held.txt"
"""A command that runs until the test creates the file `go`."""


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    profile = agents.profile(Settings(data_dir=tmp_path_factory.mktemp("data")), "claude")
    try:
        return agents.program(profile)
    except agents.ProgramMissing as missing:
        pytest.skip(missing.message)


@pytest.fixture
def model() -> Iterator[ModelServer]:
    with ModelServer([]) as server:
        yield server


@pytest.fixture
def claude(bench: Bench, model: ModelServer, program: Path) -> Bench:
    """A bench whose agent is the real program."""
    bench.job["agent"] = {
        "adapter": "claude",
        "program": [str(program)],
        "model": None,
        "env": {
            "IS_SANDBOX": "1",
            "ANTHROPIC_BASE_URL": model.url,
            "ANTHROPIC_API_KEY": "dummy",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "CLAUDE_CODE_MAX_RETRIES": "1",
        },
        "options": {},
    }
    bench.steps("build", prompt="Please make the file.")
    return bench


def tool_is_running(bench: Bench) -> None:
    bench.door.wait_event("command.started")


def release(bench: Bench) -> None:
    (bench.workspace / "go").touch()


def turns(*steps: Step) -> list[Step]:
    return list(steps)


# ---- a whole turn
def test_a_turn_edits_the_repository_and_is_committed(claude: Bench, model: ModelServer) -> None:
    model.script = turns({"write": ["hello.txt", "hi\n"]}, {"bash": "echo b > b.txt"}, {"text": "Add hello"})
    assert claude.run() == 0, claude.result
    assert git(claude.workspace, "show", "--format=%s", "--name-only", "feat-wo-1").split("\n") == [
        "implementing: Add hello",
        "",
        "b.txt",
        "hello.txt",
    ]


def test_a_turns_events_are_normalized(claude: Bench, model: ModelServer) -> None:
    model.script = turns({"text": "I begin", "write": ["hello.txt", "hi\n"]}, {"bash": "exit 3"}, {"text": "Done"})
    assert claude.run() == 0
    wanted = {
        "agent.session",
        "agent.message",
        "agent.tool_use",
        "agent.tool_result",
        "file.created",
        "command.started",
    }
    wanted |= {"command.completed", "agent.turn_end", "agent.usage"}
    assert [kind for kind in claude.door.types() if kind in wanted] == [
        "agent.session",
        "agent.message",
        "agent.tool_use",
        "file.created",
        "agent.tool_result",
        "agent.tool_use",
        "command.started",
        "command.completed",
        "agent.tool_result",
        "agent.message",
        "agent.usage",
        "agent.turn_end",
    ]
    assert claude.door.of("command.completed")[0]["exit_code"] == 3
    assert claude.door.of("file.created") == [{"path": "hello.txt"}]


def test_started_and_finished_are_one_record(claude: Bench, model: ModelServer) -> None:
    model.script = turns({"write": ["hello.txt", "hi\n"]}, {"text": "Done"})
    assert claude.run() == 0
    used, finished = claude.door.of("agent.tool_use")[0], claude.door.of("agent.tool_result")[0]
    assert (used["id"], used["kind"], used["status"]) == (finished["id"], "edit", "started")
    assert (finished["ok"], finished["status"]) == (True, "finished")


def test_steps_share_the_conversation(claude: Bench, model: ModelServer) -> None:
    model.script = turns({"text": "the plan"}, {"text": "the build"})
    claude.steps("plan", "build", prompt="Please.")
    assert claude.run() == 0
    assert "the plan" in json.dumps(model.requests[-1]["body"])
    assert len(claude.door.of("agent.started")) == 1


def test_cost_is_told_in_deltas(claude: Bench, model: ModelServer) -> None:
    model.script = turns({"text": "the plan"}, {"text": "the build"})
    claude.steps("plan", "build")
    assert claude.run() == 0
    first, second = (usage["cost_usd"] for usage in claude.door.of("agent.usage"))
    assert first == second > 0
    assert claude.result["cost_usd"] == pytest.approx(first + second)


# ---- steer
def test_a_message_joins_the_running_turn(claude: Bench, model: ModelServer) -> None:
    model.script = turns({"bash": HOLD}, {"write": ["hello.txt", "hi\n"]}, {"text": "Done"})
    process = claude.start()
    tool_is_running(claude)
    said = claude.door.say("STEERED-TEXT")
    claude.door.wait(lambda: said.state == "delivered", "the receipt")
    release(claude)
    assert claude.finish(process) == 0
    assert "STEERED-TEXT" in json.dumps(model.requests[1]["body"])


def test_receipts_follow_a_steer(claude: Bench, model: ModelServer) -> None:
    model.script = turns({"bash": HOLD}, {"text": "Done"})
    process = claude.start()
    tool_is_running(claude)
    said = claude.door.say("STEERED-TEXT")
    claude.door.wait(lambda: said.state == "delivered", "the receipt")
    release(claude)
    assert claude.finish(process) == 0
    assert said.receipts == ["delivered", "seen", "done"]
    assert claude.door.of("agent.steered") == [{"message_id": said.message_id}]


def test_a_message_during_the_last_words_gets_a_turn_of_its_own(claude: Bench, model: ModelServer) -> None:
    model.script = turns({"text": "a b c d e f g h i j k l m n o p", "slow": 0.15}, {"text": "Done after all"})
    process = claude.start()
    model.wait_for(lambda body: "Please make the file." in json.dumps(body))
    said = claude.door.say("LATE-TEXT")
    assert claude.finish(process) == 0
    assert said.state == "done"
    assert model.said("LATE-TEXT")
    assert claude.result["summary"] == "Done after all"


def test_a_guardian_message_is_marked_as_one(claude: Bench, model: ModelServer) -> None:
    model.script = turns({"bash": HOLD}, {"text": "Done"})
    process = claude.start()
    tool_is_running(claude)
    said = claude.door.say("LOOK-OUT", "guardian_intervention")
    claude.door.wait(lambda: said.state == "delivered", "the receipt")
    release(claude)
    assert claude.finish(process) == 0
    assert "<guardian-intervention>" in json.dumps(model.requests[1]["body"]["messages"])


# ---- interrupt
def test_an_interrupt_stops_a_running_tool(claude: Bench, model: ModelServer) -> None:
    model.script = turns({"bash": HOLD}, {"text": "never said"})
    process = claude.start()
    tool_is_running(claude)
    claude.door.say("", "interrupt")
    assert claude.finish(process) == 2
    assert claude.result["status"] == "interrupted"
    assert claude.agents() == []
    assert len(model.requests) == 1


def test_an_interrupts_words_are_the_next_prompt(claude: Bench, model: ModelServer) -> None:
    model.script = turns({"bash": HOLD}, {"text": "Turned left"})
    process = claude.start()
    tool_is_running(claude)
    said = claude.door.say("TURN-LEFT", "interrupt")
    assert claude.finish(process) == 0
    assert model.said("TURN-LEFT")
    assert claude.result["summary"] == "Turned left"
    assert said.receipts == ["delivered", "seen", "done"]


def test_sigterm_stops_gracefully(claude: Bench, model: ModelServer) -> None:
    model.script = turns({"write": ["half.txt", "x"]}, {"bash": HOLD}, {"text": "never said"})
    process = claude.start()
    tool_is_running(claude)
    process.terminate()
    started = time.monotonic()
    assert claude.finish(process) == 2
    assert time.monotonic() - started < 12
    assert git(claude.workspace, "show", "feat-wo-1:half.txt") == "x"
    assert claude.agents() == []


# ---- kill and resume
def transcript(bench: Bench) -> str:
    found = list((bench.root / "home" / ".claude" / "projects").rglob("*.jsonl"))
    return found[0].read_text() if found else ""


def test_a_killed_program_goes_on_in_the_same_conversation(claude: Bench, model: ModelServer) -> None:
    model.script = turns({"write": ["one.txt", "1"]}, {"bash": HOLD}, {"write": ["two.txt", "2"]}, {"text": "Done"})
    process = claude.start()
    tool_is_running(claude)
    while HOLD[:20] not in transcript(claude):
        assert process.poll() is None
    os.kill(claude.agent(), signal.SIGKILL)
    release(claude)
    assert claude.finish(process) == 0, claude.result
    assert git(claude.workspace, "show", "feat-wo-1:two.txt") == "2"
    assert len({start["session_id"] for start in claude.door.of("agent.started")}) == 1
    assert "killed and has been started again" in json.dumps(model.requests[-1]["body"])


def test_a_program_killed_before_its_conversation_was_written_starts_anew(claude: Bench, model: ModelServer) -> None:
    model.script = turns({"text": "Done", "delay": 3})
    process = claude.start()
    claude.door.wait_event("agent.started")
    os.kill(claude.agent(), signal.SIGKILL)
    assert claude.finish(process) == 0, claude.result
    assert "Please make the file." in json.dumps(model.requests[-1]["body"])


def test_a_later_attempt_goes_on_with_the_conversation(claude: Bench, model: ModelServer) -> None:
    model.script = turns({"text": "FIRST-ANSWER"}, {"text": "Second"})
    assert claude.run() == 0
    session, first_cost = claude.result["agent_session_id"], claude.result["cost_usd"]
    claude.job["agent"]["resume_session"] = session
    claude.job["spool"] = str(claude.root / "spool-2")
    claude.door.results.clear()
    claude.door.events.clear()
    assert claude.run() == 0, claude.result
    assert "FIRST-ANSWER" in json.dumps(model.requests[-1]["body"])
    assert claude.result["agent_session_id"] == session
    assert claude.result["cost_usd"] == pytest.approx(first_cost)


def test_a_conversation_that_is_gone_is_begun_anew(claude: Bench, model: ModelServer) -> None:
    model.script = turns({"text": "Done"})
    claude.job["agent"]["resume_session"] = "11111111-2222-4333-8444-555555555555"
    assert claude.run() == 0, claude.result
    assert claude.result["agent_session_id"] != "11111111-2222-4333-8444-555555555555"


# ---- the model refuses
@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (429, "rate_limit_error"),
        (529, "overloaded_error"),
    ],
)
def test_a_refusing_model_fails_the_order_with_its_reason(
    claude: Bench, model: ModelServer, status: int, meaning: str
) -> None:
    model.script = turns({"error": status})
    assert claude.run() == 1
    assert claude.result["status"] == "failed"
    assert claude.result["reason"].startswith(f"the model answered {status} ({meaning})")


def test_a_busy_model_is_tried_again(claude: Bench, model: ModelServer) -> None:
    model.script = turns({"error": 529, "times": 1, "text": "Done"})
    assert claude.run() == 0, claude.result
    retry: dict[str, Any] = claude.door.of("agent.retry")[0]
    assert (retry["status"], retry["attempt"], retry["max_attempts"]) == (529, 1, 1)


def test_a_limit_of_turns_is_a_limit(claude: Bench, model: ModelServer) -> None:
    model.script = turns({"bash": "echo 1"}, {"bash": "echo 2"}, {"text": "Done"})
    claude.job["agent"]["options"] = {"max_turns": 1}
    assert claude.run() == 1
    assert claude.door.of("agent.turn_end")[0]["reason"] == "limit"
    assert "limit of turns" in claude.result["reason"]


# ---- permissions
@pytest.mark.parametrize("mode", ["bypassPermissions", "default"])
def test_a_denied_tool_is_not_run(claude: Bench, model: ModelServer, mode: str) -> None:
    model.script = turns({"write": ["no.txt", "x"]}, {"text": "Done without"})
    claude.job["agent"]["options"] = {"permission_mode": mode, "deny_tools": ["Write"]}
    assert claude.run() == 0, claude.result
    assert not (claude.workspace / "no.txt").exists()
    assert claude.door.of("agent.permission")[0]["decision"] == "deny"


def test_an_allowed_tool_is_run_and_told(claude: Bench, model: ModelServer) -> None:
    model.script = turns({"write": ["yes.txt", "x"]}, {"text": "Done"})
    claude.job["agent"]["options"] = {"permission_mode": "default", "allow_tools": ["Write"]}
    assert claude.run() == 0, claude.result
    assert (claude.workspace / "yes.txt").exists()
    assert claude.door.of("agent.permission")[0]["decision"] == "allow"
