"""The real Claude program inside the `local` sandbox, against a scripted model on the host's loopback."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shopfloor.agents import service as agents
from shopfloor.kit.config import Settings
from tests.support.model_server import ModelServer
from tests.support.platform import Platform, folder, git, sample_repository, until

pytestmark = pytest.mark.claude
HOLD = "until [ -e /home/agent/go ]; do python3 -c 'import time; time.sleep(0.05)'; done; echo held > held.txt"
"""A command that runs until the test creates the file `go` in the agent's home."""
PROFILE = """
[agents.claude]
env = {{ CLAUDE_CODE_MAX_RETRIES = "1" }}

[accounts.anthropic]
base_url = "{url}"
"""
KEY = "sk-ant-the-real-key-5f2c"


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServer]:
    with ModelServer([]) as server:
        yield server


@pytest.fixture(scope="module")
def house(model: ModelServer) -> Iterator[Platform]:
    with folder() as place:
        try:
            agents.program(agents.profile(Settings(data_dir=place), "claude"))
        except agents.ProgramMissing as missing:
            pytest.skip(missing.message)
        (place / "shopfloor.toml").write_text(PROFILE.format(url=model.url))
        running = Platform(place)
        running.environment["ANTHROPIC_API_KEY"] = KEY
        try:
            running.start()
            yield running
        finally:
            running.close()


@pytest.fixture
def origin(model: ModelServer) -> Iterator[Path]:
    model.requests.clear()
    with folder() as place:
        yield sample_repository(place)


def ordered(house: Platform, origin: Path, workflow: str = "build") -> str:
    body = {"repository_url": str(origin), "agent": "claude", "workflow_type": workflow, "initial_prompt": "Please."}
    created = house.post("/agent-work-orders", body, expect=201)
    return str(created["agent_work_order"]["agent_work_order_id"])


def tool_is_running(house: Platform, order_id: str) -> None:
    until(lambda: any(e["event"] == "command.started" for e in house.events(order_id)), what="the tool to run")


def release(house: Platform, order_id: str) -> None:
    home = house.data / "homes" / order_id
    (home / "go").touch()


def test_a_plan_build_test_order_edits_the_repository(house: Platform, model: ModelServer, origin: Path) -> None:
    model.script = [
        {"write": ["/workspace/specs/plan.md", "# Plan\n"]},
        {"text": "Planned"},
        {"write": ["/workspace/greet.py", "print('hi')\n"]},
        {"text": "Built"},
        {"bash": "python3 greet.py > result.txt"},
        {"text": "Tested"},
    ]
    order = house.finished(ordered(house, origin, "plan_build_test"))
    assert order["status"] == "completed", order["reason"]
    branch = order["git_branch_name"]
    assert git("show", f"{branch}:result.txt", cwd=origin) == "hi"
    progress = house.get(f"/agent-work-orders/{order['agent_work_order_id']}/git-progress")
    assert [phase["phase"] for phase in progress["phase_history"]] == ["planning", "implementing", "testing"]
    assert order["cost_usd"] > 0


def test_a_prompt_during_a_tool_call_is_in_the_next_model_request(
    house: Platform, model: ModelServer, origin: Path
) -> None:
    model.script = [{"bash": HOLD}, {"text": "Done"}]
    order_id = ordered(house, origin)
    tool_is_running(house, order_id)
    said = house.post(f"/agent-work-orders/{order_id}/prompt", {"prompt_text": "Mind the gap, please."})
    sandbox = house.show(order_id)["sandbox_identifier"]
    message = f"/sandboxes/{sandbox}/messages/{said['message_id']}"
    until(lambda: house.get(message)["state"] != "accepted", what="the message to be delivered")
    release(house, order_id)
    order = house.finished(order_id)
    assert order["status"] == "completed", order["reason"]
    assert "Mind the gap, please." in json.dumps(model.requests[-1]["body"])
    assert house.get(message)["state"] == "done"


def test_an_interrupted_order_is_cancelled_and_its_retry_continues_the_conversation(
    house: Platform, model: ModelServer, origin: Path
) -> None:
    """The first sandbox is gone by then: the conversation lived on the host's side."""
    model.script = [{"text": "A word to remember: heliotrope.", "bash": HOLD}, {"text": "Done"}]
    order_id = ordered(house, origin)
    tool_is_running(house, order_id)
    sandbox = house.show(order_id)["sandbox_identifier"]
    house.post(f"/sandboxes/{sandbox}/messages", {"content": "", "message_type": "interrupt"})
    order = house.finished(order_id)
    assert (order["status"], "interrupted" in order["reason"]) == ("cancelled", True), order["reason"]
    assert house.get(f"/sandboxes/{sandbox}")["state"] == "TERMINATED"
    model.script = [{"text": "never asked"}, {"write": ["/workspace/more.txt", "more\n"]}, {"text": "Done"}]
    model.requests.clear()
    house.post(f"/agent-work-orders/{order_id}/retry", {"prompt": "Go on."})
    order = house.finished(order_id)
    assert order["status"] == "completed", order["reason"]
    assert "heliotrope" in json.dumps(model.requests[0]["body"])


@pytest.mark.parametrize("status", [401, 429, 529])
def test_a_model_that_refuses_fails_the_order_with_its_status(
    house: Platform, model: ModelServer, origin: Path, status: int
) -> None:
    model.script = [{"error": status, "times": 50}]
    order = house.finished(ordered(house, origin))
    assert order["status"] == "failed"
    assert str(status) in order["error_message"]


def test_the_servers_environment_is_not_in_the_sandbox(house: Platform, model: ModelServer, origin: Path) -> None:
    """Safe by default: only what the profile names gets in."""
    model.script = [
        {"bash": "env > env.txt; cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n' >> env.txt"},
        {"text": "Done"},
    ]
    order = house.finished(ordered(house, origin))
    assert order["status"] == "completed", order["reason"]
    seen = git("show", f"{order['git_branch_name']}:env.txt", cwd=origin)
    assert "ANTHROPIC_API_KEY=sfs_" in seen
    assert KEY not in seen
    ours = {name for name in os.environ if name.startswith(("PYTEST", "SHOPFLOOR", "PIP_", "AWS"))}
    assert not [name for name in ours | {"SHOPFLOOR_DATA_DIR"} if f"{name}=" in seen]


def test_a_host_that_is_not_allowed_cannot_be_reached(house: Platform, model: ModelServer, origin: Path) -> None:
    probe = "curl -sS -m 5 https://example.com > out.txt 2>&1; echo $? > code.txt"
    model.script = [{"bash": probe}, {"text": "Done"}]
    order = house.finished(ordered(house, origin))
    code: Any = git("show", f"{order['git_branch_name']}:code.txt", cwd=origin)
    assert code not in {"", "0"}
