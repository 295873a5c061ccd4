"""No door lets an agent work for a ticket that does not allow it: not the retry of a task or work order, not the asking for a title."""

from typing import Any

import pytest

from shopfloor.tasks.steps.dispatch import dispatch, follow
from shopfloor.workorders import queries as orders
from shopfloor.workorders import service as workorders
from shopfloor.workorders.rules import AttemptState
from shopfloor.workorders.steps.conclude import decide
from tests.board.desk import Desk
from tests.tasks.world import Claims


async def at_work(desk: Desk) -> tuple[str, dict[str, Any]]:
    """A ticket in building with a task that runs."""
    await desk.project(autonomy=True)
    ticket = await desk.ticket(criteria=[{"text": "It holds"}], tasks=[{"title": "do"}])
    for _ in range(2):
        await desk.post(f"/tickets/{ticket}/progress")
    assert await dispatch(desk.tools, Claims(desk.tools))
    return ticket, await task_of(desk, ticket)


async def task_of(desk: Desk, ticket: str) -> dict[str, Any]:
    (task,) = (await desk.get("/tasks", ticket=ticket))["tasks"]
    return dict(task)


async def fails(desk: Desk, task: dict[str, Any]) -> None:
    """The task's order fails; nobody has followed it yet."""
    async with desk.database.transaction() as session:
        order = await orders.locked(session, task["work_order_id"])
        attempt = await orders.current_attempt(session, order.agent_work_order_id)
        assert attempt
        await workorders.step_attempt(session, attempt, AttemptState.FAILED, reason="broke")
        await decide(session, order, attempt)


async def ended(desk: Desk) -> tuple[str, dict[str, Any]]:
    """A ticket in building with a task that failed for good, by its order."""
    ticket, task = await at_work(desk)
    await fails(desk, task)
    await desk.post(f"/tasks/{task['task_id']}/cancel")
    return ticket, await task_of(desk, ticket)


async def test_a_task_of_an_archived_ticket_is_not_retried(desk: Desk) -> None:
    ticket, task = await ended(desk)
    await desk.call("DELETE", f"/tickets/{ticket}", expect=204)
    refused = await desk.post(f"/tasks/{task['task_id']}/retry", expect=409)
    assert refused["code"] == "ticket_archived_already"


@pytest.mark.parametrize("door", ["block", "regress"])
async def test_a_retried_task_is_held_while_its_ticket_is(desk: Desk, door: str) -> None:
    ticket, task = await ended(desk)
    await desk.post(f"/tickets/{ticket}/{door}", {})
    again = await desk.post(f"/tasks/{task['task_id']}/retry")
    assert (again["status"], again["held"]) == ("pending", True)
    assert "its ticket is" in again["reason"]
    assert not await dispatch(desk.tools, Claims(desk.tools))


async def test_a_retried_task_of_a_ticket_that_lets_it_is_not_held(desk: Desk) -> None:
    _, task = await ended(desk)
    again = await desk.post(f"/tasks/{task['task_id']}/retry")
    assert (again["held"], again["reason"]) == (False, "retry asked for")


async def test_a_running_task_of_a_ticket_that_went_back_is_not_tried_again_by_itself(desk: Desk) -> None:
    ticket, task = await at_work(desk)
    await desk.post(f"/tickets/{ticket}/regress", {})
    await fails(desk, task)
    await follow(desk.tools, Claims(desk.tools), task["work_order_id"])
    again = await task_of(desk, ticket)
    assert (again["status"], again["retries"], again["held"]) == ("pending", 1, True)
    await desk.post(f"/tickets/{ticket}/progress", {})
    assert (await task_of(desk, ticket))["held"] is False


@pytest.mark.parametrize(("door", "code"), [("archive", "ticket_archived_already"), ("block", "ticket_holds")])
async def test_a_work_order_does_not_go_on_against_its_ticket(desk: Desk, door: str, code: str) -> None:
    ticket, task = await ended(desk)
    if door == "archive":
        await desk.call("DELETE", f"/tickets/{ticket}", expect=204)
    else:
        await desk.post(f"/tickets/{ticket}/block", {})
    refused = await desk.post(f"/agent-work-orders/{task['work_order_id']}/retry", expect=409)
    assert refused["code"] == code


async def test_a_work_order_goes_on_by_a_persons_word_when_its_ticket_lets_it(desk: Desk) -> None:
    _, task = await ended(desk)
    await desk.post(f"/agent-work-orders/{task['work_order_id']}/retry")
    async with desk.database.reading() as session:
        assert (await orders.get(session, task["work_order_id"])).status == "pending"


async def test_no_agent_is_asked_for_a_title_before_approval(desk: Desk) -> None:
    await desk.project()
    ticket = await desk.ticket(require_approval=True, tasks=[{"title": "do", "description": "Do it"}])
    task = await task_of(desk, ticket)
    refused = await desk.post(f"/tasks/{task['task_id']}/generate-title", {"agent": "script"}, expect=409)
    assert refused["code"] == "ticket_holds"
