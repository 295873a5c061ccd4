"""What waits for what: circles, projects, counts; on real databases, by many at once (W19)."""

import asyncio

import httpx
import pytest

from shopfloor.kit.errors import Conflict
from shopfloor.tasks import graph, queries
from shopfloor.tasks.graph import CircularDependency, ForeignDependency, TooLate
from shopfloor.tasks.queries import TaskNotFound
from tests.tasks.world import World


async def depend(world: World, task_id: str, *others: str) -> None:
    async with world.database.transaction() as session:
        await graph.depend(session, await graph.locked(session, task_id), others)


async def test_a_task_cannot_wait_for_itself(world: World) -> None:
    """W19"""
    task_id = await world.task(await world.project())
    with pytest.raises(CircularDependency):
        await depend(world, task_id, task_id)


async def test_two_tasks_cannot_wait_for_each_other(world: World) -> None:
    """W19: also when neither has any dependency yet."""
    project = await world.project()
    one, two = await world.task(project), await world.task(project)
    await depend(world, one, two)
    with pytest.raises(CircularDependency) as refused:
        await depend(world, two, one)
    assert refused.value.facts["circle"] == [two, one, two]


async def test_two_requests_at_once_close_no_circle(world: World) -> None:
    """W19: the check and the write are one step."""
    project = await world.project()
    for _ in range(5):
        tasks = [await world.task(project) for _ in range(4)]
        ring = [depend(world, one, two) for one, two in zip(tasks, tasks[1:] + tasks[:1], strict=True)]
        ends = await asyncio.gather(*ring, return_exceptions=True)
        assert sorted(type(end).__name__ for end in ends if end) == ["CircularDependency"]


async def test_a_long_way_round_is_a_circle(world: World) -> None:
    project = await world.project()
    tasks = [await world.task(project)]
    for _ in range(30):
        tasks.append(await world.task(project, depends_on=[tasks[-1]]))
    with pytest.raises(CircularDependency) as refused:
        await depend(world, tasks[0], tasks[-1])
    assert refused.value.facts["circle"] == [tasks[0], *reversed(tasks)]


async def test_a_diamond_is_no_circle(world: World) -> None:
    project = await world.project()
    top = await world.task(project)
    left, right = await world.task(project, depends_on=[top]), await world.task(project, depends_on=[top])
    bottom = await world.task(project, depends_on=[left, right])
    assert (await world.show(bottom)).open_dependencies == 2


async def test_tasks_of_two_projects_do_not_wait_for_each_other(world: World) -> None:
    one, two = await world.task(await world.project("a")), await world.task(await world.project("b"))
    with pytest.raises(ForeignDependency):
        await depend(world, one, two)


async def test_nobody_waits_for_what_does_not_exist(world: World) -> None:
    """W17"""
    with pytest.raises(TaskNotFound):
        await depend(world, await world.task(await world.project()), "TSK-001")


async def test_a_task_that_runs_cannot_begin_to_wait(world: World) -> None:
    project = await world.project()
    task_id = await world.task(project)
    await world.dispatched()
    with pytest.raises(TooLate):
        await depend(world, task_id, await world.task(project))


async def test_replacing_and_removing_keep_the_count_true(world: World) -> None:
    project = await world.project()
    first, second, third = [await world.task(project) for _ in range(3)]
    task_id = await world.task(project, depends_on=[first, second])
    async with world.database.transaction() as session:
        await graph.replace(session, await graph.locked(session, task_id), [second, third])
    assert (await world.show(task_id)).open_dependencies == 2
    async with world.database.transaction() as session:
        await graph.remove(session, await graph.locked(session, task_id), third)
        assert [one.task_id for one in await queries.dependencies(session, task_id)] == [second]
    assert (await world.show(task_id)).open_dependencies == 1


async def test_ends_at_once_leave_the_count_true(world: World) -> None:
    """Many completions of one moment, and somebody who begins to wait meanwhile."""
    project = await world.project()
    first = [await world.task(project) for _ in range(4)]
    last = [await world.task(project, depends_on=first) for _ in range(3)]
    await world.dispatched()
    later = await world.task(project)

    async def join() -> None:
        try:
            await depend(world, later, *first)
        except Conflict:
            raise AssertionError from None

    await asyncio.gather(*(world.ends(task_id) for task_id in first), join())
    assert [(await world.show(task_id)).open_dependencies for task_id in [*last, later]] == [0, 0, 0, 0]


async def test_the_graph_shows_titles_and_edges_and_is_hostile_to_nobody(
    world: World, client: httpx.AsyncClient
) -> None:
    """OTH-01"""
    project = await world.project()
    first = await world.task(project, title='"]; click x "javascript:alert(1)')
    second = await world.task(project, ticket_id="tkt-1", depends_on=[first])
    shown = (await client.get(f"/graph/dependency-graph/task/{first}")).json()
    assert [node["task_id"] for node in shown["nodes"]] == [first, second]
    assert shown["edges"] == [{"task_id": second, "depends_on": first}]
    text = (await client.get("/graph/dependency-graph/project/p", params={"format": "mermaid"})).text
    assert "t0 --> t1" in text
    assert '"]; click' not in text
    assert len((await client.get("/graph/dependency-graph/ticket/tkt-1")).json()["nodes"]) == 1
