"""An agent is never asked for what it cannot do."""

from pathlib import Path
from typing import Any

import pytest

from shopfloor.agents import rules
from shopfloor.agents import service as agents
from shopfloor.kit.config import Settings
from tests.support.platform import Platform, folder, sample_repository, until

DEAF = """
[agents.deaf]
adapter = "acp"
program = ["PROGRAM"]
steer = "none"
"""


def capability(name: str, **said: Any) -> rules.Capability:
    found = agents.profile(Settings(data_dir=Path("/nonexistent"), agents={name: said} if said else {}), name)
    return agents.capability(found)


@pytest.mark.parametrize(
    ("name", "steer"),
    [("claude", "join"), ("codex", "join"), ("opencode", "join"), ("gemini", "replace"), ("mini", "join")],
)
def test_each_built_in_agent_says_how_it_is_steered(name: str, steer: str) -> None:
    assert capability(name).steer == steer


def test_a_program_nobody_described_is_told_things_after_its_turn() -> None:
    assert capability("mine", adapter="acp", program=["x"]).steer == "queue"


def test_a_model_can_be_chosen_where_the_profile_says_how() -> None:
    plain = {"adapter": "acp", "program": ["x"]}
    assert not capability("mine", **plain).models
    assert capability("mine", **plain, model_args=["-m", "${model}"]).models


def test_an_agent_that_cannot_be_steered_is_not() -> None:
    deaf = rules.capability("acp", steer=rules.Steer.NONE)
    with pytest.raises(rules.CannotBeSteered, match="'deaf'"):
        rules.check_message("deaf", deaf, interrupt=False)
    rules.check_message("deaf", deaf, interrupt=True)


def test_the_api_refuses_what_an_agent_cannot_do() -> None:
    with folder() as place:
        program = place / "program"
        program.write_bytes(Path("/bin/cat").read_bytes())
        program.chmod(0o755)
        (place / "shopfloor.toml").write_text(DEAF.replace("PROGRAM", str(program)))
        house = Platform(place)
        house.environment["OPENAI_API_KEY"] = "sk-one"
        try:
            house.start()
            origin = str(sample_repository(place))
            wish = {"repository_url": origin, "agent": "deaf", "workflow_type": "build"}
            refused = house.post("/agent-work-orders", {**wish, "model": "big"}, expect=422)
            assert "cannot" in refused["code"]
            made = house.post("/agent-work-orders", wish, expect=201)["agent_work_order"]["agent_work_order_id"]
            until(lambda: "agent.started" in [e["event"] for e in house.events(made)], what="the agent")
            refused = house.post(f"/agent-work-orders/{made}/prompt", {"prompt_text": "hi"}, expect=409)
            assert "Interrupt it" in refused["hint"]
            sandbox = house.show(made)["sandbox_identifier"]
            house.post(f"/sandboxes/{sandbox}/messages", {"content": "hi"}, expect=409)
            house.post(f"/sandboxes/{sandbox}/messages", {"content": "", "message_type": "interrupt"})
            house.post(f"/agent-work-orders/{made}/cancel")
            house.finished(made)
        finally:
            house.close()
