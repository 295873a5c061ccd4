"""What the board does by itself, step by step, and what it leaves to a person."""

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa

from shopfloor.board import flow_queries
from shopfloor.board.jobs import Mover
from shopfloor.board.models import Ticket
from shopfloor.board.steps.advance import advance
from shopfloor.board.steps.block import detect
from shopfloor.evidence.models import CheckRun
from shopfloor.kit.background import Background
from shopfloor.kit.db import db_time
from shopfloor.tasks.schemas import CreateTask
from tests.board.desk import Desk

CRITERION = {"text": "It holds", "check": {"kind": "command", "command": "true"}}


async def rest(desk: Desk, ticket: str) -> None:
    """Let the board do all that it does by itself."""
    for _ in range(20):
        if not await advance(desk.tools, ticket):
            return
    raise AssertionError(f"{ticket} never rests")


async def tasks(desk: Desk, ticket: str) -> list[Any]:
    return list((await desk.get("/tasks", ticket=ticket, sort="created_at"))["tasks"])


async def end(desk: Desk, task: Any, status: str = "completed", summary: str = "said") -> None:
    await desk.post(f"/results/{task['task_id']}", {"status": status, "summary": summary})


async def building(desk: Desk, **fields: Any) -> str:
    """A ticket of an autonomous project, as far as it comes by itself."""
    await desk.project(autonomy=True)
    ticket = str(await desk.ticket(criteria=[CRITERION], **fields))
    await rest(desk, ticket)
    assert await desk.status(ticket) == "building"
    return ticket


async def test_a_column_that_has_no_task_gets_one_and_only_one(desk: Desk) -> None:
    """Entering building makes the ticket's own task, however many engines look at once."""
    ticket = await building(desk, description="It squeaks.")
    await asyncio.gather(*(advance(desk.tools, ticket) for _ in range(5)))
    (task,) = await tasks(desk, ticket)
    assert (task["phase"], task["held"], task["title"]) == ("building", False, "Mend the gate")
    assert "It squeaks." in task["description"]
    assert "It holds" in task["description"]


@pytest.mark.parametrize(("letters", "criteria"), [(120_000, 1), (120_000, 9), (10, 30)])
async def test_the_task_of_a_long_ticket_fits_and_says_where_all_of_it_is(
    desk: Desk, letters: int, criteria: int
) -> None:
    """An order takes 100,000 letters: a longer task could never start."""
    wanted = [{"text": f"Number {number} {'holds ' * 660}", "check": CRITERION["check"]} for number in range(criteria)]
    await desk.project(autonomy=True)
    ticket = str(await desk.ticket(description="x" * letters, criteria=wanted))
    await rest(desk, ticket)
    (task,) = await tasks(desk, ticket)
    assert CreateTask(project="p", title=task["title"], description=task["description"])
    assert f"are in ticket {ticket}.)" in task["description"]
    assert "Number 0 holds" in task["description"]
    assert criteria > 9 or f"Number {criteria - 1} holds" in task["description"]


async def test_nothing_moves_by_itself_without_autonomy(desk: Desk) -> None:
    ticket = await desk.ticket(criteria=[CRITERION])
    await rest(desk, ticket)
    assert (await desk.status(ticket), await tasks(desk, ticket)) == ("backlog", [])


async def test_a_ticket_that_is_not_approved_makes_no_task(desk: Desk) -> None:
    await desk.project(autonomy=True)
    ticket = await desk.ticket(criteria=[CRITERION], require_approval=True)
    await rest(desk, ticket)
    assert (await desk.status(ticket), await tasks(desk, ticket)) == ("backlog", [])
    await desk.post("/tickets/approve", {"ticket_id": ticket})
    await rest(desk, ticket)
    assert await desk.status(ticket) == "building"


