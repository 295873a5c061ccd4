"""Which task starts, when, and what keeps one back; on real databases."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from shopfloor.kit.db import Database
from shopfloor.projects import service as projects
from shopfloor.tasks import service
from shopfloor.tasks.models import Task
from shopfloor.tasks.steps import dispatch as steps
from shopfloor.tasks.steps.dispatch import dispatch
from shopfloor.tasks.steps.pick import Candidate, pick
from shopfloor.workorders import queries as orders
from shopfloor.workorders import service as workorders
from shopfloor.workorders.models import WorkOrder
from shopfloor.workorders.rules import AttemptState
from shopfloor.workorders.steps.terms import terms
from tests.tasks.world import Claims, World, opened


async def test_a_task_its_order_and_the_place_are_one_step(world: World) -> None:
    """ORC-02: the task runs with an order of its own, in a sandbox that is written down."""
    task_id = await world.task(await world.project(), description="Do it.")
    await world.dispatched()
    task = await world.show(task_id)
    async with world.database.reading() as session:
        order = await orders.get(session, task.work_order_id or "")
    assert (task.status, order.task_id, order.status) == ("running", task_id, "running")
    assert task.sandbox_id == order.sandbox_identifier


async def test_only_an_autonomous_project_starts_by_itself_unless_forced(world: World) -> None:
    project = await world.project(autonomy=False)
    waits, forced = await world.task(project), await world.task(project)
    async with world.database.transaction() as session:
        await service.force(session, forced)
    assert await world.dispatched() == [forced]
    assert await world.statuses(waits) == ["pending"]


async def test_many_dispatchers_start_each_task_once_and_never_exceed_the_hosts_cap(world: World) -> None:
    """W08, W09: several engines, one order per task, as many as there are places."""
    project = await world.project()
    for _ in range(8):
        await world.task(project)
    engines = [Claims(world.tools, f"engine-{n}") for n in range(6)]
    await asyncio.gather(*(dispatch(world.tools, engine) for engine in engines for _ in range(3)))
    running = await world.running()
    async with world.database.reading() as session:
        owners = (await session.scalars(sa.select(WorkOrder.task_id))).all()
    assert len(running) <= world.tools.settings.max_sandboxes
    assert sorted(o for o in owners if o) == sorted(running)
    assert len(await world.dispatched()) == world.tools.settings.max_sandboxes


async def test_a_projects_cap_holds_and_lets_another_projects_task_pass(world: World) -> None:
    """W09: the cap is counted in the claim, and the next task is taken instead."""
    capped, free = await world.project("a", max_running_tasks=1), await world.project("b")
    first = [await world.task(capped, priority="critical") for _ in range(3)]
    other = await world.task(free, priority="low")
    await asyncio.gather(*(dispatch(world.tools, Claims(world.tools, f"e{n}")) for n in range(6)))
    assert await world.dispatched() == [first[0], other]


async def test_an_agents_cap_holds(database: Database, database_url: str, tmp_path: Path) -> None:
    agents = {"one": {"adapter": "script", "max_running": 1}}
    async with opened(database_url, tmp_path, agents=agents) as world:
        project = await world.project()
        mine = [await world.task(project, agent="one") for _ in range(3)]
        other = await world.task(project, agent="script")
        assert sorted(await world.dispatched()) == sorted([mine[0], other])


async def test_tasks_that_may_touch_the_same_files_do_not_run_together(world: World) -> None:
    project = await world.project()
    first = await world.task(project, owned_paths=["src/billing/**"])
    second = await world.task(project, owned_paths=["src/billing/tax.py"])
    third = await world.task(project, owned_paths=["docs/*.md"])
    assert await world.dispatched() == [first, third]
    await world.ends(first)
    assert await world.dispatched() == [third, second]


async def test_a_task_starts_only_when_everything_it_waits_for_is_completed(world: World) -> None:
    """W17: dependencies are ids of tasks, kept by the database."""
    project = await world.project()
    first, second = await world.task(project), await world.task(project)
    last = await world.task(project, depends_on=[first, second], priority="critical")
    assert await world.dispatched() == [first, second]
    await world.ends(first)
    assert (await world.show(last)).open_dependencies == 1
    await world.ends(second)
    assert await world.dispatched() == [last]


async def test_a_held_task_waits_until_its_ticket_lets_it_start(world: World) -> None:
    project = await world.project()
    task_id = await world.task(project, ticket_id="tkt-1", held=True)
    assert await world.dispatched() == []
    async with world.database.transaction() as session:
        assert await service.hold(session, "tkt-1", held=False, why="") == [task_id]
    assert await world.dispatched() == [task_id]


async def test_a_task_that_is_held_while_it_runs_is_not_tried_again_until_it_is_let(world: World) -> None:
    """Nothing costly starts for a ticket that was rejected or moved back meanwhile."""
    project = await world.project()
    task_id = await world.task(project, ticket_id="tkt-1")
    assert await world.dispatched() == [task_id]
    for held, then in ((True, []), (False, [task_id])):
        async with world.database.transaction() as session:
            await service.hold(session, "tkt-1", held=held, why="rejected")
        if held:
            assert (await world.ends(task_id, AttemptState.FAILED)).status == "pending"
            async with world.database.transaction() as session:
                await service.force(session, task_id)
        assert await world.dispatched() == then


async def test_priorities_are_known_in_any_case_and_go_first(world: World) -> None:
    """W21: a priority in lower or upper case is the same."""
    project = await world.project(max_running_tasks=1)
    low, high = await world.task(project, priority="Low"), await world.task(project, priority="CRITICAL")
    assert await world.dispatched() == [high]
    await world.ends(high)
    assert await world.dispatched() == [low]


async def test_a_low_priority_that_has_waited_long_enough_is_next(world: World) -> None:
    """Ageing: who was born a head start earlier stands before a critical one of now."""
    project = await world.project(max_running_tasks=1)
    born = datetime.now(UTC) - timedelta(hours=5)
    await world.task(project, priority="critical")
    old = await world.task(project, priority="low", created_at=born)
    assert await world.dispatched() == [old]


async def test_a_deadline_that_comes_near_goes_first(world: World) -> None:
    project = await world.project(max_running_tasks=1)
    await world.task(project, priority="medium")
    urgent = await world.task(project, priority="low", deadline=datetime.now(UTC) - timedelta(hours=2))
    assert await world.dispatched() == [urgent]


async def test_an_older_order_is_not_passed_by_and_none_piles_up(world: World) -> None:
    """What a task's claim starts in its stead leaves as many orders waiting as before."""
    project = await world.project()
    async with world.database.transaction() as session:
        wish: dict[str, Any] = {
            "repository_url": "/r",
            "workflow_type": "agent_workflow_build",
            "sandbox_type": "local",
        }
        more = {"agent": "script", "max_attempts": 3, "timeout_seconds": 60.0}
        await workorders.create(session, **wish | more)
    for _ in range(10):
        await world.task(project)
    running = await world.dispatched()
    async with world.database.reading() as session:
        waiting = await session.scalar(sa.select(sa.func.count()).where(WorkOrder.status == "pending"))
    assert (len(running), waiting) == (4, 1)


