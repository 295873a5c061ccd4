"""One transition function behind every route: law, gates, limits, approval, history."""

import asyncio
import os
from typing import Any

import pytest
import sqlalchemy as sa

from shopfloor.board.rules import How, NotBack
from shopfloor.board.service import BOARD
from shopfloor.board.steps.move import move
from shopfloor.kit.errors import Unavailable
from shopfloor.projects.models import Project
from tests.board.desk import Desk

CRITERION = {"text": "It holds", "check": {"kind": "command", "command": "true"}}
DOORS: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/board/move", {"ticket_id": "ID", "target_phase": "building"}),
    ("POST", "/board/auto-transition/ID", {}),
    ("POST", "/tickets/ID/transition", {"to_status": "building"}),
    ("POST", "/tickets/ID/progress", {}),
    ("PATCH", "/tickets/ID", {"status": "building"}),
]


def at(ticket_id: str, path: str, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return path.replace("ID", ticket_id), {key: ticket_id if value == "ID" else value for key, value in body.items()}


@pytest.mark.parametrize(("method", "path", "body"), DOORS, ids=[door[1] for door in DOORS])
async def test_every_door_asks_the_gates(desk: Desk, method: str, path: str, body: dict[str, Any]) -> None:
    """W23: board/move, auto-transition and PATCH are no way around them."""
    ticket = await desk.ticket()
    await desk.post(f"/tickets/{ticket}/progress")
    where, wish = at(ticket, path, body)
    refused = await desk.call(method, where, wish, expect=409)
    assert (refused["code"], refused["missing"][0]["gate"]) == ("gate_closed", "criteria")
    assert refused["missing"][0]["who_may_override"]
    assert await desk.status(ticket) == "analyzing"


@pytest.mark.parametrize(("method", "path", "body"), DOORS, ids=[door[1] for door in DOORS])
async def test_every_door_writes_history_and_tells(desk: Desk, method: str, path: str, body: dict[str, Any]) -> None:
    """RES-04, C11: one event, whoever moved it."""
    ticket = await desk.ticket(criteria=[CRITERION])
    await desk.post(f"/tickets/{ticket}/progress")
    where, wish = at(ticket, path, body)
    await desk.call(method, where, wish)
    told = [e["payload"] for e in await desk.facts(ticket) if e["event_type"] == "TICKET_TRANSITIONED"]
    moves = (await desk.get(f"/tickets/{ticket}/history"))["moves"]
    assert [(m["before"], m["after"]) for m in moves] == [("backlog", "analyzing"), ("analyzing", "building")]
    assert [(t["before"], t["after"]) for t in told] == [(m["before"], m["after"]) for m in moves]


async def test_a_ticket_goes_one_column_at_a_time(desk: Desk) -> None:
    """C9, TKT-17"""
    ticket = await desk.ticket()
    refused = await desk.post(f"/tickets/{ticket}/transition", {"to_status": "building"}, expect=409)
    assert refused["code"] == "illegal_move"


async def test_the_four_phase_names_are_columns(desk: Desk) -> None:
    """C8"""
    ticket = await desk.ticket(criteria=[CRITERION])
    for name, column in (("PHASE_INITIAL", "analyzing"), ("phase_implementation", "building")):
        assert (await desk.post(f"/tickets/{ticket}/transition", {"to_status": name}))["status"] == column
    assert (await desk.get("/board/column/PHASE_REFACTORING"))["phase_id"] == "building-done"


async def test_building_comes_before_building_done_and_testing(desk: Desk) -> None:
    """W22: no card moves backwards, and the gate of building-done is one that tickets meet."""
    ticket = await desk.ticket(criteria=[CRITERION], tasks=[{"title": "late", "phase": "building-done"}])
    await desk.post(f"/tickets/{ticket}/progress")
    await desk.post(f"/tickets/{ticket}/progress")
    await desk.commit(ticket, {"a.txt": "a\n"})
    assert (await desk.post(f"/tickets/{ticket}/progress"))["status"] == "building-done"
    refused = await desk.post(f"/tickets/{ticket}/progress", expect=409)
    assert refused["missing"][0]["kind"] == "tasks_done"


async def test_nothing_changed_is_not_built(desk: Desk) -> None:
    """An agent that says done and did nothing."""
    ticket = await desk.ticket(criteria=[CRITERION])
    await desk.post(f"/tickets/{ticket}/progress")
    await desk.post(f"/tickets/{ticket}/progress")
    await desk.commit(ticket, {})
    refused = await desk.post(f"/tickets/{ticket}/progress", expect=409)
    assert refused["missing"][0]["kind"] == "change"


async def test_done_needs_every_criterion_proven_on_the_head(desk: Desk) -> None:
    ticket = await desk.ticket(criteria=[CRITERION])
    head = await desk.to_testing(ticket)
    assert (await desk.post(f"/tickets/{ticket}/progress", expect=409))["missing"][0]["kind"] == "evidence"
    await desk.prove(ticket, commit=head)
    assert (await desk.post(f"/tickets/{ticket}/progress"))["status"] == "done"


async def test_no_project_can_do_without_evidence(desk: Desk) -> None:
    """Decision 20: the gate into done is no setting; passing it is a recorded act each time."""
    await desk.project(gates={"testing": []})
    ticket = await desk.ticket(criteria=[CRITERION])
    await desk.to_testing(ticket)
    refused = await desk.post(f"/tickets/{ticket}/progress", expect=409)
    assert [gate["kind"] for gate in refused["missing"]] == ["evidence"]
    assert (await desk.get("/phases/testing/gates", project="p"))["gates"] == [{"kind": "evidence"}]


async def test_a_new_commit_makes_old_evidence_stale(desk: Desk) -> None:
    ticket = await desk.ticket(criteria=[CRITERION])
    await desk.to_testing(ticket)
    await desk.prove(ticket)
    await desk.commit(ticket, {"more.txt": "more\n"})
    refused = await desk.post(f"/tickets/{ticket}/progress", expect=409)
    assert "stale" in refused["missing"][0]["missing"]


async def test_another_test_command_makes_what_it_proved_stale(desk: Desk) -> None:
    """Else a project could be proven by one line and change it after that."""
    await desk.project(test_command="pytest {test}")
    ticket = await desk.ticket(criteria=[{"text": "It holds", "check": {"kind": "test", "name": "tests/test_a.py"}}])
    await desk.to_testing(ticket)
    await desk.post(f"/tickets/{ticket}/check", expect=202)
    await desk.pass_runs()

    async def verdict() -> str:
        return str((await desk.get(f"/tickets/{ticket}/criteria"))["criteria"][0]["verdict"])

    assert await verdict() == "passed"
    await desk.project(test_command="true {test}")
    assert await verdict() == "stale"
    await desk.post(f"/tickets/{ticket}/progress", expect=409)
    await desk.project(test_command="pytest {test}")
    assert await verdict() == "passed"


@pytest.mark.parametrize("verdict", ["failed", "error"])
async def test_only_passed_proves(desk: Desk, verdict: str) -> None:
    ticket = await desk.ticket(criteria=[CRITERION])
    await desk.to_testing(ticket)
    await desk.prove(ticket, verdict)
    await desk.post(f"/tickets/{ticket}/progress", expect=409)


async def test_overriding_is_a_recorded_act_with_a_reason(desk: Desk) -> None:
    ticket = await desk.ticket(criteria=[CRITERION])
    await desk.to_testing(ticket)
    no_reason = await desk.post(f"/tickets/{ticket}/progress", {"override": True}, expect=422)
    assert no_reason["code"] == "reason_needed"
    wish = {"override": True, "reason": "shown to the customer", "by": "ann"}
    assert (await desk.post(f"/tickets/{ticket}/progress", wish))["status"] == "done"
    last = (await desk.get(f"/tickets/{ticket}/history"))["moves"][-1]
    assert (last["moved_by"], last["reason"]) == ("person:ann", "shown to the customer")
    assert last["overridden"][0]["gate"] == "evidence"
    told = [e["payload"] for e in await desk.facts(ticket) if e["event_type"] == "TICKET_TRANSITIONED"][-1]
    assert told["overridden"][0].startswith("evidence: ")


async def test_an_artifact_is_read_not_only_looked_for(desk: Desk) -> None:
    """W24"""
    gate = {"kind": "artifact", "path": "docs/*.md", "min_chars": 20, "contains": ["Decision"]}
    await desk.project(gates={"building": [gate]})
    ticket = await desk.ticket(criteria=[CRITERION])
    await desk.post(f"/tickets/{ticket}/progress")
    await desk.post(f"/tickets/{ticket}/progress")
    assert "no commit" in (await desk.post(f"/tickets/{ticket}/progress", expect=409))["missing"][0]["missing"]
    await desk.commit(ticket, {"docs/a.md": ""})
    assert "0 of at least 20" in (await desk.post(f"/tickets/{ticket}/progress", expect=409))["missing"][0]["missing"]
    await desk.commit(ticket, {"docs/a.md": "x" * 30})
    assert "decision" in (await desk.post(f"/tickets/{ticket}/progress", expect=409))["missing"][0]["missing"].lower()
    await desk.commit(ticket, {"docs/a.md": "The decision: we mend it."})
    assert (await desk.post(f"/tickets/{ticket}/progress"))["status"] == "building-done"


async def test_an_artifact_is_read_whatever_the_bytes_of_its_name(desk: Desk) -> None:
    """Decision 20: a name that is no UTF-8 kept its ticket from every move, back too."""
    await desk.project(gates={"building": [{"kind": "artifact", "path": "docs/*.md", "contains": ["Decision"]}]})
    ticket = await desk.ticket(criteria=[CRITERION])
    for _ in range(2):
        await desk.post(f"/tickets/{ticket}/progress")
    await desk.commit(ticket, {os.fsdecode(b"docs/\xff.md"): "The decision: we mend it."})
    assert (await desk.post(f"/tickets/{ticket}/progress"))["status"] == "building-done"


async def unreadable(desk: Desk) -> str:
    """A ticket in building whose head nobody has any more."""
    ticket = str(await desk.ticket(criteria=[CRITERION]))
    for _ in range(2):
        await desk.post(f"/tickets/{ticket}/progress")
    await desk.set_head(ticket, "1" * 40, base="2" * 40)
    return ticket


async def test_what_git_cannot_read_is_told_of_its_gate(desk: Desk) -> None:
    """Decision 20: a ticket can always be explained."""
    ticket = await unreadable(desk)
    refused = await desk.post(f"/tickets/{ticket}/progress", expect=409)
    standing = await desk.get(f"/phases/gates/{ticket}")
    told = await desk.get(f"/tickets/{ticket}/explain")
    assert [gate["kind"] for gate in refused["missing"]] == ["change"]
    assert "111111111111 could not be read: " in refused["missing"][0]["missing"]
    assert standing["missing"] == refused["missing"]
    assert any(refused["missing"][0]["missing"] in line for line in told["what_would_change_it"])


async def test_what_git_cannot_read_can_be_overridden(desk: Desk) -> None:
    ticket = await unreadable(desk)
    moved = await desk.post(f"/tickets/{ticket}/progress", {"override": True, "reason": "seen elsewhere"})
    assert moved["status"] == "building-done"
    (passed,) = (await desk.get(f"/tickets/{ticket}/history"))["moves"][-1]["overridden"]
    assert (passed["kind"], "could not be read" in passed["missing"]) == ("change", True)


async def test_a_ticket_goes_back_when_git_cannot_be_read(desk: Desk) -> None:
    """Decision 20: going back must always be possible."""
    ticket = await unreadable(desk)
    assert (await desk.post(f"/tickets/{ticket}/regress"))["status"] == "analyzing"


async def test_the_board_comes_back_to_what_is_only_away(desk: Desk) -> None:
    """No answer is no refusal: the mover is told that the origin is away, and tries again."""
    ticket = await unreadable(desk)
    async with desk.database.transaction() as session:
        await session.execute(sa.update(Project).values(repository_url="https://127.0.0.1:9/a/b.git"))
    with pytest.raises(Unavailable):
        await move(desk.tools, ticket, None, how=How.AUTO, by=BOARD)
    assert (await desk.post(f"/tickets/{ticket}/progress", expect=409))["code"] == "gate_closed"


async def test_a_done_ticket_was_in_testing(desk: Desk) -> None:
    """W24: nothing jumps straight to done."""
    ticket = await desk.ticket(criteria=[CRITERION])
    for column in ("building", "building-done", "done"):
        await desk.post(
            f"/tickets/{ticket}/transition", {"to_status": column, "override": True, "reason": "x"}, expect=409
        )
        await desk.post(f"/tickets/{ticket}/progress", {"override": True, "reason": "x"})
    assert [m["after"] for m in (await desk.get(f"/tickets/{ticket}/history"))["moves"]] == [
        "analyzing",
        "building",
        "building-done",
    ]


async def test_many_movers_at_once_never_overfill_a_column(desk: Desk) -> None:
    """WIP limits are counted under the project's lock."""
    await desk.project(wip_limits={"analyzing": 2})
    tickets = [await desk.ticket(f"Number {number}") for number in range(8)]
    answers = await asyncio.gather(*(desk.client.post(f"/api/v1/tickets/{one}/progress") for one in tickets))
    assert sorted(answer.status_code for answer in answers) == [200, 200] + [409] * 6
    refused = next(answer.json() for answer in answers if answer.status_code == 409)
    assert refused["code"] == "wip_limit_reached"
    assert len((await desk.get("/board/column/analyzing", project="p"))["tickets"]) == 2


async def test_many_makers_at_once_never_overfill_the_backlog(desk: Desk) -> None:
    """Its limit is asked where tickets enter it; what leaves it makes room."""
    await desk.project(wip_limits={"backlog": 2})
    made = [{"project": desk.project_id, "title": f"Number {number}", "force_create": True} for number in range(5)]
    answers = await asyncio.gather(*(desk.client.post("/api/v1/tickets", json=one) for one in made))
    assert sorted(answer.status_code for answer in answers) == [201, 201, 409, 409, 409]
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"wip_limit_reached"}
    first = next(answer.json()["ticket_id"] for answer in answers if answer.status_code == 201)
    await desk.post(f"/tickets/{first}/progress")
    await desk.ticket()


