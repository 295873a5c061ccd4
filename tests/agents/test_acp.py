"""The Agent Client Protocol adapter, against a real program of ours that speaks it and declares each meaning of a second prompt."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.workers import Bench, git

PROGRAM = Path(__file__).resolve().parents[1] / "support/acp_program.py"


def agent(bench: Bench, prompt: str, *flags: str, steer: str = "queue", **options: Any) -> Bench:
    bench.job["agent"] = {
        "adapter": "acp",
        "program": [sys.executable, "-P", str(PROGRAM), steer, *flags],
        "model": None,
        "env": {},
        "options": {"steer": steer, **options},
    }
    bench.steps("build", prompt=f"\n{prompt}")
    return bench


def told(bench: Bench) -> str:
    """Everything the program was told, in all sessions."""
    return "".join(file.read_text() for file in (bench.root / "home" / ".acp-program").glob("*"))


def release(bench: Bench) -> None:
    (bench.workspace / "go").touch()


# ---- a turn
def test_a_turn_is_normalized(bench: Bench) -> None:
    agent(bench, "think hmm\nsay I begin now\nwrite a.txt hello\nrun echo hi; exit 3\nsay Add a")
    assert bench.run() == 0, bench.result
    wanted = [kind for kind in bench.door.types() if kind.startswith(("agent.", "command.", "file."))]
    assert wanted == [
        *("agent.started", "agent.session", "agent.thinking", "agent.message"),
        *("agent.tool_use", "agent.permission", "file.created", "agent.tool_result"),
        *("agent.tool_use", "command.started", "command.output", "command.completed", "agent.tool_result"),
        *("agent.message", "agent.usage", "agent.turn_end", "agent.completed"),
    ]
    assert bench.door.of("command.completed")[0]["exit_code"] == 3
    assert bench.result["summary"].strip() == "Add a"
    assert git(bench.workspace, "show", "feat-wo-1:a.txt") == "hello"


def test_the_rules_of_the_house_are_told_once(bench: Bench) -> None:
    agent(bench, "say hi").steps("build", "test", prompt="say hi")
    assert bench.run() == 0
    assert told(bench).count("You work unattended") == 1


def test_cost_is_told_in_deltas(bench: Bench) -> None:
    agent(bench, "").steps("build", "test", prompt="\nspend 0.25\nsay hi")
    assert bench.run() == 0
    assert [usage["cost_usd"] for usage in bench.door.of("agent.usage")] == [0.25, 0.25]


# ---- a second prompt
def test_join_is_said_at_once(bench: Bench) -> None:
    process = agent(bench, "wait\nsay done", steer="join").start()
    bench.door.wait_event("command.started")
    said = bench.door.say("LEFT")
    bench.door.wait_event("agent.tool_use")
    bench.door.wait(lambda: "LEFT" in told(bench), "the words in the running turn")
    assert not bench.door.of("agent.turn_end")
    release(bench)
    assert bench.finish(process) == 0
    assert said.receipts == ["delivered", "seen", "done"]
    assert len(bench.door.of("agent.turn_end")) == 1


def test_queue_holds_the_words_until_the_turn_is_over(bench: Bench) -> None:
    process = agent(bench, "wait\nsay done", steer="queue").start()
    bench.door.wait_event("command.started")
    said = bench.door.say("say LEFT")
    bench.door.wait(lambda: said.leases, "the worker to have the message")
    assert "LEFT" not in told(bench)
    release(bench)
    assert bench.finish(process) == 0
    assert "LEFT" in told(bench)
    assert said.receipts == ["delivered", "seen", "done"]
    assert len(bench.door.of("agent.turn_end")) == 2
    assert bench.result["summary"].strip() == "LEFT"


def test_replace_cancels_the_turn_for_the_words(bench: Bench) -> None:
    process = agent(bench, "wait\nsay never said", steer="replace").start()
    bench.door.wait_event("command.started")
    said = bench.door.say("say LEFT")
    assert bench.finish(process) == 0
    assert "Go on with your task" in told(bench)
    assert said.receipts == ["delivered", "seen", "done"]
    assert "never said" not in str(bench.door.of("agent.message"))
    assert [end["reason"] for end in bench.door.of("agent.turn_end")] == ["done"]


def test_replace_takes_two_messages_in_one_turn(bench: Bench) -> None:
    process = agent(bench, "wait\nsay never said", steer="replace").start()
    bench.door.wait_event("command.started")
    both = [bench.door.say("say ONE"), bench.door.say("say TWO")]
    assert bench.finish(process) == 0
    assert [said.state for said in both] == ["done", "done"]
    assert all(word in told(bench) for word in ("ONE", "TWO"))


# ---- interrupts and ends
@pytest.mark.parametrize("steer", ["join", "queue", "replace"])
def test_an_interrupt_cancels(bench: Bench, steer: str) -> None:
    process = agent(bench, "wait\nsay never said", steer=steer).start()
    bench.door.wait_event("command.started")
    bench.door.say("", "interrupt")
    assert bench.finish(process) == 2
    assert bench.door.of("agent.turn_end")[0]["reason"] == "interrupted"
    assert bench.door.of("command.completed")[0]["exit_code"] is None


@pytest.mark.parametrize("steer", ["join", "queue", "replace"])
def test_an_interrupts_words_are_the_next_prompt(bench: Bench, steer: str) -> None:
    process = agent(bench, "wait\nsay never said", steer=steer).start()
    bench.door.wait_event("command.started")
    said = bench.door.say("say RIGHT", "interrupt")
    assert bench.finish(process) == 0
    assert bench.result["summary"].strip() == "RIGHT"
    assert said.receipts == ["delivered", "seen", "done"]


def test_a_refusing_model_is_an_error_with_its_status(bench: Bench) -> None:
    assert agent(bench, "refuse 429").run() == 1
    assert bench.result["reason"].startswith("the model answered 429 (rate_limit_error)")


def test_a_limit_is_a_limit(bench: Bench) -> None:
    assert agent(bench, "limit").run() == 1
    assert bench.door.of("agent.turn_end")[0]["reason"] == "limit"


# ---- permissions, modes, logins
def test_a_denied_tool_is_not_run(bench: Bench) -> None:
    assert agent(bench, "write no.txt x\nsay done", deny_tools=["edit"]).run() == 0
    assert not (bench.workspace / "no.txt").exists()
    assert bench.door.of("agent.permission")[0]["decision"] == "deny"
    assert bench.door.of("agent.tool_result")[0]["ok"] is False


def test_what_is_allowed_is_allowed_once(bench: Bench) -> None:
    assert agent(bench, "write yes.txt x\nsay done", allow_tools=["write"]).run() == 0
    assert (bench.workspace / "yes.txt").exists()


def test_a_mode_is_chosen(bench: Bench) -> None:
    assert agent(bench, "say hi", mode="free").run() == 0


def test_a_mode_there_is_not_is_an_error(bench: Bench) -> None:
    assert agent(bench, "say hi", mode="wild").run() == 1
    assert "no mode 'wild'" in bench.result["reason"]


def test_a_login_is_done_when_the_profile_says_how(bench: Bench) -> None:
    assert agent(bench, "say hi", "--auth", auth="secret-handshake").run() == 0


def test_a_missing_login_is_said(bench: Bench) -> None:
    assert agent(bench, "say hi", "--auth").run() == 1
    assert "logged in" in bench.result["reason"]


# ---- sessions
def test_a_killed_program_loads_its_session_and_its_history_is_not_told_again(bench: Bench) -> None:
    process = agent(bench, "wait\nsay done").start()
    bench.door.wait_event("command.started")
    os.kill(bench.agent(), signal.SIGKILL)
    release(bench)
    assert bench.finish(process) == 0, bench.result
    assert len({found["session_id"] for found in bench.door.of("agent.session")}) == 1
    assert "has been started again" in told(bench)
    assert "said long ago" not in str(bench.door.of("agent.message"))


@pytest.mark.parametrize("flags", [(), ("--no-load",)])
def test_a_session_that_is_gone_is_begun_anew(bench: Bench, flags: tuple[str, ...]) -> None:
    agent(bench, "say hi", *flags)
    bench.job["agent"]["resume_session"] = "s-unknown"
    assert bench.run() == 0, bench.result
    assert bench.result["agent_session_id"] != "s-unknown"


def test_files_of_the_profile_are_in_the_home_before_the_program_starts(bench: Bench) -> None:
    agent(bench, "run cat ~/.config/x.json > seen.txt")
    bench.job["agent"]["files"] = {".config/x.json": '{"a": 1}'}
    assert bench.run() == 0
    assert git(bench.workspace, "show", "feat-wo-1:seen.txt") == '{"a": 1}'
