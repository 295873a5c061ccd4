"""Titles that are made: no words of a task are lost for one."""

import httpx
import pytest
import sqlalchemy as sa

from shopfloor.tasks.rules import UNTITLED
from shopfloor.tasks.steps.titles import take_titles
from shopfloor.workorders.models import WorkOrder
from tests.tasks.test_routes import ask, make
from tests.tasks.world import World

pytestmark = pytest.mark.usefixtures("project")


@pytest.fixture
async def project(world: World) -> str:
    return await world.project()


async def asked(client: httpx.AsyncClient, task_id: str, **body: object) -> str:
    """An agent is asked for a title; answers the work order."""
    wish = {"agent": "script", "task_ids": [task_id], **body}
    (only,) = (await ask(client, "POST", "/tasks/generate-titles", json=wish))["titles"]
    return str(only["work_order_id"])


async def answered(world: World, order_id: str, answer: str) -> None:
    async with world.database.transaction() as session:
        mine = sa.update(WorkOrder).where(WorkOrder.agent_work_order_id == order_id)
        await session.execute(mine.values(status="completed", answer=answer))
    await take_titles(world.tools)


async def test_a_task_without_a_description_keeps_its_title(client: httpx.AsyncClient, world: World) -> None:
    """TSK-11, TSK-16: the title is all that its agent is told."""
    task_id = (await make(client, title="Mend the gate", description=""))["task_id"]
    assert (await ask(client, "POST", f"/tasks/{task_id}/generate-title"))["title"] == "Mend the gate"
    await ask(client, "POST", "/tasks/generate-titles", json={"task_ids": [task_id]})
    assert (await world.show(task_id)).title == "Mend the gate"


async def test_a_title_stays_until_the_agent_that_was_asked_has_answered(
    client: httpx.AsyncClient, world: World
) -> None:
    """TSK-16"""
    task_id = (await make(client, title="Mine"))["task_id"]
    order_id = await asked(client, task_id)
    assert (await world.show(task_id)).title == "Mine"
    await answered(world, order_id, "A better one\n")
    assert (await world.show(task_id)).title == "A better one"


async def test_an_answer_without_words_is_no_title(client: httpx.AsyncClient, world: World) -> None:
    task_id = (await make(client, title="Mine"))["task_id"]
    await answered(world, await asked(client, task_id), "***\n")
    assert (await world.show(task_id)).title == "Mine"


async def test_an_agent_is_asked_about_the_title_where_there_is_nothing_else(
    client: httpx.AsyncClient, world: World
) -> None:
    task_id = (await make(client, title="gate mending thing", description=""))["task_id"]
    order_id = await asked(client, task_id)
    async with world.database.reading() as session:
        assert "gate mending thing" in (await session.get_one(WorkOrder, order_id)).initial_prompt


async def test_an_agent_is_asked_about_a_very_long_description(client: httpx.AsyncClient, world: World) -> None:
    task_id = await world.task(
        (await world.show((await make(client))["task_id"])).project_id, description="x" * 120_000
    )
    assert (await asked(client, task_id)).startswith("wo-")


@pytest.mark.parametrize("words", [{}, {"title": " "}, {"description": " --- "}])
async def test_a_task_without_words_is_refused(client: httpx.AsyncClient, words: dict[str, str]) -> None:
    """TSK-01: nobody is paid to do an untitled task."""
    await make(client, 422, **{"description": ""} | words)


async def test_what_has_no_title_is_named_by_its_description(client: httpx.AsyncClient, world: World) -> None:
    task_id = (await make(client, title=UNTITLED))["task_id"]
    await ask(client, "POST", "/tasks/generate-titles", json={})
    assert (await world.show(task_id)).title == "Do it"


@pytest.mark.parametrize("agent", [{}, {"agent": "script"}])
async def test_of_tasks_that_are_named_all_get_a_title_or_none(
    client: httpx.AsyncClient, world: World, agent: dict[str, str]
) -> None:
    """TSK-16"""
    task_id = (await make(client, title="Mine", description="Oil the door"))["task_id"]
    wish = {"task_ids": [task_id, "tsk-nobody"], **agent}
    assert (await ask(client, "POST", "/tasks/generate-titles", 404, json=wish))["code"] == "task_not_found"
    async with world.database.reading() as session:
        orders = await session.scalar(sa.select(sa.func.count()).select_from(WorkOrder))
    assert ((await world.show(task_id)).title, orders) == ("Mine", 0)