async def test_one_ticket_moved_by_many_at_once_moves_once_each(desk: Desk) -> None:
    """Two that saw the same gates do not both move it."""
    ticket = await desk.ticket()
    answers = await asyncio.gather(
        *(desk.client.post(f"/api/v1/tickets/{ticket}/transition", json={"to_status": "analyzing"}) for _ in range(6))
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 5
    assert len((await desk.get(f"/tickets/{ticket}/history"))["moves"]) == 1


async def test_lowered_limits_show_as_violations(desk: Desk) -> None:
    """BRD-05"""
    for number in range(3):
        await desk.post(f"/tickets/{await desk.ticket(f'Number {number}')}/progress")
    await desk.project(wip_limits={"analyzing": 1})
    (found,) = (await desk.get("/board/wip-violations"))["violations"]
    assert (found["phase_id"], found["count"], found["wip_limit"], found["excess"]) == ("analyzing", 3, 1, 2)


async def test_a_ticket_goes_back_with_its_reason(desk: Desk) -> None:
    """TKT-08"""
    ticket = await desk.ticket(criteria=[CRITERION])
    await desk.to_testing(ticket)
    shown = await desk.post(f"/tickets/{ticket}/regress", {"reason": "it drips"})
    assert (shown["status"], shown["previous_status"], shown["reason"]) == ("building", "testing", "it drips")
    await desk.post(f"/tickets/{ticket}/regress", {"to_status": "testing"}, expect=409)


async def test_sending_back_never_leads_forward(desk: Desk) -> None:
    """Who sends a ticket back to a column that it has left meanwhile, backward, moves it nowhere."""
    ticket = await desk.ticket(criteria=[CRITERION])
    await desk.post(f"/tickets/{ticket}/progress")
    with pytest.raises(NotBack):
        await move(desk.tools, ticket, "building", how=How.REGRESS, by="person:ann", override=True, reason="late")
    assert await desk.status(ticket) == "analyzing"


async def test_a_blocked_ticket_stays_until_it_is_unblocked(desk: Desk) -> None:
    """TKT-06, TKT-07, W22: blocked is shown on the card."""
    ticket = await desk.ticket()
    await desk.post(f"/tickets/{ticket}/block", {"blocked_class": "dependency", "reason": "the key is missing"})
    refused = await desk.post(f"/tickets/{ticket}/progress", expect=409)
    assert (refused["code"], refused["missing"][0]["missing"]) == ("still_blocked", "dependency: the key is missing")
    (card,) = (await desk.get("/board/column/backlog"))["tickets"]
    assert (card["is_blocked"], card["blocked_class"]) == (True, "dependency")
    await desk.post(f"/tickets/{ticket}/unblock")
    assert (await desk.post(f"/tickets/{ticket}/progress"))["status"] == "analyzing"


async def test_a_ticket_that_waits_for_another_does_not_start(desk: Desk) -> None:
    first = await desk.ticket("First")
    second = await desk.ticket("Second", blocked_by=[first])
    assert (await desk.post(f"/tickets/{second}/progress", expect=409))["code"] == "waits_for_tickets"
    circle = await desk.patch(f"/tickets/{first}", {"blocked_by": [second]}, expect=409)
    assert circle["code"] == "ticket_waits_for_itself"
    await desk.patch(f"/tickets/{first}", {"blocked_by": [first]}, expect=409)


async def test_a_move_that_is_refused_changes_nothing_else(desk: Desk) -> None:
    """PATCH is one wish."""
    ticket = await desk.ticket()
    await desk.patch(f"/tickets/{ticket}", {"title": "Other", "status": "done"}, expect=409)
    assert (await desk.show(ticket))["title"] == "Mend the gate"


@pytest.mark.parametrize("what", ["a stranger", "a circle"])
async def test_a_change_that_is_refused_moves_nothing(desk: Desk, what: str) -> None:
    """PATCH is one wish, the other way round."""
    ticket = await desk.ticket()
    other = "tkt-nope" if what == "a stranger" else await desk.ticket("Other", blocked_by=[ticket])
    wish = {"status": "analyzing", "title": "Other", "blocked_by": [other]}
    await desk.patch(f"/tickets/{ticket}", wish, expect=422 if what == "a stranger" else 409)
    shown = await desk.show(ticket)
    assert (shown["status"], shown["title"]) == ("backlog", "Mend the gate")


async def test_explain_says_what_is_missing_and_who_can_pass_it(desk: Desk) -> None:
    ticket = await desk.ticket()
    await desk.post(f"/tickets/{ticket}/progress")
    told = await desk.get(f"/tickets/{ticket}/explain")
    assert told["status"] == "analyzing"
    assert any("criteria" in line and "override" in line for line in told["what_would_change_it"])
