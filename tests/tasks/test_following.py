"""A task stands where its order says: retries, cancels, timeouts, and what a crash left (on real databases)."""

from typing import Any

import pytest

from shopfloor.projects import service as projects
from shopfloor.tasks import queries, service
from shopfloor.tasks.service import TaskEnded, TaskNotEnded, TaskRunning
from shopfloor.workorders import queries as orders
from shopfloor.workorders import service as workorders
from shopfloor.workorders.rules import AttemptState, OrderStatus
from tests.tasks.world import DONE, World

FAILED, LOST = AttemptState.FAILED, AttemptState.LOST


async def started(world: World, **fields: object) -> str:
    task_id = await world.task(await world.project(), **fields)
    assert await world.dispatched() == [task_id]
    return task_id


async def again(world: World, task_id: str) -> None:
    """Let the back-off be over, and start the task once more."""
    async with world.database.transaction() as session:
        await service.force(session, task_id)
    assert await world.dispatched() == [task_id]


async def test_a_completed_order_completes_its_task(world: World) -> None:
    task = await world.ends(await started(world))
    assert (task.status, task.ended_at is not None) == ("completed", True)


async def test_a_failed_order_is_tried_again_as_the_same_order_which_is_told_why(world: World) -> None:
    """W12: retry belongs to the platform; what was committed is kept."""
    task_id = await started(world, max_retries=1)
    before = await world.show(task_id)
    task = await world.ends(task_id, FAILED, reason="the tests are red")
    assert (task.status, task.retries, "the tests are red" in task.reason) == ("pending", 1, True)
    assert task.not_before is not None
    await again(world, task_id)
    after = await world.show(task_id)
    async with world.database.reading() as session:
        order = await orders.get(session, after.work_order_id or "")
    assert (after.work_order_id, order.attempts) == (before.work_order_id, 2)
    assert "the tests are red" in order.prompts[-1]


async def test_a_task_fails_once_its_tries_are_used(world: World) -> None:
    task_id = await started(world, max_retries=1)
    await world.ends(task_id, FAILED)
    await again(world, task_id)
    task = await world.ends(task_id, FAILED, reason="still red")
    assert (task.status, task.reason) == ("failed", "still red")


@pytest.mark.parametrize("reason", ["ran longer than the 60 s allowed", "key_missing: no key. Set it."])
async def test_what_would_only_come_again_is_not_tried_again(world: World, reason: str) -> None:
    task = await world.ends(await started(world), FAILED, reason=reason)
    assert (task.status, task.retries) == ("failed", 0)


async def test_a_lost_attempt_is_the_orders_own_business(world: World) -> None:
    task = await world.ends(await started(world), LOST)
    assert (task.status, task.retries) == ("running", 0)


async def test_the_next_attempts_sandbox_becomes_the_tasks(world: World) -> None:
    """LIF-06"""
    task_id = await started(world)
    first = (await world.show(task_id)).sandbox_id
    await world.ends(task_id, LOST)
    async with world.database.transaction() as session:
        order = await orders.locked(session, (await queries.get(session, task_id)).work_order_id or "")
        order.not_before = order.created_at
        await session.flush()
        assert await world.claims.claim(session)
    second = (await world.follow(task_id)).sandbox_id
    assert (second != first, str(second).endswith("-2")) == (True, True)


async def test_a_waiting_task_is_cancelled_at_once(world: World) -> None:
    task_id = await world.task(await world.project())
    async with world.database.transaction() as session:
        assert (await service.cancel(session, task_id, reason="not wanted")).status == "cancelled"
    assert await world.dispatched() == []


async def test_cancelling_a_running_task_stops_its_agent_first(world: World) -> None:
    """TSK-08: cancelled is said when it is true."""
    task_id = await started(world)
    async with world.database.transaction() as session:
        task = await service.cancel(session, task_id, reason="not wanted")
        order = await orders.get(session, task.work_order_id or "")
    assert (task.status, order.cancel_requested_at is not None) == ("running", True)
    task = await world.ends(task_id, AttemptState.CANCELLED)
    assert (task.status, task.reason) == ("cancelled", "not wanted")


@pytest.mark.parametrize(("end", "status"), [(DONE, "completed"), ((FAILED,), "cancelled")])
async def test_cancelling_what_has_just_ended_tells_the_truth(
    world: World, end: tuple[AttemptState, ...], status: str
) -> None:
    """What was delivered is completed; what failed is not tried again."""
    task_id = await started(world)
    await world.ends(task_id, *end, heard=False)
    async with world.database.transaction() as session:
        assert (await service.cancel(session, task_id, reason="not wanted")).status == status


