"""Reads of tasks."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import InstrumentedAttribute

from shopfloor.gateway import queries as gateway
from shopfloor.kit import paging
from shopfloor.kit.db import Session, db_time
from shopfloor.kit.errors import NotFound
from shopfloor.sandboxes.models import SandboxRow
from shopfloor.tasks import rules
from shopfloor.tasks.models import Task, TaskDependency
from shopfloor.tasks.rules import TaskStatus
from shopfloor.workorders.models import WorkOrder
from shopfloor.workorders.rules import FINISHED, OrderStatus

SORTS: dict[str, InstrumentedAttribute[Any]] = {
    "created_at": Task.created_at,
    "updated_at": Task.updated_at,
    "rank": Task.rank,
    "title": Task.title,
}


class TaskNotFound(NotFound):
    """There is no such task."""

    hint = "GET /api/v1/tasks lists them."


async def get(session: Session, task_id: str) -> Task:
    """The task; raises TaskNotFound."""
    if (task := await session.get(Task, task_id)) is None:
        raise TaskNotFound(f"there is no task {task_id[:60]!r}")
    return task


async def locked(session: Session, task_id: str) -> Task:
    """The task, which nobody else changes before this transaction ends; raises TaskNotFound."""
    task = await session.get(Task, task_id, with_for_update=True, populate_existing=True)
    if task is None:
        raise TaskNotFound(f"there is no task {task_id[:60]!r}")
    return task


async def of_ticket(session: Session, ticket_id: str) -> Sequence[Task]:
    """Every task of a ticket, oldest first."""
    query = sa.select(Task).where(Task.ticket_id == ticket_id).order_by(Task.created_at, Task.task_id)
    return (await session.scalars(query)).all()


async def of_order(session: Session, order_id: str) -> Task | None:
    """The task that an order is the work of."""
    return await session.scalar(sa.select(Task).where(Task.work_order_id == order_id))


async def tally(session: Session, ticket_ids: Sequence[str]) -> dict[str, dict[str, dict[str, int]]]:
    """How many tasks of each ticket stand where: ticket -> column -> status -> count; a ticket without tasks is not in it."""
    query = (
        sa.select(Task.ticket_id, Task.phase, Task.status, sa.func.count())
        .where(Task.ticket_id.in_(ticket_ids))
        .group_by(Task.ticket_id, Task.phase, Task.status)
    )
    found: dict[str, dict[str, dict[str, int]]] = defaultdict(lambda: defaultdict(dict))
    for ticket_id, phase, status, count in await session.execute(query):
        found[ticket_id or ""][phase][status] = count
    return {ticket_id: dict(phases) for ticket_id, phases in found.items()}


async def costs(session: Session, ticket_ids: Sequence[str]) -> dict[str, float]:
    """What the models of each ticket's orders cost so far, in US dollars, by the gateway's count, else the agent's word."""
    return await _costs(session, WorkOrder.ticket_id, ticket_ids)


async def costs_of_tasks(session: Session, task_ids: Sequence[str]) -> dict[str, float]:
    """The same for each task, all its orders together."""
    return await _costs(session, WorkOrder.task_id, task_ids)


async def _costs(session: Session, whose: InstrumentedAttribute[Any], ids: Sequence[str]) -> dict[str, float]:
    query = sa.select(whose, WorkOrder.agent_work_order_id, WorkOrder.cost_usd).where(whose.in_(ids))
    orders = (await session.execute(query)).all()
    counted = await gateway.costs_of_orders(session, [row[1] for row in orders])
    found: dict[str, float] = {}
    for id_, order_id, said in orders:
        if (cost := counted.get(order_id, said)) is not None:
            found[id_] = round(found.get(id_, 0.0) + cost, 9)
    return found


async def dependencies(session: Session, task_id: str) -> Sequence[Task]:
    """What a task waits for, oldest first."""
    query = sa.select(Task).join(TaskDependency, TaskDependency.depends_on == Task.task_id)
    rows = await session.scalars(query.where(TaskDependency.task_id == task_id).order_by(Task.created_at, Task.task_id))
    return rows.all()


