"""Limits of a task: how long its sandboxes run, how much an agent is told."""

import httpx
import pytest

from shopfloor.workorders import queries as orders
from shopfloor.workorders.schemas import LONGEST_PROMPT
from tests.tasks.test_routes import ask, make
from tests.tasks.world import World


@pytest.fixture
async def project(world: World) -> str:
    return await world.project()


async def test_a_time_limit_that_is_taken_back_is_the_servers_again(
    client: httpx.AsyncClient, world: World, project: str
) -> None:
    """TSK-09, TSK-10: of a running task too."""
    task_id = (await make(client, timeout_seconds=60))["task_id"]
    await world.dispatched()
    await ask(client, "PATCH", f"/tasks/{task_id}", json={"timeout_seconds": None})
    async with world.database.reading() as session:
        order = await orders.get(session, (await world.show(task_id)).work_order_id or "")
    usual = world.tools.settings.work_order_timeout_seconds
    shown = await ask(client, "GET", f"/tasks/{task_id}/timeout-status")
    assert (order.timeout_seconds, shown["timeout_seconds"]) == (usual, usual)


async def test_while_a_task_runs_its_orders_time_is_its_own(
    client: httpx.AsyncClient, world: World, project: str
) -> None:
    """TSK-09, TSK-13: what is said of a task is what ends it."""
    task_id = (await make(client, timeout_seconds=60))["task_id"]
    await world.dispatched()
    async with world.database.transaction() as session:
        (await orders.locked(session, (await world.show(task_id)).work_order_id or "")).timeout_seconds = 1e-6
    assert (await ask(client, "GET", f"/tasks/{task_id}/timeout-status"))["timed_out"] is True
    assert (await ask(client, "GET", "/tasks/timed-out"))["total_count"] == 1


async def test_a_task_with_more_words_than_an_order_takes_starts(world: World, project: str) -> None:
    task_id = await world.task(project, description="x" * 200_000)
    assert await world.dispatched() == [task_id]
    async with world.database.reading() as session:
        order = await orders.get(session, (await world.show(task_id)).work_order_id or "")
    assert len(order.initial_prompt) == LONGEST_PROMPT
    assert order.initial_prompt.endswith("left out.)")


@pytest.mark.parametrize("words", [{"description": "x" * 90_001}, {"description": ""}])
async def test_a_tickets_tasks_are_refused_that_could_never_start(
    client: httpx.AsyncClient, project: str, words: dict[str, str]
) -> None:
    """TKT-01: with too many words, or without any."""
    await ask(client, "POST", "/tickets", 422, json={"project": "p", "title": "A card", "tasks": [words]})
