"""A ticket that comes back: whoever sent it, it is worked on anew and told why; and that ends."""

from typing import Any

import pytest
import sqlalchemy as sa

from shopfloor.board import queries, service
from shopfloor.board.rules import Column, How
from shopfloor.board.steps.advance import advance
from shopfloor.evidence.models import CheckRun
from tests.board.desk import Desk
from tests.board.test_mover import building, end, rest, tasks


async def done(desk: Desk) -> str:
    """A ticket of an autonomous project, proven and done."""
    ticket = await building(desk)
    await end(desk, (await tasks(desk, ticket))[0])
    await desk.commit(ticket, {"new.txt": "new\n"})
    await again_done(desk, ticket)
    return ticket


async def again_done(desk: Desk, ticket: str) -> None:
    await rest(desk, ticket)
    await desk.prove(ticket)
    await desk.end_runs()
    await rest(desk, ticket)
    assert await desk.status(ticket) == "done"


async def send_back(desk: Desk, ticket: str, how: How = How.FAILED, by: str = "merge queue") -> None:
    async with desk.database.transaction() as session:
        _, row = await queries.locked_with_project(session, ticket)
        await service.record_move(session, row, Column.BUILDING, how=how, by=by, reason="it clashes with main")


async def mended(desk: Desk, ticket: str) -> Any:
    """The newest task; it is done."""
    await rest(desk, ticket)
    newest = (await tasks(desk, ticket))[-1]
    await end(desk, newest)
    return newest


async def test_what_the_merge_queue_sends_back_again_and_again_waits_for_a_person(desk: Desk) -> None:
    """Every mending is paid for; one that brings nothing must end."""
    ticket = await done(desk)
    for number in range(3):
        await send_back(desk, ticket)
        await mended(desk, ticket)
        assert len(await tasks(desk, ticket)) == number + 2
        await again_done(desk, ticket)
    await send_back(desk, ticket)
    await rest(desk, ticket)
    shown = await desk.show(ticket)
    assert (shown["is_blocked"], shown["blocked_class"]) == (True, "waiting_on_clarification")
    assert "it clashes with main" in shown["blocked_reason"]
    assert len(await tasks(desk, ticket)) == 4
    await desk.post(f"/tickets/{ticket}/unblock", {"by": "ann"})
    await rest(desk, ticket)
    assert (await tasks(desk, ticket))[-1]["title"].startswith("Mend: ")
    assert len(await tasks(desk, ticket)) == 5


@pytest.mark.parametrize("column", ["backlog", "analyzing", "building", "building-done"])
async def test_what_a_person_sends_back_is_mended_for_their_reason(desk: Desk, column: str) -> None:
    """It is not simply moved on again."""
    ticket = await building(desk)
    await end(desk, (await tasks(desk, ticket))[0])
    await desk.commit(ticket, {"new.txt": "new\n"})
    await rest(desk, ticket)
    assert await desk.status(ticket) == "testing"
    await desk.post(f"/tickets/{ticket}/regress", {"to_status": column, "reason": "it drips"})
    await rest(desk, ticket)
    assert await desk.status(ticket) == (column if column == "building-done" else "building")
    mend = (await tasks(desk, ticket))[-1]
    assert (mend["title"], mend["held"]) == ("Mend: Mend the gate", False)
    assert "it drips" in mend["description"]
    await advance(desk.tools, ticket)
    assert len(await tasks(desk, ticket)) == 2


async def test_a_failed_task_is_tried_again_when_a_person_unblocks(desk: Desk) -> None:
    """The place was at fault and was put right: unblocking is not undone at once."""
    ticket = await building(desk)
    (task,) = await tasks(desk, ticket)
    await end(desk, task, "failed", "key_missing: no key")
    await rest(desk, ticket)
    assert (await desk.show(ticket))["blocked_class"] == "environment"
    await desk.post(f"/tickets/{ticket}/unblock", {"by": "ann"})
    await rest(desk, ticket)
    (again,) = await tasks(desk, ticket)
    assert (again["status"], again["held"]) == ("pending", False)
    assert not (await desk.show(ticket))["is_blocked"]


async def unjudged(desk: Desk, ticket: str) -> int:
    """No sandbox could be had for the check; answers how many were asked for so far."""
    await desk.prove(ticket, "error")
    await desk.end_runs()
    await rest(desk, ticket)
    async with desk.database.reading() as session:
        return len((await session.scalars(sa.select(CheckRun).where(CheckRun.subject_id == ticket))).all())


async def test_what_cannot_be_judged_is_checked_anew_twice_and_then_once_for_each_unblocking(desk: Desk) -> None:
    ticket = await building(desk)
    await end(desk, (await tasks(desk, ticket))[0])
    await desk.commit(ticket, {"new.txt": "new\n"})
    await rest(desk, ticket)
    assert [await unjudged(desk, ticket) for _ in range(3)] == [2, 3, 3]
    assert (await desk.show(ticket))["blocked_class"] == "environment"
    await desk.post(f"/tickets/{ticket}/unblock", {"by": "ann"})
    await rest(desk, ticket)
    assert not (await desk.show(ticket))["is_blocked"]
    await again_done(desk, ticket)
