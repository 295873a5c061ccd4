"""Tickets over HTTP: made, found, changed, archived; approved, rejected, timed out; blocked."""

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa

from shopfloor.board import service
from shopfloor.board.models import Ticket
from shopfloor.board.rules import LONGEST_TASK
from shopfloor.board.steps.block import detect
from shopfloor.kit.db import db_time
from tests.board.desk import Desk

CRITERION = {"text": "It holds", "check": {"kind": "command", "command": "true"}}


async def test_fixed_paths_are_not_taken_for_ids(desk: Desk) -> None:
    """W25"""
    ticket = await desk.ticket(require_approval=True)
    assert (await desk.get("/tickets/pending-review-count"))["pending_count"] == 1
    assert (await desk.get("/tickets/approval-status", ticket_id=ticket))["approval_status"] == "pending_review"
    assert (await desk.post("/tickets/detect-blocking"))["count"] == 0
    assert (await desk.post("/tickets/check-duplicates", {"project": "p", "title": "x"}))["candidates"] == []


async def test_a_page_goes_on_after_the_last_row_seen(desk: Desk) -> None:
    """TKT-01: cursors, whatever comes in between."""
    made = [await desk.ticket(f"Number {number}") for number in range(5)]
    first = await desk.get("/tickets", limit=2, sort="created_at")
    await desk.ticket("Late")
    rest = await desk.get("/tickets", limit=10, sort="created_at", cursor=first["next_cursor"])
    seen = [one["ticket_id"] for one in first["tickets"] + rest["tickets"]]
    assert seen[:5] == made
    assert first["total_count"] == 5