async def dependents(session: Session, task_id: str) -> Sequence[Task]:
    """What waits for a task, oldest first."""
    query = sa.select(Task).join(TaskDependency, TaskDependency.task_id == Task.task_id)
    rows = await session.scalars(
        query.where(TaskDependency.depends_on == task_id).order_by(Task.created_at, Task.task_id)
    )
    return rows.all()


async def dependency_ids(session: Session, task_ids: Sequence[str]) -> dict[str, list[str]]:
    """What each of some tasks waits for."""
    query = sa.select(TaskDependency.task_id, TaskDependency.depends_on).where(TaskDependency.task_id.in_(task_ids))
    found: dict[str, list[str]] = {task_id: [] for task_id in task_ids}
    for task_id, other in await session.execute(query.order_by(TaskDependency.depends_on)):
        found[task_id].append(other)
    return found


def _reached(task_ids: Sequence[str], *, up: bool) -> sa.CTE:
    """The tasks that some depend on, over any number of others (`up`), or those that depend on them; they themselves too."""
    near, far = TaskDependency.task_id, TaskDependency.depends_on
    if not up:
        near, far = far, near
    start = sa.select(Task.task_id.label("task_id")).where(Task.task_id.in_(task_ids))
    seen = start.cte("above" if up else "below", recursive=True)
    return seen.union(sa.select(far.label("task_id")).join(seen, near == seen.c.task_id))


async def leads_to(session: Session, depends_on: Sequence[str], task_id: str) -> bool:
    """Whether something of `depends_on` is, or waits for, `task_id`. Walks only what they wait for."""
    seen = _reached(depends_on, up=True)
    return await session.scalar(sa.select(seen.c.task_id).where(seen.c.task_id == task_id).limit(1)) is not None


