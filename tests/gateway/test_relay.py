"""The gateway as a sandbox sees it: real door, real server, a provider on loopback."""

import json
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.gateway.conftest import KEYS, Caller
from tests.gateway.upstream import INPUT, OUTPUT, Reply, Upstream, anthropic, limited, whole
from tests.support.platform import Platform, until

Makes = Callable[..., Caller]
CHAT = {"model": "gpt-5", "messages": [], "stream": True}
CALLS: list[tuple[str, str, dict[str, Any], str]] = [
    ("anthropic", "/v1/messages?beta=true", {"model": "claude-opus-4-5", "max_tokens": 9}, "x-api-key"),
    ("openai", "/v1/responses", {"model": "gpt-5", "input": "x", "stream": True}, "authorization"),
    ("openai", "/v1/chat/completions", CHAT, "authorization"),
    ("gemini", "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse", {"contents": []}, "x-goog-api-key"),
]


def costs(house: Platform, caller: Caller, by: str = "order") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = house.get("/costs", by=by, order=caller.order_id)["spending"]
    return found


def counted(house: Platform, caller: Caller, calls: int = 1) -> dict[str, Any]:
    """The order's sums, once so many calls have ended."""

    def look() -> dict[str, Any] | None:
        rows = costs(house, caller)
        return rows[0] if rows and rows[0]["calls"] >= calls and not rows[0]["running"] else None

    return until(look, what=f"{calls} calls to be counted")


@pytest.mark.parametrize(("account", "path", "body", "header"), CALLS, ids=[c[1] for c in CALLS])
def test_every_api_is_passed_on_with_the_real_key_and_counted(
    house: Platform, upstream: Upstream, caller: Makes, account: str, path: str, body: dict[str, Any], header: str
) -> None:
    one = caller(account)
    answer = one.http.post(f"/models/{account}{path}", json=body)
    assert answer.content == b"".join(whole(path).pieces)
    seen = upstream.seen[-1]
    assert KEYS[f"{account.upper()}_API_KEY"] in seen.headers[header]
    assert one.token not in json.dumps(seen.headers)
    row = counted(house, one)
    assert (row["input_tokens"], row["output_tokens"]) == (INPUT, OUTPUT)
    assert row["cost_usd"] > 0
    assert house.show(one.order_id)["cost_usd"] == pytest.approx(row["cost_usd"])


@pytest.mark.parametrize("way", ["authorization", "x-goog-api-key", "query"])
def test_the_token_may_stand_wherever_a_program_puts_its_key(
    upstream: Upstream, caller: Makes, house: Platform, way: str
) -> None:
    one = caller()
    headers = {"authorization": f"Bearer {one.token}"} if way == "authorization" else {way: one.token}
    with httpx.Client(
        transport=httpx.HTTPTransport(uds=str(house.data / "door.sock")), base_url="http://door"
    ) as client:
        answer = client.post(
            "/models/anthropic/v1/messages" + (f"?key={one.token}&beta=true" if way == "query" else ""),
            json={"model": "claude-opus-4-5", "max_tokens": 5},
            headers={} if way == "query" else headers,
        )
    assert answer.status_code == 200
    assert one.token not in upstream.seen[-1].path + json.dumps(upstream.seen[-1].headers)


def test_every_piece_is_passed_on_before_the_next_one_comes(upstream: Upstream, caller: Makes) -> None:
    go_on = threading.Semaphore(0)
    pieces = list(anthropic())
    upstream.answer = lambda _: Reply(pieces, gate=lambda: go_on.acquire(timeout=60))
    one, got = caller(), []
    with one.http.stream("POST", "/models/anthropic/v1/messages", json={"model": "m"}) as answer:
        for chunk in answer.iter_raw():
            got.append(chunk)
            go_on.release()
    assert got == pieces


