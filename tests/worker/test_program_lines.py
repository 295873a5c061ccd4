"""Lines of Codex and of ACP programs of shapes we do not know: a newer program must not fail an order."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shopfloor_worker.adapters import acp, codex
from shopfloor_worker.port import Event, Fact, TurnEnd

JOB = {
    "agent": {"adapter": "x", "program": ["x"], "options": {"steer": "join", "deny_tools": ["shell"]}},
    "workspace": "/w",
    "home": "/nonexistent",
}
LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
SHAPES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
CODEX = {
    "thread": {"id": "t"},
    "threadId": "t",
    "turn": {"id": "u", "status": "completed"},
    "item": {"id": "i", "type": "commandExecution", "command": "ls", "status": "completed", "exitCode": 0},
    "tokenUsage": {"last": {"inputTokens": 1, "outputTokens": 1}, "total": {"totalTokens": 2}},
    "error": {"message": "no", "codexErrorInfo": "unauthorized"},
    "willRetry": True,
}
CODEX_METHODS = [
    *("turn/started", "turn/completed", "item/started", "item/completed", "thread/tokenUsage/updated", "error"),
    *("item/commandExecution/requestApproval", "something/new"),
]
UPDATES = ["agent_message_chunk", "agent_thought_chunk", "tool_call", "tool_call_update", "usage_update", "new_update"]
UPDATE = {
    "toolCallId": "c",
    "title": "edit",
    "kind": "edit",
    "status": "completed",
    "content": [{"type": "diff", "path": "/w/a", "oldText": None, "newText": "x"}],
    "cost": {"amount": 0.5, "currency": "USD"},
}


def running_codex() -> codex.Agent:
    agent = codex.Agent(JOB)
    agent.command()
    agent.opening()
    agent.say("hi", "m-1", "prompt", "build")
    for said in ({"id": 2, "result": {"thread": {"id": "t"}}}, {"id": 3, "result": {"turn": {"id": "u"}}}):
        agent.read(json.dumps(said).encode())
    return agent


def running_acp() -> acp.Agent:
    agent = acp.Agent(JOB)
    agent.command()
    agent.opening()
    agent.say("hi", "m-1", "prompt", "build")
    for number, result in ((1, {"agentCapabilities": {}}), (2, {"sessionId": "s"})):
        agent.read(json.dumps({"id": number, "result": result}).encode())
    return agent


@st.composite
def broken(draw: st.DrawFn, known: dict[str, Any]) -> dict[str, Any]:
    """A message's parameters with some parts missing or of another shape."""
    kept = {name: value for name, value in known.items() if draw(st.booleans())}
    odd = {name: draw(SHAPES) for name in known if draw(st.integers(0, 5)) == 0}
    return {**kept, **odd}


@given(method=st.sampled_from(CODEX_METHODS), params=broken(CODEX), asks=st.booleans())
def test_odd_words_of_codex_are_no_failure(method: str, params: dict[str, Any], asks: bool) -> None:
    line = json.dumps({"method": method, "params": params, **({"id": 7} if asks else {})}).encode()
    assert all(isinstance(fact, get_args(Fact)) for fact in running_codex().read(line))


@given(kind=st.sampled_from(UPDATES), params=broken(UPDATE))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_odd_words_of_an_acp_program_are_no_failure(kind: str, params: dict[str, Any]) -> None:
    update = {"sessionId": "s", "update": {**params, "sessionUpdate": kind}}
    line = json.dumps({"method": "session/update", "params": update}).encode()
    assert all(isinstance(fact, get_args(Fact)) for fact in running_acp().read(line))


@pytest.mark.parametrize("running", [running_codex, running_acp])
@pytest.mark.parametrize(
    "line", [b"no json", b"[]", b"{}", b'"x"', b"[" * 5000, b'{"id":3}', b'{"method":7}', b"\xff\xfe"]
)
def test_a_line_that_is_no_message_has_no_facts(running: Callable[[], Any], line: bytes) -> None:
    assert [fact for fact in running().read(line) if isinstance(fact, Event)] == []


@pytest.mark.parametrize(
    ("info", "message", "reason"),
    [
        ("unauthorized", "go away", "the model answered 401 (authentication_error): go away"),
        ({"httpConnectionFailed": {"httpStatusCode": 529}}, "busy", "the model answered 529 (overloaded_error): busy"),
        (
            "other",
            '{"error": {"type": "invalid_request_error", "message": "odd"}}',
            "the model answered 400 (invalid_request_error): odd",
        ),
        ("other", "something else", "something else"),
        ({"responseStreamDisconnected": {"httpStatusCode": None}}, "cut off", "cut off"),
    ],
)
def test_codex_says_why_a_turn_failed(info: Any, message: str, reason: str) -> None:
    turn = {"id": "u", "status": "failed", "error": {"message": message, "codexErrorInfo": info}}
    said = {"method": "turn/completed", "params": {"threadId": "t", "turn": turn}}
    [end] = [fact for fact in running_codex().read(json.dumps(said).encode()) if isinstance(fact, TurnEnd)]
    assert (end.reason, end.detail) == ("error", reason)


def test_codex_steers_the_running_turn_and_begins_one_when_it_has_ended() -> None:
    agent = running_codex()
    steer = json.loads(agent.say("left", "m-2", "user_message", "build"))
    assert (steer["method"], steer["params"]["expectedTurnId"]) == ("turn/steer", "u")
    agent.read(b'{"method":"turn/completed","params":{"threadId":"t","turn":{"id":"u","status":"completed"}}}')
    assert json.loads(agent.say("right", "m-3", "user_message", "build"))["method"] == "turn/start"


def test_codex_never_steers_what_another_thread_does() -> None:
    agent = running_codex()
    assert (
        agent.read(b'{"method":"turn/completed","params":{"threadId":"other","turn":{"id":"v","status":"failed"}}}')
        == []
    )


def test_a_thread_that_is_gone_is_begun_anew(tmp_path: Path) -> None:
    sessions = tmp_path / ".codex/sessions/2026"
    sessions.mkdir(parents=True)
    (sessions / "rollout-x-old.jsonl").touch()
    agent = codex.Agent({**JOB, "home": str(tmp_path), "agent": {**JOB["agent"], "resume_session": "old"}})  # type: ignore[dict-item]
    agent.command()
    assert b"thread/resume" in agent.opening()
    [end] = agent.read(b'{"id":2,"error":{"code":-32600,"message":"no rollout found for thread id old"}}')
    assert isinstance(end, TurnEnd)
    assert end.session_lost