@pytest.mark.parametrize("sort", ["rank", "-rank", "title", "-updated_at", "progressed_at"])
async def test_every_sort_pages_over_everything_once(desk: Desk, sort: str) -> None:
    made = {await desk.ticket(f"Number {number}", priority=p) for number, p in enumerate(("low", "HIGH", "Critical"))}
    seen: list[str] = []
    cursor = None
    while True:
        query: dict[str, Any] = {"cursor": cursor} if cursor else {}
        page = await desk.get("/tickets", sort=sort, limit=1, **query)
        seen += [one["ticket_id"] for one in page["tickets"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert (len(seen), set(seen)) == (3, made)


async def test_a_page_may_end_with_a_title_of_any_length(desk: Desk) -> None:
    """A cursor holds the title it stands at."""
    for letter in "一二三":
        await desk.ticket(letter * 500)
    first = await desk.get("/tickets", sort="title", limit=1)
    rest = await desk.get("/tickets", sort="title", cursor=first["next_cursor"])
    assert len(rest["tickets"]) == 2


@pytest.mark.parametrize(("one", "other"), [("created_at", "-created_at"), ("-updated_at", "-created_at")])
async def test_a_cursor_of_another_sort_is_refused(desk: Desk, one: str, other: str) -> None:
    """It would go on at the wrong row."""
    for number in range(2):
        await desk.ticket(f"Number {number}")
    first = await desk.get("/tickets", sort=one, limit=1)
    refused = await desk.call("GET", "/tickets", expect=422, sort=other, cursor=first["next_cursor"])
    assert refused["code"] == "bad_cursor"


async def test_filters_say_what_tickets_must_be(desk: Desk) -> None:
    one = await desk.ticket("A red door", priority="HIGH", owner="ann", spec_id="s-1", require_approval=True)
    other = await desk.ticket("A blue door", description="hinges 100% oiled")
    await desk.post(f"/tickets/{other}/block")

    async def ids(**query: Any) -> list[str]:
        return [found["ticket_id"] for found in (await desk.get("/tickets", **query))["tickets"]]

    mine = {"priority": "high", "owner": "ann", "spec": "s-1", "approval": "pending_review", "q": "red"}
    for name, value in mine.items():
        assert await ids(**{name: value}) == [one], name
    for name, value in {"blocked": "true", "q": "100%", "priority": "medium"}.items():
        assert await ids(**{name: value}) == [other], name
    assert await ids(status="done") == []
    assert set(await ids(project="p", status="backlog")) == {one, other}


async def test_a_search_of_too_many_words_is_refused(desk: Desk) -> None:
    """Words that were left out would find what was not asked for."""
    ticket = await desk.ticket("Mend a gate")
    assert (await desk.get("/tickets", q="gate " * 10))["tickets"][0]["ticket_id"] == ticket
    refused = await desk.call("GET", "/tickets", expect=422, q="gate " * 11)
    assert (refused["code"], refused["detail"]) == ("too_many_words", "q has 11 words; a search takes 10")


async def test_an_archived_ticket_is_off_the_board_and_its_tasks_do_not_run(desk: Desk) -> None:
    ticket = await desk.ticket(tasks=[{"title": "do it"}])
    await desk.call("DELETE", f"/tickets/{ticket}", expect=204)
    assert (await desk.get("/tickets"))["tickets"] == []
    assert [one["ticket_id"] for one in (await desk.get("/tickets", archived="true"))["tickets"]] == [ticket]
    assert [task["status"] for task in (await desk.get("/tasks", ticket=ticket))["tasks"]] == ["cancelled"]
    assert (await desk.post(f"/tickets/{ticket}/progress", expect=409))["code"] == "ticket_archived_already"


async def test_nothing_of_a_ticket_may_start_before_it_is_approved(desk: Desk) -> None:
    """W20: TKT-02, TKT-11, W26: the task that waits is the same one that starts."""
    await desk.project(approval=True)
    ticket = await desk.ticket(tasks=[{"title": "think", "phase": "analyzing"}], require_approval=False)
    refused = await desk.post(f"/tickets/{ticket}/progress", {"override": True, "reason": "now"}, expect=409)
    assert refused["code"] == "not_approved"
    (task,) = (await desk.get("/tasks", ticket=ticket))["tasks"]
    assert task["held"] is True
    late = await desk.post(
        "/tasks", {"project": "p", "ticket_id": ticket, "phase": "backlog", "title": "x"}, expect=201
    )
    assert (late["held"], late["reason"]) == (True, "its ticket is pending_review")
    shown = await desk.post("/tickets/approve", {"ticket_id": ticket, "by": "ann"})
    assert (shown["approval"], shown["approval_by"]) == ("approved", "person:ann")
    await desk.post(f"/tickets/{ticket}/progress")
    assert (await desk.get(f"/tasks/{task['task_id']}"))["held"] is False


async def test_a_rejected_ticket_holds_what_waits(desk: Desk) -> None:
    """TKT-12"""
    ticket = await desk.ticket(require_approval=True, tasks=[{"title": "think", "phase": "analyzing"}])
    await desk.post("/tickets/approve", {"ticket_id": ticket})
    await desk.post(f"/tickets/{ticket}/progress")
    await desk.post("/tickets/reject", {"ticket_id": ticket, "reason": "too dear"})
    (task,) = (await desk.get("/tasks", ticket=ticket))["tasks"]
    assert (task["held"], task["reason"]) == (True, "its ticket is rejected")
    status = await desk.get("/tickets/approval-status", ticket_id=ticket)
    assert (status["approval_status"], status["reason"]) == ("rejected", "too dear")


async def test_a_review_ends_at_its_deadline_and_a_late_word_counts(desk: Desk) -> None:
    ticket = await desk.ticket(require_approval=True)
    async with desk.database.transaction() as session:
        assert await service.time_out(session) == []
        await session.execute(sa.update(Ticket).values(approval_deadline=db_time(-1)))
    async with desk.database.transaction() as session:
        assert await service.time_out(session) == [ticket]
    assert (await desk.post(f"/tickets/{ticket}/progress", expect=409))["code"] == "not_approved"
    await desk.post("/tickets/approve", {"ticket_id": ticket})
    await desk.post(f"/tickets/{ticket}/progress")


async def test_what_waits_for_review_is_counted_by_project_and_owner(desk: Desk) -> None:
    """W26: not one number for everybody."""
    await desk.ticket("One", require_approval=True, owner="ann")
    await desk.ticket("Two", require_approval=True, owner="bob")
    await desk.ticket("Three")
    counted = await desk.get("/tickets/pending-review-count", project="p")
    assert (counted["pending_count"], counted["by_owner"]) == (2, {"ann": 1, "bob": 1})
    assert counted["by_project"] == {desk.project_id: 2}


async def test_the_same_ticket_twice_is_refused_with_candidates(desk: Desk) -> None:
    """TKT-02, TKT-13"""
    first = await desk.ticket("Fix the login button on the start page")
    wish = {"project": "p", "title": "The login button of the start page must be fixed"}
    refused = await desk.post("/tickets", wish, expect=409)
    assert (refused["code"], refused["candidates"][0]["ticket_id"]) == ("duplicate_tickets", first)
    assert 0.6 <= refused["candidates"][0]["score"] <= 1
    await desk.post("/tickets", wish | {"force_create": True}, expect=201)


async def test_two_that_ask_for_the_same_at_once_make_one(desk: Desk) -> None:
    """W18: Checked under the project's lock, not before it."""
    wish = {"project": "p", "title": "Fix the login button on the start page"}
    answers = await asyncio.gather(*(desk.client.post("/api/v1/tickets", json=wish) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 4


async def test_what_is_archived_or_of_another_project_is_no_duplicate(desk: Desk) -> None:
    """W26: nobody sees another project's titles."""
    ticket = await desk.ticket("Fix the login button on the start page")
    other = await desk.post("/projects", {"name": "q", "repository_url": "/nowhere"}, expect=201)
    wish = {"title": "Fix the login button on the start page"}
    assert (await desk.post("/tickets/check-duplicates", wish | {"project": "q"}))["candidates"] == []
    await desk.post("/tickets", wish | {"project": other["project_id"]}, expect=201)
    assert (await desk.post("/tickets/check-duplicates", wish | {"project": "p"}))["is_duplicate"]
    await desk.call("DELETE", f"/tickets/{ticket}", expect=204)
    assert not (await desk.post("/tickets/check-duplicates", wish | {"project": "p"}))["is_duplicate"]


async def age(desk: Desk, ticket: str) -> None:
    """Let the last that happened to a ticket be an hour ago."""
    async with desk.database.transaction() as session:
        await session.execute(sa.update(Ticket).where(Ticket.ticket_id == ticket).values(progressed_at=db_time(-3600)))


async def test_a_ticket_that_stands_still_is_blocked_with_its_class(desk: Desk) -> None:
    """TKT-14: 30 minutes, a class by the facts."""
    silent = await desk.ticket("Silent")
    fresh = await desk.ticket("Fresh")
    for ticket in (silent, fresh):
        await desk.post(f"/tickets/{ticket}/progress")
    await age(desk, silent)
    found = (await desk.post("/tickets/detect-blocking"))["blocked"]
    assert [(one["ticket_id"], one["blocked_class"]) for one in found] == [(silent, "waiting_on_clarification")]
    assert (await desk.post("/tickets/detect-blocking"))["count"] == 0
    await desk.post(f"/tickets/{silent}/criteria", [CRITERION], expect=201)
    assert (await desk.post(f"/tickets/{silent}/progress"))["is_blocked"] is False


async def test_failing_evidence_is_its_own_class_and_gets_a_task(desk: Desk) -> None:
    ticket = await desk.ticket(criteria=[CRITERION])
    await desk.to_testing(ticket)
    await desk.prove(ticket, "failed")
    await desk.project(autonomy=True)
    (blocked,) = await detect(desk.tools, seconds=0)
    assert blocked.blocked_class == "failing_checks"
    (task,) = (await desk.get("/tasks", ticket=ticket))["tasks"]
    assert (task["title"], task["held"]) == ("Clear the way: Mend the gate", False)


async def test_the_task_that_clears_the_way_of_a_long_ticket_fits(desk: Desk) -> None:
    ticket = await desk.ticket(criteria=[CRITERION], description="x" * 120_000)
    await desk.to_testing(ticket)
    await desk.prove(ticket, "failed")
    await desk.project(autonomy=True)
    await detect(desk.tools, seconds=0)
    (task,) = (await desk.get("/tasks", ticket=ticket))["tasks"]
    assert len(task["description"]) == LONGEST_TASK
    assert task["description"].endswith(f"are in ticket {ticket}.)")


async def test_a_ticket_that_was_rejected_meanwhile_gets_no_task_to_clear_its_way(desk: Desk) -> None:
    ticket = await desk.ticket(criteria=[CRITERION], require_approval=True)
    await desk.post("/tickets/approve", {"ticket_id": ticket})
    await desk.to_testing(ticket)
    await desk.prove(ticket, "failed")
    await desk.project(autonomy=True)
    await desk.post("/tickets/reject", {"ticket_id": ticket, "reason": "too dear"})
    (blocked,) = await detect(desk.tools, seconds=0)
    assert blocked.blocked_class == "failing_checks"
    assert (await desk.get("/tasks", ticket=ticket))["tasks"] == []


async def test_what_could_not_be_judged_is_the_environments_fault(desk: Desk) -> None:
    ticket = await desk.ticket(criteria=[CRITERION])
    await desk.to_testing(ticket)
    await desk.prove(ticket, "error")
    (blocked,) = await detect(desk.tools, seconds=0)
    assert blocked.blocked_class == "environment"


async def test_context_gathers_what_is_known(desk: Desk) -> None:
    """TKT-09, TKT-10"""
    ticket = await desk.ticket(criteria=[CRITERION], description="It squeaks.")
    assert "0 of 1 criteria" in (await desk.get(f"/tickets/{ticket}/context"))["summary"]
    await desk.to_testing(ticket)
    await desk.prove(ticket)
    kept = await desk.post(f"/tickets/{ticket}/update-context")
    assert (kept["context"]["status"], kept["context"]["criteria"][0]["verdict"]) == ("testing", "passed")
    assert (await desk.get(f"/tickets/{ticket}/context")) == kept


async def test_what_waits_goes_with_its_ticket_to_another_spec(desk: Desk) -> None:
    """What it costs is the new spec's."""
    task = {"title": "Do it", "phase": "building"}
    ticket = await desk.ticket(spec_id="s-1", tasks=[task])
    await desk.post("/tasks", {"project": "p", "ticket_id": ticket, "description": "More"}, expect=201)

    async def specs() -> list[str]:
        return [one["spec_id"] for one in (await desk.get("/tasks", ticket=ticket))["tasks"]]

    assert await specs() == ["s-1", "s-1"]
    await desk.patch(f"/tickets/{ticket}", {"spec_id": "s-2"})
    assert await specs() == ["s-2", "s-2"]
