"""A place that is left goes to its heir in the same transaction, and a free one to what a completed task lets start."""

import asyncio
from collections.abc import AsyncIterator
from contextvars import ContextVar
from pathlib import Path

import pytest
import sqlalchemy as sa

from shopfloor.events.models import EventRow
from shopfloor.forges.mirrors.mirror import Base
from shopfloor.kit.db import Database
from shopfloor.sandboxes.rules import SandboxState
from shopfloor.tasks import service
from shopfloor.tasks.steps import dispatch as steps
from shopfloor.tasks.steps.pick import successor
from shopfloor.workorders import queries as orders
from shopfloor.workorders.steps import Claimed
from tests.tasks.world import Claims, World, opened


@pytest.fixture
async def full(database: Database, database_url: str, tmp_path: Path) -> AsyncIterator[World]:
    """Two places, both taken."""
    async with opened(database_url, tmp_path, max_sandboxes=2) as world:
        project = await world.project()
        for _ in range(2):
            await world.task(project)
        assert len(await world.dispatched()) == 2
        yield world


async def leaving(world: World, number: int = 0, claims: Claims | None = None) -> str:
    """A sandbox whose heir is appointed; answers its id."""
    sandbox_id = (await world.show((await world.running())[number])).sandbox_id or ""
    await steps.appoint(world.tools, claims or world.claims, sandbox_id)
    return sandbox_id


async def leave(world: World, sandbox_id: str) -> None:
    await world.tools.leave(sandbox_id, SandboxState.TERMINATED)


async def free(world: World) -> bool:
    async with world.database.reading() as session:
        return await world.tools.sandboxes.has_place(session)


async def more(world: World, **fields: str) -> str:
    return await world.task((await world.show((await world.running())[0])).project_id, **fields)


async def fact(world: World, entity_id: str, after: str) -> EventRow:
    async with world.database.reading() as session:
        mine = EventRow.entity_id == entity_id, EventRow.payload.contains(f'"after":"{after}"')
        found: EventRow = (await session.scalars(sa.select(EventRow).where(*mine))).one()
        return found


async def test_the_heir_starts_in_the_transaction_that_frees_the_place(full: World) -> None:
    heir = await more(full)
    sandbox_id = await leaving(full)
    await leave(full, sandbox_id)
    left, taken = await fact(full, sandbox_id, "TERMINATED"), await fact(full, heir, "running")
    assert (left.id < taken.id, left.xid) == (True, taken.xid)
    assert not await free(full)


async def test_two_that_leave_have_different_heirs(full: World) -> None:
    heirs = [await more(full), await more(full)]
    for sandbox_id in [await leaving(full, 0), await leaving(full, 1)]:
        await leave(full, sandbox_id)
    assert await full.statuses(*heirs) == ["running", "running"]


async def test_a_task_changed_since_it_was_chosen_is_not_started_as_it_was(full: World) -> None:
    heir = await more(full, description="Do this")
    sandbox_id = await leaving(full)
    async with full.database.transaction() as session:
        await service.change(session, heir, full.tools.settings.scheduling, description="Do that")
    await leave(full, sandbox_id)
    async with full.database.reading() as session:
        order = await orders.get(session, (await full.show(heir)).work_order_id or "")
    assert "Do that" in order.initial_prompt


async def test_a_place_whose_heir_was_cancelled_goes_to_the_next(full: World) -> None:
    heir, other = await more(full), await more(full)
    sandbox_id = await leaving(full)
    async with full.database.transaction() as session:
        await service.cancel(session, heir)
    await leave(full, sandbox_id)
    assert await full.statuses(heir, other) == ["cancelled", "running"]


async def test_a_place_is_free_whose_heir_was_cancelled(full: World) -> None:
    heir = await more(full)
    sandbox_id = await leaving(full)
    async with full.database.transaction() as session:
        await service.cancel(session, heir)
    await leave(full, sandbox_id)
    assert await free(full)


class Broken(Claims):
    """An engine that cannot claim."""

    async def claim(self, session: object) -> None:
        raise RuntimeError("no")


async def test_a_place_is_free_whose_heir_cannot_be_claimed(full: World) -> None:
    heir = await more(full)
    sandbox_id = await leaving(full, claims=Broken(full.tools))
    await leave(full, sandbox_id)
    assert (await full.statuses(heir), await free(full)) == (["pending"], True)


