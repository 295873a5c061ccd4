"""Why a task stands where it stands: the facts behind it, and what would change it."""

from typing import Any

import sqlalchemy as sa

from shopfloor.events.models import EventRow
from shopfloor.kit.clock import iso
from shopfloor.kit.db import Session
from shopfloor.projects.models import Project
from shopfloor.tasks import queries
from shopfloor.tasks.models import Task
from shopfloor.tasks.rules import ENDED, TaskStatus
from shopfloor.tasks.steps.pick import full, load, obstacle
from shopfloor.workorders.queries import moment
from shopfloor.workorders.steps import Tools
from shopfloor.workorders.steps.explain import evidence
from shopfloor.workorders.steps.explain import explain as explain_order


async def explain(tools: Tools, task_id: str) -> dict[str, Any]:
    """State, since, reason, evidence (event positions) and what would change it."""
    async with tools.database.reading() as session:
        task = await queries.get(session, task_id)
        facts = await _facts(session, task_id)
        outlook = await _waits(tools, session, task) if task.status == TaskStatus.PENDING else []
    if task.status == TaskStatus.RUNNING and task.work_order_id:
        order = await explain_order(tools, task.work_order_id)
        outlook = [f"its work order {task.work_order_id} is {order['status']}: {order['reason']}"]
        outlook += [str(one) for one in order["what_would_change_it"]]
    elif task.status in ENDED and task.status != TaskStatus.COMPLETED:
        outlook = ["retry: it goes on from its last commit, or afresh"]
    changed = [row for row in facts if row.event_type in {"task.status_changed", "task.created"}]
    return {
        "subject": task_id,
        "status": task.status,
        "since": changed[0].recorded_at if changed else task.created_at,
        "reason": task.reason,
        "evidence": [evidence(row) for row in facts],
        "what_would_change_it": outlook,
    }


async def _facts(session: Session, task_id: str) -> list[EventRow]:
    mine = sa.select(EventRow).where(EventRow.entity_id == task_id, EventRow.entity_type == "task")
    return list((await session.scalars(mine.order_by(EventRow.id.desc()).limit(10))).all())


async def _waits(tools: Tools, session: Session, task: Task) -> list[str]:
    """Everything that stands between a waiting task and its start."""
    project = await session.get_one(Project, task.project_id)
    found = [task.reason] if task.reason.startswith("cannot be started") else []
    if task.held:
        found.append(f"it is held: {task.reason or 'its ticket has not let it start'}")
    if task.open_dependencies:
        waiting = [one for one in await queries.dependencies(session, task.task_id) if one.status != "completed"]
        found += [f"it waits for {one.task_id} ({one.status}): {one.title}" for one in waiting[:20]]
    if made := await queries.ungathered(session, task.ticket_id):
        found.append(f"its ticket's branch takes in what {made} made; it starts from there")
    if not (project.autonomy or task.forced):
        found.append(f"project {project.name!r} has no autonomy: set it, or dispatch the task")
    if task.not_before and task.not_before > await moment(session):
        found.append(f"it waits until {iso(task.not_before)}")
    seen = await load(session)
    found += [why for why in (full(project, seen), obstacle(tools.settings, task, project, seen)) if why]
    if not await tools.sandboxes.has_place(session):
        found.append("a sandbox that ends: every place of this host is taken")
    if not found and (before := await _before(session, task)):
        found.append(f"{before} tasks stand before it")
    return found or ["it starts as soon as an engine looks"]


async def _before(session: Session, task: Task) -> int:
    """How many of its project that may start stand before it in the queue."""
    count = sa.select(sa.func.count()).where(
        Task.project_id == task.project_id,
        Task.status == TaskStatus.PENDING,
        Task.forced.is_(task.forced),
        Task.held.is_(False),
        Task.open_dependencies == 0,
        sa.tuple_(Task.rank, Task.task_id) < sa.tuple_(sa.literal(task.rank), sa.literal(task.task_id)),
    )
    return await session.scalar(count) or 0