async def edges_above(session: Session, task_ids: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """Every dependency of what some tasks wait for: task -> what it depends on."""
    seen = _reached(task_ids, up=True)
    query = sa.select(TaskDependency.task_id, TaskDependency.depends_on).join(
        seen, seen.c.task_id == TaskDependency.task_id
    )
    found: dict[str, list[str]] = defaultdict(list)
    for one, other in await session.execute(query):
        found[one].append(other)
    return found


async def graph(
    session: Session, kind: str, id_: str, *, limit: int
) -> tuple[Sequence[Task], Sequence[tuple[str, str]], bool]:
    """Tasks of a project or ticket, or what a task waits for and what waits for it; their dependencies; whether there is more."""
    query = sa.select(Task)
    if kind == "task":
        above, below = _reached([id_], up=True), _reached([id_], up=False)
        near = sa.or_(Task.task_id.in_(sa.select(above.c.task_id)), Task.task_id.in_(sa.select(below.c.task_id)))
        query = query.where(near)
    else:
        query = query.where((Task.project_id if kind == "project" else Task.ticket_id) == id_)
    query = query.order_by(Task.created_at, Task.task_id)
    rows = (await session.scalars(query.limit(limit + 1))).all()
    shown = [task.task_id for task in rows[:limit]]
    edges: list[tuple[str, str]] = []
    known = frozenset(shown)
    for start in range(0, len(shown), 500):
        part = sa.select(TaskDependency.task_id, TaskDependency.depends_on).where(
            TaskDependency.task_id.in_(shown[start : start + 500])
        )
        edges += [(one, other) for one, other in await session.execute(part) if other in known]
    return rows[:limit], sorted(edges), len(rows) > limit


async def listing(
    session: Session,
    *,
    status: str | None = None,
    phase: str | None = None,
    has_sandbox: bool | None = None,
    project_id: str | None = None,
    ticket_id: str | None = None,
    open_only: bool = False,
    reported_only: bool = False,
    q: str = "",
    sort: str = "-created_at",
    cursor: str | None = None,
    limit: int = 50,
) -> tuple[Sequence[Task], str | None, int]:
    """A page of tasks, the cursor of the next one, and how many there are in all. Raises UnknownSort, BadCursor, TooManyWords."""
    order = paging.sort(sort, SORTS, Task.task_id)
    query = sa.select(Task)
    wanted = {Task.status: status, Task.phase: phase, Task.project_id: project_id, Task.ticket_id: ticket_id}
    query = query.where(*(column == value for column, value in wanted.items() if value is not None))
    if open_only:
        query = query.where(Task.status.in_([TaskStatus.PENDING, TaskStatus.RUNNING]))
    if reported_only:
        query = query.where(Task.result.is_not(None))
    if has_sandbox is not None:
        query = query.where(Task.sandbox_id.is_not(None) if has_sandbox else Task.sandbox_id.is_(None))
    query = paging.search(query, q, (Task.title, Task.description))
    return await paging.listing(session, query, order, cursor=cursor, limit=limit)


async def untitled(session: Session) -> Sequence[str]:
    """Tasks whose title says nothing, though there is a description; at most 500."""
    query = sa.select(Task.task_id).where(Task.title.in_(["", rules.UNTITLED]), Task.description != "")
    return (await session.scalars(query.limit(500))).all()


async def running_seconds(session: Session, task: Task) -> float | None:
    """How long a task's present sandbox runs; None when it has none."""
    if task.status != TaskStatus.RUNNING or task.work_order_id is None:
        return None
    since = sa.func.coalesce(SandboxRow.started_at, SandboxRow.created_at)
    query = (
        sa.select(since, db_time())
        .join(WorkOrder, WorkOrder.sandbox_identifier == SandboxRow.sandbox_id)
        .where(WorkOrder.agent_work_order_id == task.work_order_id, WorkOrder.status == OrderStatus.RUNNING)
    )
    row = (await session.execute(query)).first()
    return (row[1] - row[0]).total_seconds() if row else None


async def allowed_seconds(session: Session, task: Task, otherwise: float) -> float:
    """How long each of a task's sandboxes may run: what its order says while it runs, else its own limit."""
    if task.status == TaskStatus.RUNNING and task.work_order_id is not None:
        return (await session.get_one(WorkOrder, task.work_order_id)).timeout_seconds
    return otherwise if task.timeout_seconds is None else task.timeout_seconds


async def overtime(session: Session) -> Sequence[tuple[Task, float]]:
    """Running tasks whose present sandbox runs longer than they may, with the seconds it runs."""
    since = sa.func.coalesce(SandboxRow.started_at, SandboxRow.created_at)
    query = (
        sa.select(Task, since, db_time(), WorkOrder.timeout_seconds)
        .join(WorkOrder, WorkOrder.agent_work_order_id == Task.work_order_id)
        .join(SandboxRow, SandboxRow.sandbox_id == WorkOrder.sandbox_identifier)
        .where(Task.status == TaskStatus.RUNNING, WorkOrder.status == OrderStatus.RUNNING)
        .order_by(Task.created_at)
    )
    found = []
    for task, began, here, allowed in await session.execute(query):
        ran = (here - began).total_seconds()
        if ran > allowed:
            found.append((task, ran))
    return found


async def astray(session: Session) -> Sequence[str]:
    """Orders whose task does not stand where they say: what a crash left, or a person did to the order."""
    live = (OrderStatus.PENDING, OrderStatus.RUNNING)
    ended = (
        sa.select(Task.work_order_id)
        .join(WorkOrder, WorkOrder.agent_work_order_id == Task.work_order_id)
        .where(Task.status == TaskStatus.RUNNING, WorkOrder.status.in_(sorted(FINISHED)))
    )
    on = (
        sa.select(Task.work_order_id)
        .join(WorkOrder, WorkOrder.agent_work_order_id == Task.work_order_id)
        .where(WorkOrder.status.in_(live), Task.status != TaskStatus.COMPLETED)
        .where(
            sa.or_(
                Task.status != TaskStatus.RUNNING,
                sa.func.coalesce(Task.sandbox_id, "") != sa.func.coalesce(WorkOrder.sandbox_identifier, ""),
            )
        )
    )
    return [order_id for order_id in await session.scalars(sa.union(ended, on)) if order_id]


async def ungathered(session: Session, ticket_id: str | None) -> str | None:
    """A completed task of a ticket whose work is not in the ticket's branch yet."""
    mine = sa.select(Task.task_id).where(Task.ticket_id == ticket_id, Task.status == "completed", ~Task.gathered)
    return await session.scalar(mine.limit(1)) if ticket_id else None