def test_a_call_that_its_agent_leaves_is_ended_at_the_provider_and_counted_as_cut(
    house: Platform, upstream: Upstream, caller: Makes
) -> None:
    left = threading.Event()
    upstream.answer = lambda _: Reply([*list(anthropic())[:2] * 100_000], gate=lambda: left.wait(60))
    one = caller()
    with one.http.stream("POST", "/models/anthropic/v1/messages", json={"model": "claude-opus-4-5"}) as answer:
        next(answer.iter_raw())
    left.set()
    row = counted(house, one)
    assert upstream.hung_up.wait(60)
    assert row["input_tokens"] == INPUT
    assert row["cost_usd"] > 0


def test_an_answer_that_breaks_off_breaks_off_for_the_agent_too(upstream: Upstream, caller: Makes) -> None:
    upstream.answer = lambda _: Reply(list(anthropic())[:2], cut=True)
    with pytest.raises(httpx.RemoteProtocolError):
        caller().ask()


def test_an_error_of_the_provider_is_passed_on_as_it_is(upstream: Upstream, caller: Makes) -> None:
    body = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'
    upstream.answer = lambda _: Reply([body], 529, {"content-type": "application/json"})
    answer = caller().ask()
    assert (answer.status_code, answer.content) == (529, body)


def test_a_provider_that_is_not_reached_is_told_in_its_own_words(caller: Makes) -> None:
    answer = caller("gone").http.post("/models/gone/v1/messages", json={"model": "m"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (502, "api_error")
    assert "the account 'gone' was not reached" in answer.json()["error"]["message"]


WRONG: list[tuple[str, str, bytes, int, str]] = [
    ("POST", "/models/openai/v1/responses", b"{}", 403, "other_account"),
    ("POST", "/models/anthropic/v1/files", b"{}", 403, "no_such_call"),
    ("POST", "/models/anthropic/v1/../v1/files", b"{}", 403, "no_such_call"),
    ("POST", "/models/anthropic//evil.example/v1/messages", b"{}", 403, "no_such_call"),
    ("POST", "/models/anthropic/v1/messages", b"not json", 422, "malformed"),
    ("POST", "/models/anthropic/v1/messages", b"[]", 422, "malformed"),
    ("DELETE", "/models/anthropic/v1/messages", b"", 405, "method_not_allowed"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "code"), WRONG)
def test_what_is_no_call_of_its_models_does_not_pass(
    upstream: Upstream, caller: Makes, method: str, path: str, body: bytes, status: int, code: str
) -> None:
    one = caller()
    answer = one.http.request(method, path, content=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert upstream.seen == []


def test_nobody_without_a_living_sandboxes_token_gets_in(upstream: Upstream, caller: Makes, house: Platform) -> None:
    one = caller()
    house.post(f"/agent-work-orders/{one.order_id}/cancel")
    house.finished(one.order_id)
    bad = [{"x-api-key": "sfs_" + "x" * 43}, {"x-api-key": ""}, {"x-api-key": one.token}]
    assert [one.http.post("/models/anthropic/v1/messages", json={}, headers=h).status_code for h in bad] == [401] * 3
    assert upstream.seen == []


def test_an_order_whose_account_has_no_key_is_refused_with_what_to_do(house: Platform, origin: Any) -> None:
    body = {"repository_url": str(origin), "agent": "caller-keyless", "agent_options": {"script": []}}
    answer = house.client.post("/api/v1/agent-work-orders", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "key_missing")
    assert "NOBODY_SETS_THIS" in answer.json()["hint"]


def test_no_key_is_shown_to_people_either(house: Platform) -> None:
    shown = json.dumps([house.get("/accounts"), house.get("/agent-profiles")])
    assert not [key for key in KEYS.values() if key in shown]


def test_a_budget_stops_the_order_with_the_true_reason(house: Platform, upstream: Upstream, caller: Makes) -> None:
    one = caller(budget_usd=0.02)
    statuses = [one.ask().status_code for _ in range(4)]
    price = counted(house, one)["cost_usd"] / statuses.count(200)
    assert (statuses.count(200) - 1) * price < 0.02 <= statuses.count(200) * price
    refused = one.ask()
    assert refused.status_code == 402
    assert f"the budget of work order {one.order_id} is used up" in refused.json()["error"]["message"]
    assert any(e["event"] == "budget.reached" for e in house.events(one.order_id))


def test_calls_at_once_do_not_pass_the_budget_by_more_than_one(
    house: Platform, upstream: Upstream, caller: Makes
) -> None:
    one = caller(budget_usd=0.05)
    found: list[int] = []

    def ask() -> None:
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=str(house.data / "door.sock")), base_url="http://door", timeout=120
        ) as http:
            body = {"model": "claude-opus-4-5", "max_tokens": 1000}
            answer = http.post("/models/anthropic/v1/messages", json=body, headers={"x-api-key": one.token})
            found.append(answer.status_code)

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    row = counted(house, one)
    price = row["cost_usd"] / found.count(200)
    assert sorted(set(found)) == [200, 402]
    assert row["cost_usd"] <= 0.05 + price + 1e-9


def test_a_budget_and_a_model_without_a_price_do_not_go_together(
    upstream: Upstream, caller: Makes, house: Platform
) -> None:
    one = caller(budget_usd=5)
    answer = one.ask(model="nobody-knows-it")
    assert answer.status_code == 402
    assert "the price of the model 'nobody-knows-it' is unknown" in answer.json()["error"]["message"]
    assert upstream.seen == []


def test_the_settings_may_say_what_a_model_costs(house: Platform, upstream: Upstream, caller: Makes) -> None:
    upstream.answer = lambda _: Reply(list(anthropic("house-model")))
    one = caller("proud", budget_usd=5)
    one.http.post("/models/proud/v1/messages", json={"model": "house-model", "max_tokens": 9})
    assert counted(house, one)["cost_usd"] == pytest.approx((INPUT * 10 + OUTPUT * 20) / 1e6)


def test_a_usage_limit_holds_the_call_until_its_reset(house: Platform, upstream: Upstream, caller: Makes) -> None:
    replies = [limited(2), *[whole("/v1/messages")] * 9]
    upstream.answer = lambda _: replies.pop(0)
    one = caller()
    assert one.ask().status_code == 200
    first, second = upstream.seen
    assert second.at - first.at >= 2


def test_a_paused_account_is_shown_and_can_be_resumed(house: Platform, upstream: Upstream, caller: Makes) -> None:
    replies = [limited(600), *[whole("/v1/messages")] * 9]
    upstream.answer = lambda _: replies.pop(0)
    one, answers = caller(), []
    asking = threading.Thread(target=lambda: answers.append(one.ask()))
    asking.start()
    until(lambda: house.show(one.order_id)["paused_until"], what="the pause to be shown")
    explained = house.get(f"/agent-work-orders/{one.order_id}/explain")["what_would_change_it"][0]
    paused = next(a for a in house.get("/accounts")["accounts"] if a["account"] == "anthropic")
    assert "anthropic is paused" in explained
    assert "You have used it all." in paused["paused_reason"]
    house.post("/accounts/anthropic/resume")
    asking.join()
    assert answers[0].status_code == 200
    assert house.show(one.order_id)["paused_until"] is None


def test_a_limit_is_passed_on_where_pausing_is_switched_off(upstream: Upstream, caller: Makes) -> None:
    upstream.answer = lambda _: limited(600)
    answer = caller("proud").http.post("/models/proud/v1/messages", json={"model": "m"})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "600")


def test_a_call_that_waited_long_enough_is_told_not_to_try_again(upstream: Upstream, caller: Makes) -> None:
    upstream.answer = lambda _: limited(600)
    answer = caller("patient").http.post("/models/patient/v1/messages", json={"model": "m"})
    assert (answer.status_code, answer.headers["x-should-retry"]) == (429, "false")
    assert len(upstream.seen) == 1


def test_the_port_of_people_carries_no_calls_of_models(house: Platform, upstream: Upstream, caller: Makes) -> None:
    one = caller()
    answer = house.client.post("/models/anthropic/v1/messages", json={}, headers={"x-api-key": one.token})
    assert (answer.status_code, answer.json()["code"]) == (403, "sandboxes_only")
    assert upstream.seen == []
