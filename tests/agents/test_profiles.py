"""Profiles, options and what a job and a sandbox get of them."""

from pathlib import Path
from typing import Any

import pytest

from shopfloor.agents import rules
from shopfloor.agents import service as agents
from shopfloor.agents.profiles import BUILT_IN
from shopfloor.kit.config import Settings

NATIVE = "/bin/sleep"


def settings(tmp_path: Path, **profiles: dict[str, Any]) -> Settings:
    return Settings(data_dir=tmp_path, agents=profiles)


def test_there_are_profiles_without_any_setting(tmp_path: Path) -> None:
    assert set(agents.profiles(settings(tmp_path))) == set(BUILT_IN)


def test_settings_change_a_built_in_profile(tmp_path: Path) -> None:
    found = agents.profile(settings(tmp_path, claude={"model": "big", "env": {"X": "1"}}), "claude")
    assert (found.model, found.env["X"], found.env["IS_SANDBOX"]) == ("big", "1", "1")


def test_a_new_profile_builds_on_its_adapters(tmp_path: Path) -> None:
    found = agents.profile(settings(tmp_path, careful={"adapter": "claude", "deny_tools": ["Bash"]}), "careful")
    assert (found.env["IS_SANDBOX"], agents.paid_by(found)) == ("1", "anthropic")


def test_an_unknown_profile_is_named_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(agents.UnknownProfile, match="'gpt'") as raised:
        agents.profile(settings(tmp_path), "gpt")
    assert "claude, codex" in raised.value.hint


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"modell": "x"}, "agents.claude.modell"),
        ({"turn_timeout_seconds": -1}, "agents.claude.turn_timeout_seconds"),
        ({"allow": ["nowhere"]}, "agents.claude.allow"),
        ({"env": "x"}, "agents.claude.env"),
        ({"adapter": "gpt"}, "agents.claude.adapter"),
        ({"options": {"colour": 1}}, "agents.claude"),
    ],
)
def test_a_mistake_names_its_key(tmp_path: Path, given: dict[str, Any], key: str) -> None:
    with pytest.raises(agents.BadProfile) as raised:
        agents.profile(settings(tmp_path, claude=given), "claude")
    assert raised.value.facts["key"] == key


def environment(tmp_path: Path, **claude: Any) -> dict[str, str]:
    """What is in the sandbox of an agent that is pointed at the gateway, if it may."""
    found = agents.profile(settings(tmp_path, claude=claude), "claude")
    gateway = "http://gate/models/x" if agents.paid_by(found) else None
    return agents.agent_environment(found, agents.wired(found, gateway=gateway, token="sfs_token", home="/home/agent"))


def test_no_key_is_copied_even_if_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "key")
    monkeypatch.setenv("CLAUDE_CODE_OAUTH_TOKEN", "login")
    found = environment(tmp_path, env_allow=["ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN"])
    assert found["ANTHROPIC_API_KEY"] == "sfs_token"
    assert not {"key", "login"} & set(found.values())


def test_only_named_variables_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAMED", "named")
    monkeypatch.setenv("OTHER_SECRET", "secret")
    found = environment(tmp_path, env_allow=["NAMED"])
    assert found["NAMED"] == "named"
    assert "OTHER_SECRET" not in found


def test_an_agent_with_a_login_of_its_own_gets_it_and_the_way_to_its_provider(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLAUDE_CODE_OAUTH_TOKEN", "login")
    found = agents.profile(settings(tmp_path, claude={"direct": True}), "claude")
    assert (agents.paid_by(found), found.allow) == (None, ["api.anthropic.com:443"])
    assert environment(tmp_path, direct=True)["CLAUDE_CODE_OAUTH_TOKEN"] == "login"


def test_an_agent_that_asks_through_the_gateway_reaches_no_provider(tmp_path: Path) -> None:
    assert [agents.profile(settings(tmp_path), name).allow for name in BUILT_IN] == [[]] * len(BUILT_IN)


def test_the_program_is_mounted_where_the_job_expects_it(tmp_path: Path) -> None:
    found = agents.profile(settings(tmp_path, claude={"program": [NATIVE, "--flag"]}), "claude")
    assert agents.mounts(found) == {"/opt/agent/claude": Path(NATIVE).resolve()}
    assert agents.job_agent(found)["program"] == ["/opt/agent/claude", "--flag"]


def test_a_missing_program_says_what_to_do(tmp_path: Path) -> None:
    found = agents.profile(settings(tmp_path, claude={"program": ["/nonexistent/claude"]}), "claude")
    with pytest.raises(agents.ProgramMissing) as raised:
        agents.mounts(found)
    assert "agents.claude.program" in raised.value.hint


def test_a_program_that_is_a_script_is_refused(tmp_path: Path) -> None:
    shim = tmp_path / "claude"
    shim.write_text("#!/bin/sh\n")
    shim.chmod(0o755)
    found = agents.profile(settings(tmp_path, claude={"program": [str(shim)]}), "claude")
    with pytest.raises(agents.ProgramMissing, match="script"):
        agents.mounts(found)


def test_a_job_holds_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "the-secret-key")
    assert "the-secret-key" not in str(agents.job_agent(agents.profile(settings(tmp_path), "claude")))


