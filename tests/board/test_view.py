"""The board as it is shown, and as facts make it: both must be the same (Zulip's verify_action)."""

from typing import Any

import pytest
import sqlalchemy as sa

from shopfloor.board import queries, service
from shopfloor.board.models import Ticket
from shopfloor.board.rules.fold import FOLDS
from shopfloor.events.models import EventRow
from shopfloor.kit.db import db_time
from tests.board.desk import Desk
from tests.board.folding import folded, of_view, tables
from tests.support.between import between

CRITERION = {"text": "It holds", "check": {"kind": "command", "command": "true"}}


async def live_a_little(desk: Desk) -> str:
    """Something of every kind that a card shows."""
    other = await desk.ticket("Other", require_approval=True, owner="ann")
    ticket = await desk.ticket(criteria=[CRITERION], tasks=[{"title": "do", "phase": "analyzing"}])
    gone = await desk.ticket("Gone")
    await desk.post(f"/tickets/{ticket}/progress")
    (task,) = (await desk.get("/tasks", ticket=ticket))["tasks"]
    await desk.post(f"/results/{task['task_id']}", {"status": "completed", "summary": "ok"})
    await desk.patch(f"/tickets/{ticket}", {"title": "Mend both gates", "priority": "high", "owner": "bob"})
    await desk.post(f"/tickets/{other}/block", {"reason": "no"})
    await desk.post("/tickets/approve", {"ticket_id": other})
    await desk.post(f"/tickets/{ticket}/criteria", [CRITERION], expect=201)
    await desk.set_head(ticket, "a" * 40)
    await desk.prove(ticket)
    await desk.set_head(ticket, "b" * 40)
    await desk.prove(ticket, "failed")
    await desk.set_head(ticket, "a" * 40)
    await desk.call("DELETE", f"/tickets/{gone}", expect=204)
    await live_to_the_end(desk)
    await decide_and_edit(desk)
    return str(ticket)


async def live_to_the_end(desk: Desk) -> None:
    """One that waits to be merged, one that was, and one that was merged and came back."""
    await desk.project(gates={"building": []})  # heads are only names here
    await done(desk)
    await merged(desk)
    await desk.post(f"/tickets/{await merged(desk)}/regress", {"reason": "it does not hold there"})


async def done(desk: Desk) -> str:
    """A ticket that is done, and in conflict with its base by now."""
    ticket = str(await desk.ticket(criteria=[CRITERION]))
    for _ in range(4):
        await desk.post(f"/tickets/{ticket}/progress")
    await desk.set_head(ticket, "a" * 40)
    await desk.prove(ticket)
    await desk.post(f"/tickets/{ticket}/progress")
    async with desk.database.transaction() as session:
        row = await queries.locked(session, ticket)
        await service.set_change(session, row, f"change-{ticket}", "")
        await service.set_union(session, row, behind=3, conflicts=[{"with": "main", "paths": ["a.txt"]}])
    return ticket


async def merged(desk: Desk) -> str:
    ticket = await done(desk)
    async with desk.database.transaction() as session:
        await service.set_merged(session, await queries.locked(session, ticket), "d" * 40)
    return ticket


async def decide_and_edit(desk: Desk) -> None:
    """What people say of a ticket, and take back."""
    late = await desk.ticket("Late", require_approval=True)
    async with desk.database.transaction() as session:
        await session.execute(sa.update(Ticket).where(Ticket.ticket_id == late).values(approval_deadline=db_time(-1)))
        await service.time_out(session)
    edited = await desk.ticket("Edited", criteria=[CRITERION, CRITERION])
    await desk.set_head(edited, "a" * 40)
    await desk.prove(edited)
    first, second = (await desk.get(f"/tickets/{edited}/criteria"))["criteria"]
    await desk.patch(f"/criteria/{first['criterion_id']}", {"check": {"kind": "command", "command": "true; true"}})
    await desk.call("DELETE", f"/criteria/{second['criterion_id']}")
    await desk.post(f"/tickets/{edited}/block", {"reason": "no"})
    await desk.post(f"/tickets/{edited}/unblock", {"reason": "yes"})