async def test_cancelling_between_two_attempts_needs_no_agent(world: World) -> None:
    task_id = await started(world)
    await world.ends(task_id, LOST)
    async with world.database.transaction() as session:
        task = await service.cancel(session, task_id, reason="not wanted")
    assert (task.status, task.reason) == ("cancelled", "not wanted")


async def test_a_task_that_was_stopped_for_its_time_fails(world: World) -> None:
    """TSK-15"""
    task_id = await started(world)
    async with world.database.transaction() as session:
        await service.time_out(session, task_id, reason="ran 70 s, longer than allowed")
    task = await world.ends(task_id, AttemptState.CANCELLED)
    assert (task.status, task.reason) == ("failed", "ran 70 s, longer than allowed")


async def test_a_late_or_repeated_end_revives_nothing(world: World) -> None:
    """W16"""
    task_id = await started(world)
    await world.ends(task_id)
    for _ in range(2):
        assert (await world.follow(task_id)).status == "completed"
    async with world.database.transaction() as session:
        with pytest.raises(TaskEnded):
            await service.cancel(session, task_id)


async def test_a_completed_task_is_not_retried_nor_one_that_runs(world: World) -> None:
    task_id = await started(world)
    with pytest.raises(TaskNotEnded):
        async with world.database.transaction() as session:
            await service.retry(session, task_id, reason="", scheduling=world.tools.settings.scheduling)
    await world.ends(task_id)
    with pytest.raises(TaskEnded):
        async with world.database.transaction() as session:
            await service.retry(session, task_id, reason="", scheduling=world.tools.settings.scheduling)


async def test_a_task_retried_afresh_gets_a_new_order(world: World) -> None:
    task_id = await started(world, max_retries=0)
    first = (await world.ends(task_id, FAILED)).work_order_id
    async with world.database.transaction() as session:
        scheduling = world.tools.settings.scheduling
        await service.retry(session, task_id, reason="another way", scheduling=scheduling, afresh=True)
    assert await world.dispatched() == [task_id]
    assert (await world.show(task_id)).work_order_id not in {None, first}


async def test_a_task_follows_an_order_that_a_person_let_go_on(world: World) -> None:
    task_id = await started(world, max_retries=0)
    await world.ends(task_id, FAILED)
    async with world.database.transaction() as session:
        order = await orders.locked(session, (await queries.get(session, task_id)).work_order_id or "")
        await workorders.retry(session, order, prompt="", agent=None, model=None, account=None)
    assert (await world.follow(task_id)).status == "running"


async def test_a_try_goes_on_with_what_was_changed_since(world: World) -> None:
    task_id = await started(world, max_retries=0, base_branch="old")
    await world.ends(task_id, FAILED)
    scheduling = world.tools.settings.scheduling
    wanted: dict[str, Any] = {
        "agent_options": {"script": []},
        "workflow_type": "agent_workflow_plan",
        "base_branch": "new",
    }
    async with world.database.transaction() as session:
        task = await service.change(session, task_id, scheduling, **wanted)
        await projects.change(session, task.project_id, work_order_budget_usd=3.0)
        await service.retry(session, task_id, reason="", scheduling=scheduling)
        (await orders.locked(session, task.work_order_id or "")).budget_usd = 2.0
    assert await world.dispatched() == [task_id]
    async with world.database.reading() as session:
        order = await orders.get(session, (await queries.get(session, task_id)).work_order_id or "")
    assert {name: getattr(order, name) for name in wanted} == wanted
    assert order.budget_usd == 3.0


async def test_what_a_crash_left_behind_is_found(world: World) -> None:
    """W08, W12: nothing is judged by its age; a task whose order ended unheard is found by the order."""
    task_id = await started(world)
    task = await world.show(task_id)
    async with world.database.transaction() as session:
        order = await orders.locked(session, task.work_order_id or "")
        await workorders.move(session, order, OrderStatus.COMPLETED, reason="delivered")
    async with world.database.reading() as session:
        assert await queries.astray(session) == [task.work_order_id]
    await world.follow(task_id)
    async with world.database.reading() as session:
        assert await queries.astray(session) == []


async def test_what_an_agent_is_told_is_not_changed_while_it_runs(world: World) -> None:
    task_id = await started(world)
    scheduling = world.tools.settings.scheduling
    async with world.database.transaction() as session:
        with pytest.raises(TaskRunning):
            await service.change(session, task_id, scheduling, description="something else")
    async with world.database.transaction() as session:
        task = await service.change(session, task_id, scheduling, timeout_seconds=5.0)
        assert (await orders.get(session, task.work_order_id or "")).timeout_seconds == 5.0