async def test_the_mover_ends_a_review_when_its_time_is_up(desk: Desk) -> None:
    """It sleeps until then, not past it: at most ten seconds, as no review is shorter than a minute."""
    ticket = await desk.ticket(require_approval=True)
    async with desk.database.reading() as session:
        left = await flow_queries.review_ends(session)
    assert left is not None
    assert 60 < left <= 1800
    async with desk.database.transaction() as session:
        await session.execute(sa.update(Ticket).values(approval_deadline=db_time(-1)))
    background = Background()
    mover = Mover(desk.tools, background)
    background.keep("reviews", mover._reviews)
    try:
        async with asyncio.timeout(30):
            while (await desk.get(f"/tickets/{ticket}"))["approval"] != "timed_out":
                pass
    finally:
        await background.close()
    async with desk.database.reading() as session:
        assert await flow_queries.review_ends(session) is None


async def test_a_failed_task_sends_its_ticket_back_and_is_tried_again(desk: Desk) -> None:
    """RES-02, and the seeds' failing chain."""
    ticket = await building(desk)
    (task,) = await tasks(desk, ticket)
    await end(desk, task, "failed", "the hinge broke")
    await rest(desk, ticket)
    moves = (await desk.get(f"/tickets/{ticket}/history"))["moves"]
    assert [move["after"] for move in moves] == ["analyzing", "building", "analyzing", "building"]
    assert "the hinge broke" in moves[2]["reason"]
    (again,) = await tasks(desk, ticket)
    assert (again["task_id"], again["status"], again["held"]) == (task["task_id"], "pending", False)


async def test_what_fails_again_and_again_waits_for_a_person(desk: Desk) -> None:
    ticket = await building(desk)
    for _ in range(4):
        (task,) = await tasks(desk, ticket)
        await end(desk, task, "failed", "the hinge broke")
        await rest(desk, ticket)
    shown = await desk.show(ticket)
    assert (shown["is_blocked"], shown["blocked_class"]) == (True, "failing_checks")
    assert "went back 3 times" in shown["blocked_reason"]
    await desk.post(f"/tasks/{task['task_id']}/retry")
    await rest(desk, ticket)
    shown = await desk.show(ticket)
    assert (shown["is_blocked"], (await tasks(desk, ticket))[0]["held"]) == (False, False)


async def test_a_fault_of_the_place_is_not_the_works_fault(desk: Desk) -> None:
    ticket = await building(desk)
    (task,) = await tasks(desk, ticket)
    await end(desk, task, "failed", "key_missing: no key")
    await rest(desk, ticket)
    shown = await desk.show(ticket)
    assert (shown["status"], shown["blocked_class"]) == ("building", "environment")


async def test_a_criterion_that_fails_brings_a_task_that_says_why(desk: Desk) -> None:
    ticket = await building(desk)
    await end(desk, (await tasks(desk, ticket))[0])
    await desk.commit(ticket, {"new.txt": "new\n"})
    await rest(desk, ticket)
    assert await desk.status(ticket) == "testing"
    await desk.prove(ticket, "failed")
    async with desk.database.transaction() as session:
        await session.execute(sa.update(CheckRun).values(state="done", verdict="failed"))
    await rest(desk, ticket)
    assert await desk.status(ticket) == "building"
    mend = (await tasks(desk, ticket))[-1]
    assert mend["title"] == "Mend: Mend the gate"
    assert "because" in mend["description"]
    await rest(desk, ticket)
    assert len(await tasks(desk, ticket)) == 2


async def test_what_a_person_blocked_stays_blocked(desk: Desk) -> None:
    ticket = await building(desk)
    await desk.post(f"/tickets/{ticket}/block", {"reason": "wait for the plan"})
    await end(desk, (await tasks(desk, ticket))[0])
    await rest(desk, ticket)
    assert (await desk.show(ticket))["is_blocked"]


async def test_what_the_board_found_goes_away_with_its_cause(desk: Desk) -> None:
    first = await building(desk)
    (waited,) = await tasks(desk, first)
    ticket = str(await desk.ticket("Second", criteria=[CRITERION]))
    wish = {"project": "p", "ticket_id": ticket, "phase": "building", "title": "b", "depends_on": [waited["task_id"]]}
    await desk.post("/tasks", wish, expect=201)
    await rest(desk, ticket)
    assert (ticket, "dependency") in [(one.ticket_id, one.blocked_class) for one in await detect(desk.tools, seconds=0)]
    await end(desk, waited)
    await rest(desk, ticket)
    assert not (await desk.show(ticket))["is_blocked"]