async def test_that_life_tells_every_fact_that_the_board_folds(desk: Desk) -> None:
    """Else what follows would say nothing of the fact that is left out."""
    await live_a_little(desk)
    async with desk.database.reading() as session:
        told = set(await session.scalars(sa.select(EventRow.event_type)))
    assert told >= {"ticket.created", *FOLDS}


async def test_a_board_rebuilt_from_the_log_is_the_tables_board(desk: Desk) -> None:
    await live_a_little(desk)
    assert await folded(desk.database, {}, None) == await tables(desk.database)


async def test_a_client_that_applies_events_sees_what_the_tables_say(desk: Desk) -> None:
    await desk.ticket("There already", criteria=[CRITERION])
    view = await desk.get("/board/view", project="p")
    await live_a_little(desk)
    assert await folded(desk.database, of_view(view), view["position"]) == await tables(desk.database)


async def test_a_ticket_that_moves_back_while_the_columns_are_read_is_on_the_snapshot_once(desk: Desk) -> None:
    """Backlog was read without it, analyzing is read after it left: its event would find no card to move."""
    ticket = await desk.ticket()
    await desk.post(f"/tickets/{ticket}/progress")

    async def back() -> None:
        await desk.post(f"/tickets/{ticket}/regress", {"reason": "not yet"})

    def read_backlog(text: str, parameters: Any) -> bool:
        return "tickets.status = " in text and "backlog" in parameters

    with between(desk.database, read_backlog, back):
        view = await desk.get("/board/view", project="p")
    assert list(of_view(view)) == [ticket]
    assert await folded(desk.database, of_view(view), view["position"]) == await tables(desk.database)


async def test_events_that_the_snapshot_knew_may_come_again(desk: Desk) -> None:
    """On PostgreSQL a snapshot may be newer than the position that is settled."""
    await live_a_little(desk)
    view = of_view(await desk.get("/board/view"))
    assert await folded(desk.database, view, None) == await tables(desk.database)


async def test_an_earlier_heads_evidence_counts_again_when_the_branch_goes_back(desk: Desk) -> None:
    ticket = await live_a_little(desk)
    (card,) = [one for one in (await desk.get("/board/column/analyzing"))["tickets"] if one["ticket_id"] == ticket]
    assert card["evidence"] == {"total": 2, "passed": 2, "failed": 0, "error": 0, "open": 0}


async def test_the_view_has_every_column_in_order_with_counts(desk: Desk) -> None:
    """BRD-01, BRD-04"""
    ticket = await desk.ticket()
    await desk.post(f"/tickets/{ticket}/progress")
    for number in range(3):
        await desk.ticket(f"Number {number}")
    view = await desk.get("/board/view", project="p", limit=2)
    assert [(c["phase_id"], c["count"], len(c["tickets"])) for c in view["columns"]] == [
        ("backlog", 3, 2),
        ("analyzing", 1, 1),
        ("building", 0, 0),
        ("building-done", 0, 0),
        ("testing", 0, 0),
        ("done", 0, 0),
    ]
    rest = await desk.get("/board/column/backlog", project="p", cursor=view["columns"][0]["next_cursor"])
    assert len(rest["tickets"]) == 1
    assert (await desk.get("/board/stats", project="p"))["columns"]["analyzing"]["count"] == 1


async def test_urgent_tickets_stand_first(desk: Desk) -> None:
    """W21: whatever the case of the word."""
    low = await desk.ticket("Low", priority="LOW")
    high = await desk.ticket("High", priority="High")
    assert [one["ticket_id"] for one in (await desk.get("/board/column/backlog"))["tickets"]] == [high, low]


@pytest.mark.parametrize("number", [1, 30])
async def test_the_view_asks_as_often_for_many_tickets_as_for_one(desk: Desk, number: int) -> None:
    for one in range(number):
        await desk.ticket(f"Number {one}", criteria=[CRITERION], tasks=[{"title": "do"}])
    asked = 0

    def count(*_: Any) -> None:
        nonlocal asked
        asked += 1

    sa.event.listen(desk.database.reader.sync_engine, "before_cursor_execute", count)
    await desk.get("/board/view", project="p")
    assert asked <= 17
