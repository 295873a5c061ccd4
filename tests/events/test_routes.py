"""The events' HTTP door: posting, history, trajectory."""

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tests.events.server import opened

URL = "/api/v1/sandboxes/sb-1/events"


def event(seq: int | None = None, kind: str = "agent.message", **data: Any) -> dict[str, Any]:
    return {"event_type": kind, "event_data": data, "seq": seq}


async def history(client: httpx.AsyncClient, url: str = URL, **query: Any) -> dict[str, Any]:
    answer = await client.get(url, params=query)
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    return page


async def test_a_single_event_is_stored_and_found_again(client: httpx.AsyncClient) -> None:
    body = {"event_type": "agent.tool_use", "event_data": {"tool": "ls"}, "source": "agent"}
    answer = await client.post(URL, json=body)
    assert answer.json() == {"accepted": 1, "duplicates": 0, "last_seq": None}
    [stored] = (await history(client))["events"]
    assert (stored["event_type"], stored["payload"], stored["entity_id"]) == ("agent.tool_use", {"tool": "ls"}, "sb-1")


async def test_a_missing_event_type_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post(URL, json={"event_data": {}})
    assert (answer.status_code, answer.json()["code"]) == (422, "event_malformed")


async def test_a_repeated_batch_is_stored_once(client: httpx.AsyncClient) -> None:
    batch = {"events": [event(n) for n in (1, 2, 3)]}
    await client.post(URL, json=batch)
    answer = await client.post(URL, json=batch)
    assert answer.json() == {"accepted": 0, "duplicates": 3, "last_seq": 3}


async def test_overlapping_batches_out_of_order_are_stored_once_each(client: httpx.AsyncClient) -> None:
    for numbers in ((4, 5, 6), (1, 2, 3, 4), (6, 6, 7)):
        await client.post(URL, json={"events": [event(n) for n in numbers]})
    assert [e["seq"] for e in (await history(client))["events"]] == [4, 5, 6, 1, 2, 3, 7]


async def test_racing_posts_of_the_same_events_count_each_new_event_once(client: httpx.AsyncClient) -> None:
    batches = [{"events": [event(n) for n in range(start, start + 20)]} for start in (1, 5, 10, 1, 5, 10)]
    answers = await asyncio.gather(*(client.post(URL, json=batch) for batch in batches))
    assert sum(a.json()["accepted"] for a in answers) == 29


async def test_the_same_seq_of_two_sandboxes_is_two_events(client: httpx.AsyncClient) -> None:
    for sandbox in ("sb-1", "sb-2"):
        answer = await client.post(f"/api/v1/sandboxes/{sandbox}/events", json=event(1))
        assert answer.json()["accepted"] == 1


async def test_the_singular_path_is_the_same_door(client: httpx.AsyncClient) -> None:
    await client.post("/api/v1/sandbox/sb-1/events", json=event(1))
    assert len((await history(client))["events"]) == 1


@pytest.mark.parametrize("name", ["heartbeat", "agent.heartbeat", "sandbox.heartbeat"])
async def test_every_name_of_a_heartbeat_becomes_one(client: httpx.AsyncClient, name: str) -> None:
    await client.post(URL, json=event(kind=name))
    assert (await history(client))["events"][0]["event_type"] == "sandbox.heartbeat"


BAD_BODIES = [
    b"",
    b"[]",
    b"{",
    b"null",
    b'{"event_type": 7}',
    b'{"event_type": "a b"}',
    b'{"event_type": "a\\n"}',
    b'{"event_type": "a", "event_data": []}',
    b'{"event_type": "a", "event_data": {"x": NaN}}',
    b'{"event_type": "a", "event_data": {"x": "\\ud800"}}',
    b'{"event_type": "a", "event_data": {"x": "\xff"}}',
    b'{"event_type": "a", "source": "\\u0000"}',
    b'{"event_type": "a", "seq": 0}',
    b'{"event_type": "a", "seq": 9223372036854775808}',
    b'{"event_type": "a", "occurred_at": "0001-01-01T00:00:00+14:00"}',
    b'{"event_type": "a", "event_data": ' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}",
]


@pytest.mark.parametrize("body", BAD_BODIES)
async def test_a_malformed_body_is_refused(client: httpx.AsyncClient, body: bytes) -> None:
    assert (await client.post(URL, content=body)).status_code == 422


async def test_one_bad_event_refuses_the_whole_batch(client: httpx.AsyncClient) -> None:
    await client.post(URL, json={"events": [event(1), event(2, "no spaces please")]})
    assert (await client.get(URL)).status_code == 404


async def test_event_data_beyond_the_limit_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post(URL, json=event(1, text="x" * 102_400))
    assert (answer.status_code, answer.json()["code"]) == (413, "event_too_large")


async def test_a_batch_beyond_the_limit_is_refused(client: httpx.AsyncClient) -> None:
    assert (await client.post(URL, json={"events": [event(n) for n in range(1, 502)]})).status_code == 413


