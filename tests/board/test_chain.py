"""From a card to done without a person pushing it, on the real platform; and one that fails and goes back with its reason."""

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from tests.support.platform import Platform, folder, git, platform, sample_repository, until

WRITE = [{"say": "writing"}, {"write": {"path": "done.txt", "content": "yes\n"}}]
NOTHING = [{"say": "all done, believe me"}]
HOLDS = {"text": "done.txt says yes", "check": {"kind": "command", "command": "grep -q yes done.txt"}}
NEVER = {"text": "never.txt is there", "check": {"kind": "file", "path": "never.txt", "exists": True}}


@pytest.fixture(scope="module")
def house() -> Iterator[Platform]:
    with platform(scheduling={"retry_seconds": 0.2}, board={"sweep_seconds": 1}) as running:
        yield running


@pytest.fixture
def origin() -> Iterator[Path]:
    with folder() as place:
        yield sample_repository(place)


@pytest.fixture
def project(house: Platform, origin: Path) -> str:
    body = {"name": f"p-{origin.parent.name}", "repository_url": str(origin), "agent": "script", "autonomy": True}
    made: str = house.post("/projects", body, expect=201)["project_id"]
    return made


def make(house: Platform, project: str, script: Any, criteria: list[Any], **fields: Any) -> str:
    task = {"title": "Do it", "phase": "building", "agent_options": {"script": script}}
    body = {"project": project, "title": "Write it down", "criteria": criteria, "tasks": [task], "force_create": True}
    made: str = house.post("/tickets", body | fields, expect=201)["ticket_id"]
    return made


def settled(house: Platform, ticket: str) -> dict[str, Any]:
    """Wait until the ticket is done or blocked."""

    def look() -> dict[str, Any] | None:
        shown: dict[str, Any] = house.get(f"/tickets/{ticket}")
        return shown if shown["status"] == "done" or shown["is_blocked"] else None

    try:
        return until(look, what=f"{ticket} to settle")
    except AssertionError as error:
        told = house.get(f"/tickets/{ticket}/explain")
        raise AssertionError(
            f"{error}\n{house.get(f'/tickets/{ticket}')}\n{told}\n{house.log.read_text()[-6000:]}"
        ) from None


def way(house: Platform, ticket: str) -> list[str]:
    return [move["after"] for move in house.get(f"/tickets/{ticket}/history")["moves"]]


def been(house: Platform, ticket: str, column: str) -> bool:
    return column in way(house, ticket)


def on_the_socket(house: Platform, entity: str, kind: str, number: int) -> list[str]:
    """What a client that listens from the beginning is sent: where each went."""
    address = f"ws://127.0.0.1:{house.port}/api/v1/ws/events?after=0&entity_ids={entity}&event_types={kind}"
    found: list[str] = []
    with connect(address) as client:
        while len(found) < number:
            frame = json.loads(client.recv(timeout=60))
            found += [one["payload"]["after"] for one in (frame if isinstance(frame, list) else [frame])]
    return found


def test_a_ticket_goes_from_backlog_to_done_by_itself(house: Platform, project: str, origin: Path) -> None:
    """ORC-04, RES-01…05: picked up, sandbox, result, completed, moved, proven, told."""
    ticket = make(house, project, WRITE, [HOLDS])
    shown = settled(house, ticket)
    assert shown["status"] == "done", shown
    assert way(house, ticket) == ["analyzing", "building", "building-done", "testing", "done"]
    assert on_the_socket(house, ticket, "TICKET_TRANSITIONED", 5) == way(house, ticket)
    assert git("show", f"{shown['branch']}:done.txt", cwd=origin) == "yes"
    assert shown["evidence"] == {"total": 1, "passed": 1, "failed": 0, "error": 0, "open": 0}
    assert shown["change_id"]


def test_one_whose_criterion_fails_goes_back_with_its_reason_and_in_the_end_waits_for_a_person(
    house: Platform, project: str
) -> None:
    """Nothing that is not proven is done, however often an agent says so."""
    ticket = make(house, project, WRITE, [NEVER])
    shown = settled(house, ticket)
    moves = house.get(f"/tickets/{ticket}/history")["moves"]
    back = next(move for move in moves if move["how"] == "failed")
    assert (back["before"], back["after"]) == ("testing", "building")
    assert "never.txt" in back["reason"]
    assert (shown["status"] != "done", shown["is_blocked"]) == (True, True)


def test_an_agent_that_did_nothing_is_not_done(house: Platform, project: str) -> None:
    ticket = make(house, project, NOTHING, [HOLDS])
    shown = settled(house, ticket)
    assert shown["status"] != "done"
    assert shown["is_blocked"]
    assert "done" not in way(house, ticket)


def test_a_server_killed_in_every_column_goes_on_where_it_was(origin: Path) -> None:
    """No step is lost or done twice: what comes next is read from the tables."""
    with platform(scheduling={"retry_seconds": 0.2}, board={"sweep_seconds": 1}) as house:
        body = {"name": "p", "repository_url": str(origin), "agent": "script", "autonomy": True}
        project = house.post("/projects", body, expect=201)["project_id"]
        ticket = make(house, project, WRITE, [HOLDS])
        for column in ("analyzing", "building", "building-done", "testing"):
            until(functools.partial(been, house, ticket, column), what=f"{ticket} to reach {column}")
            house.kill()
            house.start()
        assert settled(house, ticket)["status"] == "done"
        assert way(house, ticket) == ["analyzing", "building", "building-done", "testing", "done"]
        assert len(house.get("/tasks", ticket=ticket)["tasks"]) == 1