async def test_what_cannot_be_started_waits_and_says_why(world: World) -> None:
    project = await world.project(sandbox_type="git_branch")
    task_id, other = await world.task(project), await world.task(await world.project("b"))
    assert await world.dispatched() == [other]
    task = await world.show(task_id)
    assert (task.status, "isolation" in task.reason) == ("pending", True)
    assert task.not_before is not None


async def test_a_task_that_nobody_can_make_an_order_of_stops_no_other(world: World) -> None:
    """The queue outlives a task that the code did not foresee."""
    project = await world.project()
    bad = await world.task(project, priority="critical", timeout_seconds=-1.0)
    good = await world.task(project)
    assert await world.dispatched() == [good]
    assert (await world.show(bad)).reason.startswith("cannot be started: internal error")


@pytest.mark.parametrize("then", ["cancel", "hold", "autonomy"])
async def test_nothing_is_started_that_was_stopped_between_choice_and_claim(world: World, then: str) -> None:
    project = await world.project()
    task_id = await world.task(project, ticket_id="tkt-1")

    class Late(Claims):
        async def claim(self, session: object) -> object:  # type: ignore[override]
            raise AssertionError("nothing may be claimed")

    async with world.database.reading() as session:
        chosen = await pick(session, world.tools.settings)
    assert chosen
    async with world.database.transaction() as session:
        if then == "cancel":
            await service.cancel(session, task_id)
        elif then == "hold":
            await service.hold(session, "tkt-1", held=True, why="")
        else:
            await projects.change(session, project, autonomy=False)
    async with world.database.transaction() as session:
        assert await steps._start(world.tools, session, Late(world.tools), steps.Choice(chosen, {})) is None  # type: ignore[arg-type]
    async with world.database.reading() as session:
        assert await session.scalar(sa.select(sa.func.count()).select_from(WorkOrder)) == 0
        assert (await session.get_one(Task, task_id)).status != "running"


@pytest.mark.parametrize("law", ["project", "agent", "paths", "host"])
async def test_engines_that_chose_apart_break_no_cap_together(
    database: Database, database_url: str, tmp_path: Path, law: str
) -> None:
    """W09: what was chosen without the lock is judged again under it."""
    agents = {"one": {"adapter": "script", "max_running": 1 if law == "agent" else None}}
    async with opened(database_url, tmp_path, agents=agents, max_sandboxes=1 if law == "host" else 4) as world:
        project = await world.project(agent="one", max_running_tasks=1 if law == "project" else None)
        paths = ["src/**"] if law == "paths" else []
        chosen = []
        for priority in ("low", "critical"):
            await world.task(project, priority=priority, owned_paths=paths)
            async with world.database.reading() as session:
                chosen.append(await pick(session, world.tools.settings))
        assert chosen[0]
        assert chosen[1]
        assert chosen[0].task.task_id != chosen[1].task.task_id
        assert [await begun(world, one) for one in chosen if one] == [True, False]


async def begun(world: World, chosen: Candidate) -> bool:
    """Whether an engine could start what it chose a while ago."""
    choice = steps.Choice(chosen, await terms(world.tools, steps._asked(chosen)))
    try:
        async with world.database.transaction() as session:
            return await steps._start(world.tools, session, world.claims, choice) is not None
    except steps.NoPlace:
        return False