async def test_the_heir_is_begun_in_no_context(full: World) -> None:
    """The engine's step that made room is not its parent: a workflow begun within another's step waits to be adopted."""
    step: ContextVar[str] = ContextVar("step", default="none")
    seen: list[str] = []

    class Seeing(Claims):
        def start(self, claimed: Claimed, looking: asyncio.Future[Base] | None = None) -> None:
            seen.append(step.get())
            super().start(claimed, looking)

    await more(full)
    sandbox_id = await leaving(full, claims=Seeing(full.tools))
    step.set("deliver")
    await leave(full, sandbox_id)
    assert seen == ["none"]


async def test_an_old_choice_counts_no_more(full: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came into the queue since is more urgent."""
    monkeypatch.setattr(steps, "CHOSEN_SECONDS", 0.0)
    heir = await more(full)
    sandbox_id = await leaving(full)
    urgent = await more(full, priority="critical")
    await leave(full, sandbox_id)
    assert await full.statuses(heir, urgent) == ["pending", "running"]


async def test_who_was_chosen_too_long_ago_is_not_passed_over(full: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "CHOSEN_SECONDS", 0.0)
    first, second = await more(full), await more(full)
    await leave(full, await leaving(full))
    assert await full.statuses(first, second) == ["running", "pending"]


async def test_a_sandbox_that_has_left_gets_no_heir(full: World) -> None:
    await more(full)
    sandbox_id = (await full.show((await full.running())[0])).sandbox_id or ""
    await leave(full, sandbox_id)
    await steps.appoint(full.tools, full.claims, sandbox_id)
    assert full.tools.heirs == {}


async def test_a_task_that_came_after_nobody_was_found_takes_the_place(full: World) -> None:
    sandbox_id = await leaving(full)
    heir = await more(full)
    await leave(full, sandbox_id)
    left, taken = await fact(full, sandbox_id, "TERMINATED"), await fact(full, heir, "running")
    assert left.xid == taken.xid


async def test_the_place_that_is_left_first_goes_to_the_only_one_who_waits(full: World) -> None:
    heir = await more(full)
    await leaving(full, 0)
    await leave(full, await leaving(full, 1))
    assert await full.statuses(heir) == ["running"]


async def test_a_place_is_free_when_the_next_order_would_be_refused(full: World) -> None:
    await more(full, agent="nobody")
    await leave(full, await leaving(full))
    assert await free(full)


async def ended(world: World, *, claims: Claims | None = None, autonomy: bool = True) -> tuple[str, str]:
    """A task ends, its place is free, its end is heard of; answers it and what waits for it."""
    project_id = await world.project(autonomy=autonomy)
    first = await world.task(project_id)
    after = await world.task(project_id, depends_on=[first])
    async with world.database.transaction() as session:
        await service.force(session, first)
    assert await world.dispatched() == [first]
    world.claims = claims or world.claims
    await world.ends(first)
    return first, after


async def test_what_waits_for_a_task_starts_in_the_transaction_that_completes_it(world: World) -> None:
    first, after = await ended(world)
    done, begun = await fact(world, first, "completed"), await fact(world, after, "running")
    assert (done.id < begun.id, done.xid) == (True, begun.xid)


async def test_what_waits_for_another_too_is_left_to_wait(world: World) -> None:
    project = await world.project()
    one, other = await world.task(project), await world.task(project)
    after = await world.task(project, depends_on=[one, other])
    await world.dispatched()
    await world.ends(one)
    assert await world.statuses(one, other, after) == ["completed", "running", "pending"]
    await world.ends(other)
    assert await world.statuses(after) == ["running"]


async def test_a_task_is_completed_though_what_waits_for_it_cannot_be_claimed(world: World) -> None:
    assert await world.statuses(*await ended(world, claims=Broken(world.tools))) == ["completed", "pending"]


async def test_nothing_starts_behind_a_completed_task_where_autonomy_is_off(world: World) -> None:
    assert await world.statuses(*await ended(world, autonomy=False)) == ["completed", "pending"]


async def test_nothing_starts_behind_a_completed_task_without_a_place(full: World) -> None:
    first = (await full.running())[0]
    await more(full)
    after = await full.task((await full.show(first)).project_id, depends_on=[first])
    await leaving(full)
    await full.ends(first)
    assert await full.statuses(first, after) == ["completed", "pending"]


async def test_what_waits_for_a_tasks_work_to_be_gathered_is_not_tried_before(world: World) -> None:
    project = await world.project()
    first = await world.task(project, ticket_id="tkt-1")
    same = await world.task(project, ticket_id="tkt-1", depends_on=[first])
    other = await world.task(project, ticket_id="tkt-2", depends_on=[first])
    async with world.database.reading() as session:
        found = await successor(session, await world.show(first))
    assert (found.task.task_id if found else None, await world.statuses(same)) == (other, ["pending"])