def test_the_orders_model_wins(tmp_path: Path) -> None:
    found = agents.profile(settings(tmp_path, claude={"model": "small"}), "claude")
    assert agents.job_agent(found, model="big")["model"] == "big"


def test_the_profiles_limits_reach_the_job(tmp_path: Path) -> None:
    given = {"max_turns": 5, "deny_tools": ["Bash"], "permission_mode": "default"}
    options = agents.job_agent(agents.profile(settings(tmp_path, claude=given), "claude"))["options"]
    assert (options["max_turns"], options["deny_tools"], options["permission_mode"]) == (5, ["Bash"], "default")


def test_an_agent_that_cannot_resume_is_not_asked_to(tmp_path: Path) -> None:
    assert agents.job_agent(agents.profile(settings(tmp_path), "script"), resume_session="s")["resume_session"] is None


def test_a_script_may_be_yaml(tmp_path: Path) -> None:
    found = agents.profile(settings(tmp_path), "script")
    assert agents.checked_options(found, {"script": "build:\n- say: hi\n"}) == {"script": {"build": [{"say": "hi"}]}}


def test_a_profile_may_name_a_script_file(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("- say: hi\n")
    found = agents.profile(settings(tmp_path, demo={"adapter": "script", "script_file": tmp_path / "s.yaml"}), "demo")
    assert agents.job_agent(found)["options"]["script"] == [{"say": "hi"}]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("text: [", "script"),
        ([{"shout": "hi"}], "script, action 1"),
        ({"build": [{"say": "a", "think": "b"}]}, "script.build, action 1"),
        ({"build": {"say": "a"}}, "script.build"),
        ([{"write": {"path": "../x", "content": ""}}], "inside the workspace"),
        ([{"write": "x"}], "needs a path"),
        (["write"], "needs a path"),
        (7, "must be"),
    ],
)
def test_a_bad_script_names_the_action(tmp_path: Path, script: Any, said: str) -> None:
    found = agents.profile(settings(tmp_path), "script")
    with pytest.raises((rules.BadScript, rules.BadOption), match=said):
        agents.checked_options(found, {"script": script})


@pytest.mark.parametrize("options", [{"permission_mode": "plan"}, {"max_turns": "many"}, {"max_turns": True}])
def test_an_order_may_not_say_everything(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(rules.BadOption):
        agents.checked_options(agents.profile(settings(tmp_path), "claude"), options)


async def test_doctor_runs_the_program(tmp_path: Path) -> None:
    found = agents.profile(settings(tmp_path, claude={"program": [NATIVE]}), "claude")
    program = (await agents.doctor(found))[0]
    assert program.ok
    assert "sleep" in program.detail


async def test_doctor_never_tells_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "the-secret-key")
    found = agents.profile(settings(tmp_path, claude={"program": [NATIVE], "direct": True}), "claude")
    key = (await agents.doctor(found))[1]
    assert (key.ok, key.detail) == (True, "ANTHROPIC_API_KEY is set")


async def test_doctor_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in agents.CLAUDE_KEYS:
        monkeypatch.delenv(name, raising=False)
    found = agents.profile(settings(tmp_path, claude={"program": [NATIVE], "direct": True}), "claude")
    key = (await agents.doctor(found))[1]
    assert not key.ok
    assert "ANTHROPIC_API_KEY" in key.fix
