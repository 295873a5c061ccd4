"""A usage limit met by real sandboxes: one pause for everybody, nobody calls before the reset, everything is done in the end."""

import json
import threading
from datetime import datetime
from pathlib import Path

import pytest

from tests.gateway.conftest import start
from tests.gateway.upstream import Reply, Upstream, limited, whole
from tests.support.platform import Platform, until

CALL = """python3 - <<'END'
import json, os, urllib.request
asked = urllib.request.Request(
    os.environ["MODEL_BASE_URL"] + "/v1/messages",
    data=json.dumps({"model": "claude-opus-4-5", "max_tokens": 100}).encode(),
    headers={"x-api-key": os.environ["MODEL_API_KEY"], "content-type": "application/json"},
)
answer = urllib.request.urlopen(asked, timeout=120).read()
open("answer.txt", "wb").write(answer)
END"""
SCRIPT = [{"run": {"command": CALL}}]
RESET = 8.0
ASKED = {"model": "claude-opus-4-5", "max_tokens": 100}


ON_THE_WAY = 1.0
"""Seconds for what had left the gateway when the limit was told to arrive at the provider, on a busy machine."""


def pauses(house: Platform) -> list[float]:
    """When accounts were paused, by this machine's clock."""
    lines = [json.loads(line) for line in house.log.read_text().splitlines() if "account_paused" in line]
    return [datetime.fromisoformat(line["timestamp"]).timestamp() for line in lines]


@pytest.mark.alone
def test_thirty_orders_and_one_429_make_one_pause_and_thirty_results(
    house: Platform, upstream: Upstream, origin: Path
) -> None:
    before, first = len(pauses(house)), [limited(RESET)]
    upstream.seen.clear()
    upstream.answer = lambda seen: first.pop() if first else whole(seen.path)
    orders = [
        house.order(origin, SCRIPT, agent="caller-anthropic", workflow_type="build", max_attempts=1) for _ in range(30)
    ]
    ended = [house.finished(order) for order in orders]
    assert {(order["status"], order["error_message"]) for order in ended} == {("completed", None)}
    calls = sorted(seen.at for seen in upstream.seen)
    (paused,) = pauses(house)[before:]
    assert len(calls) == 31
    assert [at for at in calls if paused + ON_THE_WAY < at < calls[0] + RESET] == []


def test_an_order_that_cannot_wait_inside_goes_on_after_the_reset_in_a_new_sandbox(
    house: Platform, upstream: Upstream, origin: Path
) -> None:
    """Its place is free for others meanwhile, and the pause uses up none of its attempts."""
    first = [limited(RESET)]
    upstream.seen.clear()
    upstream.answer = lambda seen: first.pop() if first else whole(seen.path)
    order_id = house.order(origin, SCRIPT, agent="caller-patient", workflow_type="build", max_attempts=1)
    until(lambda: house.show(order_id)["reason"].startswith("paused: "), what="the order to wait")
    waiting = house.show(order_id)
    assert (waiting["status"], bool(waiting["paused_until"])) == ("pending", True)
    done = house.finished(order_id)
    assert (done["status"], done["attempts"]) == ("completed", 2)
    first_call, second_call = upstream.seen
    assert second_call.at - first_call.at >= RESET - 0.1


def test_a_call_cut_by_a_crash_of_the_server_is_counted_and_blocks_no_budget(
    house: Platform, upstream: Upstream, origin: Path
) -> None:
    """kill -9 in the middle of an answer: the books say afterwards that it was cut and what it likely cost."""
    never = threading.Event()
    upstream.answer = lambda seen: Reply(list(whole(seen.path).pieces), gate=lambda: never.wait(60))
    one = start(house, origin, "anthropic", budget_usd=5)
    with one.http.stream("POST", "/models/anthropic/v1/messages", json=ASKED) as answer:
        next(answer.iter_raw())
        house.kill()
    house.start()
    never.set()
    upstream.answer = lambda seen: whole(seen.path)
    (row,) = until(
        lambda: [r for r in house.get("/costs", by="order", order=one.order_id)["spending"] if not r["running"]],
        what="the call to be settled",
    )
    assert row["cost_usd"] > 0
    assert one.ask().status_code == 200
    one.http.close()
    house.post(f"/agent-work-orders/{one.order_id}/cancel")
