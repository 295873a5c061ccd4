"""What waits for what, and the one lock under which that changes. Writes as a part of the service."""

from collections.abc import Sequence

import sqlalchemy as sa

from shopfloor.events import log as events
from shopfloor.events.catalog.tasks import TaskChanged
from shopfloor.kit.db import Session
from shopfloor.kit.errors import Conflict, Malformed, NotFound
from shopfloor.tasks import queries, rules
from shopfloor.tasks.models import Task, TaskDependency
from shopfloor.tasks.rules import TaskStatus

GRAPH_LOCK = 0x5F10
"""First half of the PostgreSQL advisory lock of a project's dependencies; the second is the project's id, hashed."""
MOST_DEPENDENCIES = 500


class CircularDependency(Conflict):
    """A task would wait for itself."""

    hint = "Leave out one dependency of the circle that 'circle' names."


class ForeignDependency(Malformed):
    """Tasks wait only for tasks of their own project."""

    hint = "Name tasks of the same project; work across projects needs two tasks and a person."


class TooManyDependencies(Malformed):
    """A task waits for at most 500 others."""

    hint = "Put a task between them that waits for a part."


class DependencyNotFound(NotFound):
    """The task does not wait for that one."""

    hint = "GET its dependencies to see what it waits for."


class TooLate(Conflict):
    """The task has started or ended: it cannot wait for more."""

    hint = "Cancel it first, or let a new task wait."


async def lock(session: Session, project_id: str) -> None:
    """Change the dependencies and statuses of a project's tasks one transaction after the other; SQLite has one writer anyway.

    Taken before the row of any task, never after.
    """
    if session.get_bind().dialect.name == "postgresql":
        await session.execute(sa.select(sa.func.pg_advisory_xact_lock(GRAPH_LOCK, sa.func.hashtext(project_id))))


async def locked(session: Session, task_id: str) -> Task:
    """The task under its own lock and its project's. Raises TaskNotFound."""
    await lock(session, (await queries.get(session, task_id)).project_id)
    return await queries.locked(session, task_id)


async def depend(session: Session, task: Task, depends_on: Sequence[str], *, new: bool = False) -> None:
    """Let a task wait for others too. Raises CircularDependency, ForeignDependency, TooLate, TooManyDependencies, TaskNotFound.

    `new`: nothing can wait for it yet, so it closes no circle but with itself.
    """
    if new:
        await lock(session, task.project_id)
    here = set((await queries.dependency_ids(session, [task.task_id]))[task.task_id])
    added = [one for one in dict.fromkeys(depends_on) if one not in here]
    if not added:
        return
    if len(here) + len(added) > MOST_DEPENDENCIES:
        raise TooManyDependencies
    await _check(session, task, added, new=new)
    session.add_all(TaskDependency(task_id=task.task_id, depends_on=one) for one in added)
    await session.flush()
    await _count(session, task)


async def _check(session: Session, task: Task, added: Sequence[str], *, new: bool) -> None:
    if task.status != TaskStatus.PENDING:
        raise TooLate(f"the task is {task.status}")
    found = {
        row.task_id: row.project_id
        for row in await session.execute(sa.select(Task.task_id, Task.project_id).where(Task.task_id.in_(added)))
    }
    if missing := next((one for one in added if one not in found), None):
        raise queries.TaskNotFound(f"there is no task {missing[:60]!r}")
    if other := next((one for one in added if found[one] != task.project_id), None):
        raise ForeignDependency(f"{other} belongs to another project")
    if (task.task_id in added or not new) and (way := await circle(session, task.task_id, added)):
        raise CircularDependency(" waits for ".join(way), circle=way)


async def circle(session: Session, task_id: str, depends_on: Sequence[str]) -> list[str]:
    """The circle that dependencies would close (W19: with itself and of two too), from the task back to it; empty when there is none."""
    if task_id not in depends_on:
        waited_for = sa.select(TaskDependency.task_id).where(TaskDependency.depends_on == task_id).limit(1)
        if await session.scalar(waited_for) is None or not await queries.leads_to(session, depends_on, task_id):
            return []
    return rules.circle(await queries.edges_above(session, depends_on), task_id, depends_on)


async def replace(session: Session, task: Task, depends_on: Sequence[str]) -> None:
    """Let a task wait for exactly these. Raises what `depend` raises."""
    gone = sa.delete(TaskDependency).where(
        TaskDependency.task_id == task.task_id, TaskDependency.depends_on.not_in(list(depends_on))
    )
    await session.execute(gone)
    await depend(session, task, depends_on)
    await _count(session, task)
    await tell(session, task)


async def remove(session: Session, task: Task, other: str) -> None:
    """Let a task wait for one less. Raises DependencyNotFound."""
    row = await session.get(TaskDependency, (task.task_id, other))
    if row is None:
        raise DependencyNotFound(f"{task.task_id} does not wait for {other[:60]!r}")
    await session.delete(row)
    await session.flush()
    await _count(session, task)
    await tell(session, task)


async def tell(session: Session, task: Task) -> None:
    """Say that what a task waits for is another."""
    fact = TaskChanged(task_id=task.task_id, ticket_id=task.ticket_id, project_id=task.project_id, what="dependencies")
    await events.append(session, fact)


async def let_go(session: Session, task_id: str) -> None:
    """Whoever waits for a task that has completed waits for one less."""
    waiting = sa.select(TaskDependency.task_id).where(TaskDependency.depends_on == task_id)
    await session.execute(
        sa.update(Task)
        .where(Task.task_id.in_(waiting))
        .values(open_dependencies=Task.open_dependencies - 1)
        .execution_options(synchronize_session=False)
    )


async def _count(session: Session, task: Task) -> None:
    still = (
        sa.select(sa.func.count())
        .select_from(TaskDependency)
        .join(Task, Task.task_id == TaskDependency.depends_on)
        .where(TaskDependency.task_id == task.task_id, Task.status != TaskStatus.COMPLETED)
    )
    task.open_dependencies = await session.scalar(still) or 0
    await session.flush()
