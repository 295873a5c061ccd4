"""What a ticket's way back takes with it: a branch that is merged and gone, a place in the merge queue, a proof of another head."""

import sqlalchemy as sa

from shopfloor.board import merge_queries, merge_service, queries, service
from shopfloor.board.models import QueuedMerge
from shopfloor.board.rules import fold
from shopfloor.board.rules.merging import MergeState
from shopfloor.tasks.models import Task
from tests.board.desk import Desk
from tests.board.test_mover import CRITERION, tasks
from tests.board.test_returns import again_done, done


async def merged(desk: Desk) -> str:
    """A ticket that is done, whose branch is merged; a task of it waits."""
    ticket = await desk.ticket(criteria=[CRITERION])
    await desk.to_testing(ticket)
    await desk.prove(ticket)
    await desk.post(f"/tickets/{ticket}/progress")
    wish = {"project": "p", "ticket_id": ticket, "phase": "building", "title": "more"}
    await desk.post("/tasks", wish, expect=201)
    async with desk.database.transaction() as session:
        await session.execute(sa.update(Task).values(base_branch=f"work-{ticket}"))
        await service.set_merged(session, await queries.locked(session, ticket), "f" * 40)
    return str(ticket)


async def test_work_on_what_was_merged_begins_on_a_new_branch(desk: Desk) -> None:
    """By whatever door it goes back: the old branch is gone, and no task may begin there."""
    ticket = await merged(desk)
    await desk.post(f"/tickets/{ticket}/regress", {"reason": "it drips"})
    async with desk.database.reading() as session:
        row = await queries.get(session, ticket)
        base = await session.scalar(sa.select(Task.base_branch))
    assert (row.branch, row.base_commit, row.head_commit, row.change_id, row.merge_commit) == (None,) * 5
    assert (row.status, base) == ("building", None)


async def test_a_client_sees_that_the_branch_is_gone(desk: Desk) -> None:
    ticket = await merged(desk)
    async with desk.database.reading() as session:
        cards = await queries.cards(session, [await queries.get(session, ticket)])
    known = len(await desk.facts(ticket))
    await desk.patch(f"/tickets/{ticket}", {"status": "building"})
    for fact in (await desk.facts(ticket))[known:]:
        cards = dict(fold.apply(cards, fact["event_type"], fact["payload"]))
    async with desk.database.reading() as session:
        assert cards == await queries.cards(session, [await queries.get(session, ticket)])
    assert cards[ticket].head_commit is None


async def queued(desk: Desk, ticket: str, state: MergeState = MergeState.WAITING) -> None:
    async with desk.database.transaction() as session:
        row = await merge_service.enqueue(session, await queries.locked(session, ticket))
        row.state = state


async def place(desk: Desk, ticket: str) -> QueuedMerge:
    async with desk.database.reading() as session:
        found = await merge_queries.queued(session, ticket)
    assert found
    return found


async def test_what_goes_back_or_is_archived_leaves_the_merge_queue(desk: Desk) -> None:
    """Else it would be merged though nobody wants it any more."""
    back, gone, under_way = [await done(desk) for _ in range(3)]
    await queued(desk, back)
    await queued(desk, gone, MergeState.CHECKING)
    await queued(desk, under_way, MergeState.MERGING)
    for ticket in (back, under_way):
        await desk.post(f"/tickets/{ticket}/regress")
    await desk.call("DELETE", f"/tickets/{gone}", expect=204)
    rows = [await place(desk, ticket) for ticket in (back, gone, under_way)]
    assert [row.state for row in rows] == ["left", "left", "merging"]
    assert "went back to building" in rows[0].reason
    assert rows[0].ended_at


async def test_a_push_to_what_is_done_is_proven_anew_and_mended_by_nobody(desk: Desk) -> None:
    """Done is proven: a new head is not. A person's push costs no agent."""
    ticket = await done(desk)
    head = await desk.commit(ticket, {"more.txt": "more\n"})
    shown = await desk.show(ticket)
    assert (shown["status"], head[:12] in shown["reason"]) == ("building", True)
    await again_done(desk, ticket)
    assert len(await tasks(desk, ticket)) == 1


async def test_a_push_to_what_was_done_and_archived_moves_it_no_more(desk: Desk) -> None:
    """Its push may be noticed in the moment in which it is archived; what was archived is history."""
    ticket = await done(desk)
    await desk.call("DELETE", f"/tickets/{ticket}", expect=204)
    await desk.commit(ticket, {"more.txt": "more\n"})
    assert await desk.status(ticket) == "done"