async def test_an_empty_batch_is_acknowledged(client: httpx.AsyncClient) -> None:
    assert (await client.post(URL, json={"events": []})).json()["accepted"] == 0


async def test_pretty_printed_data_is_kept_on_one_line(client: httpx.AsyncClient) -> None:
    await client.post(URL, content=b'{"event_type": "a", "event_data": {\n"x":\r\n1}}')
    assert (await history(client))["events"][0]["payload"] == {"x": 1}


async def test_the_clock_of_the_sender_is_kept(client: httpx.AsyncClient) -> None:
    await client.post(URL, json={**event(1), "occurred_at": "2030-01-02T03:04:05+01:00"})
    assert (await history(client))["events"][0]["occurred_at"] == "2030-01-02T02:04:05.000000Z"


async def test_history_pages_forward_without_loss(client: httpx.AsyncClient) -> None:
    await client.post(URL, json={"events": [event(n) for n in range(1, 26)]})
    seen, after = [], "0"
    while True:
        page = await history(client, after=after, limit=10)
        seen += [e["seq"] for e in page["events"]]
        after = page["newer"]
        if not page["has_more"]:
            break
    assert seen == list(range(1, 26))


async def test_history_pages_backward_from_the_newest(client: httpx.AsyncClient) -> None:
    await client.post(URL, json={"events": [event(n) for n in range(1, 26)]})
    first = await history(client, order="desc", limit=10)
    second = await history(client, order="desc", limit=10, before=first["older"])
    assert [e["seq"] for e in first["events"] + second["events"]] == list(range(25, 5, -1))


async def test_history_filters_by_type(client: httpx.AsyncClient) -> None:
    await client.post(URL, json={"events": [event(1), event(2, "git.commit_created")]})
    assert [e["seq"] for e in (await history(client, event_types="git.commit_created,x"))["events"]] == [2]


async def test_the_whole_log_filters_by_entity(client: httpx.AsyncClient) -> None:
    for sandbox in ("sb-1", "sb-2", "sb-3"):
        await client.post(f"/api/v1/sandboxes/{sandbox}/events", json=event(1))
    page = await history(client, "/api/v1/events", entity_ids="sb-1,sb-3", entity_types="sandbox")
    assert [e["entity_id"] for e in page["events"]] == ["sb-1", "sb-3"]


async def test_an_unknown_sandbox_is_not_found(client: httpx.AsyncClient) -> None:
    answer = await client.get(URL)
    assert (answer.status_code, answer.json()["code"]) == (404, "sandbox_unknown")


async def test_an_empty_page_of_a_known_sandbox_is_no_error(client: httpx.AsyncClient) -> None:
    await client.post(URL, json=event(1))
    position = (await history(client))["newer"]
    assert (await history(client, after=position))["events"] == []


@pytest.mark.parametrize("position", ["x", "-1", "1.5", "1" * 19, "1-2-3"])
async def test_a_bad_position_is_refused(client: httpx.AsyncClient, position: str) -> None:
    assert (await client.get("/api/v1/events", params={"after": position})).status_code == 422


@pytest.mark.parametrize("name", ["entity_types", "entity_ids", "event_types"])
async def test_a_filter_with_control_characters_is_refused(client: httpx.AsyncClient, name: str) -> None:
    assert (await client.get("/api/v1/events", params={name: "a\x00b"})).status_code == 422


async def test_the_trajectory_folds_heartbeats(client: httpx.AsyncClient) -> None:
    kinds = ["heartbeat", "agent.started", "heartbeat", "sandbox.metrics", "agent.completed", "heartbeat"]
    await client.post(URL, json={"events": [event(n, kind) for n, kind in enumerate(kinds, 1)]})
    page = await history(client, "/api/v1/sandboxes/sb-1/trajectory")
    shown = [e["event_type"] for e in page["events"]]
    assert (shown, page["heartbeats"]["count"]) == (["agent.started", "agent.completed"], 3)


async def test_events_carry_the_work_order_of_their_sandbox(app: FastAPI) -> None:
    async def owner_of(sandbox_id: str) -> tuple[str, None] | None:
        return ("wo-1", None) if sandbox_id == "sb-1" else None

    async with opened(app.state.database, owner_of=owner_of) as owned:
        transport = httpx.ASGITransport(owned)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            await client.post(URL, json=event(1))
            assert (await history(client))["events"][0]["work_order_id"] == "wo-1"


@pytest.mark.parametrize("kind", ["work_order.status_changed", "sandbox.state_changed", "attempt.adopted"])
async def test_a_sandbox_cannot_state_the_platforms_facts(client: httpx.AsyncClient, kind: str) -> None:
    answer = await client.post(URL, json={"event_type": kind, "event_data": {"after": "COMPLETED"}})
    assert (answer.status_code, answer.json()["code"]) == (422, "event_malformed")
    assert "platform alone" in answer.json()["detail"]
