"""How each agent is pointed at a model server."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shopfloor.agents import service as agents
from shopfloor.agents.wiring import unwired
from shopfloor.kit.config import Settings

URL = "http://127.0.0.1:8787/models/x"
HOSTILE = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)


def profile(name: str, **said: Any) -> agents.Profile:
    return agents.profile(Settings(data_dir=Path("/nonexistent"), agents={name: said} if said else {}), name)


def wired(name: str, **said: Any) -> agents.Wiring:
    return agents.wiring(profile(name, **said), base_url=URL, key="k-1", home="/home/agent")


def test_claude_takes_the_bare_address() -> None:
    assert dict(wired("claude").env) == {"ANTHROPIC_BASE_URL": URL, "ANTHROPIC_API_KEY": "k-1"}


def test_codex_is_told_in_its_config_and_calls_nobody_else() -> None:
    made = wired("codex")
    config = tomllib.loads(made.files[".codex/config.toml"])
    provider = config["model_providers"][config["model_provider"]]
    assert (provider["base_url"], provider["wire_api"]) == (f"{URL}/v1", "responses")
    assert made.env[provider["env_key"]] == "k-1"
    assert (config["analytics"]["enabled"], config["check_for_update_on_startup"]) == (False, False)


def test_gemini_is_told_by_its_environment() -> None:
    made = wired("gemini")
    assert made.env["GOOGLE_GEMINI_BASE_URL"] == URL
    assert json.loads(made.files[".gemini/settings.json"])["privacy"]["usageStatisticsEnabled"] is False


def test_opencode_is_told_in_a_config_of_its_own() -> None:
    made = wired("opencode", model="m")
    config = json.loads(made.files[".config/shopfloor/opencode.json"])
    assert made.env["OPENCODE_CONFIG"] == "/home/agent/.config/shopfloor/opencode.json"
    options = config["provider"]["shopfloor"]["options"]
    assert (options["baseURL"], options["apiKey"], config["model"]) == (f"{URL}/v1", "k-1", "shopfloor/m")


@pytest.mark.parametrize(("api", "sdk"), [("openai", "@ai-sdk/openai-compatible"), ("anthropic", "@ai-sdk/anthropic")])
def test_opencode_speaks_the_profiles_api(api: str, sdk: str) -> None:
    config = json.loads(wired("opencode", api=api).files[".config/shopfloor/opencode.json"])
    assert config["provider"]["shopfloor"]["npm"] == sdk


@pytest.mark.parametrize(("lists", "said"), [({}, "allow"), ({"deny_tools": ["bash"]}, "ask")])
def test_opencode_asks_only_when_tools_are_limited(lists: dict[str, Any], said: str) -> None:
    config = json.loads(wired("opencode", **lists).files[".config/shopfloor/opencode.json"])
    assert config["permission"]["bash"] == said


@pytest.mark.parametrize("name", ["openhands", "mini"])
def test_the_runners_are_told_by_their_environment(name: str) -> None:
    made = wired(name, api="anthropic")
    assert (made.env["LLM_API"], made.env["LLM_BASE_URL"], made.env["LLM_API_KEY"]) == ("anthropic", URL, "k-1")


@given(model=HOSTILE, key=HOSTILE)
@pytest.mark.parametrize("name", ["codex", "gemini", "opencode"])
def test_whatever_a_model_or_key_is_called_the_files_stay_well_formed(name: str, model: str, key: str) -> None:
    made = agents.wiring(profile(name), base_url=URL, key=key, home="/h", model=model)
    for path, text in made.files.items():
        _ = tomllib.loads(text) if path.endswith(".toml") else json.loads(text)


def test_a_direct_agent_keeps_its_own_login() -> None:
    made = unwired(profile("codex", direct=True), key="k", home="/h")
    assert dict(made.env) == {}
    assert "model_providers" not in tomllib.loads(made.files[".codex/config.toml"])


@pytest.mark.parametrize(
    ("name", "account"), [("claude", "anthropic"), ("codex", "openai"), ("gemini", "gemini"), ("script", None)]
)
def test_each_agent_has_an_account(name: str, account: str | None) -> None:
    assert agents.paid_by(profile(name)) == account


def test_the_account_follows_the_api_unless_it_is_named() -> None:
    assert agents.paid_by(profile("opencode", api="anthropic")) == "anthropic"
    assert agents.paid_by(profile("opencode", api="anthropic", account="house")) == "house"


def test_an_agent_that_talks_to_its_provider_itself_has_none() -> None:
    assert agents.paid_by(profile("codex", direct=True)) is None


def test_a_few_lines_add_an_agent() -> None:
    mine = profile(
        "mine",
        adapter="acp",
        program=["mine", "--acp"],
        api="anthropic",
        steer="join",
        wired_env={"MINE_URL": "${base_url}/v1", "MINE_KEY": "${key}"},
        files={".mine.json": '{"model": "${model}", "deny": ${deny_tools}}'},
        deny_tools=["shell"],
    )
    made = agents.wiring(mine, base_url=URL, key="k", home="/h", model="m")
    assert dict(made.env) == {"MINE_URL": f"{URL}/v1", "MINE_KEY": "k"}
    assert json.loads(made.files[".mine.json"]) == {"model": "m", "deny": ["shell"]}
    assert (agents.capability(mine).steer, agents.capability(mine).models) == ("join", True)


@pytest.mark.parametrize(
    ("said", "key"),
    [
        ({"adapter": "acp"}, "agents.mine"),
        ({"like": "nobody"}, "agents.mine.like"),
        ({"adapter": "acp", "program": ["x"], "files": {"../x": ""}}, "agents.mine.files"),
        ({"adapter": "acp", "program": ["x"], "mounts": ["/"]}, "agents.mine.mounts"),
        ({"adapter": "acp", "program": ["x"], "mounts": ["/home"]}, "agents.mine.mounts"),
        ({"adapter": "acp", "program": ["x"], "mounts": ["/opt/../workspace/x"]}, "agents.mine.mounts"),
        ({"adapter": "acp", "program": ["x"], "steer": "loudly"}, "agents.mine.steer"),
    ],
)
def test_a_mistake_names_its_key(said: dict[str, Any], key: str) -> None:
    with pytest.raises(agents.BadProfile) as raised:
        profile("mine", **said)
    assert raised.value.facts["key"].startswith(key)
