"""Which task is next: the first in the queue that nothing stands in the way of."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from shopfloor.agents import service as agents
from shopfloor.gateway import queries as gateway
from shopfloor.kit.config import Settings
from shopfloor.kit.db import Session, db_time
from shopfloor.kit.errors import Problem
from shopfloor.projects.models import Project
from shopfloor.tasks.models import Task, TaskDependency
from shopfloor.tasks.rules import TaskStatus, may_share
from shopfloor.workorders.models import WorkOrder

LOOK = 300
"""How far behind the first task of a project one is looked for that can start; those behind wait until the queue moves."""


@dataclass(frozen=True)
class Load:
    """What runs now, and which model accounts are paused."""

    projects: Mapping[str, int]
    agents: Mapping[str, int]
    paths: Mapping[str, Sequence[tuple[str, Sequence[str]]]]
    """Project -> (task, its owned paths)."""
    paused: Collection[str]


@dataclass(frozen=True)
class Candidate:
    """A task that is next, with its project."""

    task: Task
    project: Project


def _ready(task: Any, after: int = 0) -> list[sa.ColumnElement[bool]]:
    """What holds of every task that may start once `after` others are done, whatever else runs. It starts from all that its ticket's tasks made before."""
    before = aliased(Task)
    return [
        task.status == TaskStatus.PENDING,
        task.held.is_(False),
        task.open_dependencies == after,
        sa.or_(task.not_before.is_(None), task.not_before <= db_time()),
        ~sa.exists().where(before.ticket_id == task.ticket_id, before.status == TaskStatus.COMPLETED, ~before.gathered),
    ]


async def load(session: Session) -> Load:
    """What runs now. Under the lock of the places it stays so."""
    query = (
        sa.select(Task.task_id, Task.project_id, Task.owned_paths, WorkOrder.agent)
        .join(WorkOrder, WorkOrder.agent_work_order_id == Task.work_order_id)
        .where(Task.status == TaskStatus.RUNNING)
    )
    rows = (await session.execute(query)).all()
    paths: dict[str, list[tuple[str, Sequence[str]]]] = defaultdict(list)
    for row in rows:
        if row.owned_paths:
            paths[row.project_id].append((row.task_id, row.owned_paths))
    return Load(
        projects=Counter(row.project_id for row in rows),
        agents=Counter(row.agent for row in rows),
        paths=paths,
        paused={pause.account for pause in await gateway.pauses(session)},
    )


def agent_of(settings: Settings, task: Task, project: Project) -> str:
    """Whose work a task is: its own word, else its project's, else the server's."""
    return task.agent or project.agent or settings.default_agent


def full(project: Project, seen: Load) -> str:
    """Why nothing more of a project may start; empty when something may."""
    most = project.max_running_tasks
    if most is not None and seen.projects.get(project.project_id, 0) >= most:
        return f"project {project.name!r} runs {most} tasks, its most (max_running_tasks)"
    return ""


def obstacle(settings: Settings, task: Task, project: Project, seen: Load) -> str:
    """What of that which runs now stands in a task's way; empty when nothing does."""
    name = agent_of(settings, task, project)
    try:
        profile = agents.profile(settings, name)
    except Problem:
        return ""  # starting it will say what is wrong
    if profile.max_running is not None and seen.agents.get(name, 0) >= profile.max_running:
        return f"agent {name!r} runs {profile.max_running} tasks, its most (max_running)"
    if (account := agents.paid_by(profile)) in seen.paused:
        return f"the model account {account!r} is paused"
    for other, paths in seen.paths.get(project.project_id, ()):
        if may_share(task.owned_paths, paths):
            return f"task {other} runs and may touch the same files ({', '.join(paths)[:200]})"
    return ""


async def pick(session: Session, settings: Settings, but: Collection[str] = ()) -> Candidate | None:
    """The next task but some; None when nothing can start. One that cannot start now is passed over, not waited for (W09)."""
    seen = await load(session)
    heads = [
        (task.rank, task.task_id, place, Candidate(task, project))
        for place, (task, project) in enumerate(await _heads(session))
        if not full(project, seen)
    ]
    heapq.heapify(heads)
    behind: dict[int, list[Task]] = {}
    while heads:
        _, _, place, candidate = heapq.heappop(heads)
        task = candidate.task
        if task.task_id not in but and not obstacle(settings, task, candidate.project, seen):
            return candidate
        if place not in behind:
            behind[place] = await _behind(session, task)
        if behind[place]:
            task = behind[place].pop()
            heapq.heappush(heads, (task.rank, task.task_id, place, Candidate(task, candidate.project)))
    return None


async def successor(session: Session, done: Task) -> Candidate | None:
    """Who may start as soon as a task is done: the first of those that wait for nothing else, not even for its work to be gathered."""
    query = (
        sa.select(Task, Project)
        .join(TaskDependency, TaskDependency.task_id == Task.task_id)
        .join(Project, Project.project_id == Task.project_id)
        .where(TaskDependency.depends_on == done.task_id, *_ready(Task, after=1))
        .where(sa.or_(Task.ticket_id.is_(None), Task.ticket_id != done.ticket_id) if done.ticket_id else sa.true())
        .where(sa.or_(Project.autonomy.is_(True), Task.forced.is_(True)))
        .order_by(Task.rank, Task.task_id)
        .limit(1)
    )
    row = (await session.execute(query)).first()
    return Candidate(*row) if row else None


async def still(session: Session, settings: Settings, candidate: Candidate) -> Candidate | None:
    """The candidate anew, under its lock, if it may still start. The caller holds the lock of the places."""
    query = sa.select(Task).where(Task.task_id == candidate.task.task_id, *_ready(Task)).with_for_update()
    task = await session.scalar(query.execution_options(populate_existing=True))
    project = await session.get(Project, candidate.project.project_id)
    if task is None or project is None or not (project.autonomy or task.forced):
        return None
    seen = await load(session)
    if full(project, seen) or obstacle(settings, task, project, seen):
        return None
    return Candidate(task, project)


async def _heads(session: Session) -> Sequence[tuple[Task, Project]]:
    """The first of each project's waiting tasks, and the first of those that a person started: a look into an index each."""
    inner = aliased(Task)
    found: list[tuple[Task, Project]] = []
    for forced in (True, False):
        first = (
            sa.select(inner.task_id)
            .where(inner.project_id == Project.project_id, inner.forced.is_(forced), *_ready(inner))
            .order_by(inner.rank, inner.task_id)
            .limit(1)
            .correlate(Project)
            .scalar_subquery()
        )
        query = sa.select(Task, Project).join(Project, Task.task_id == first)
        rows = await session.execute(query if forced else query.where(Project.autonomy.is_(True)))
        found += [(task, project) for task, project in rows]
    return found


async def _behind(session: Session, task: Task) -> list[Task]:
    """The next LOOK of a task's kind, the nearest last."""
    here = sa.tuple_(sa.literal(task.rank), sa.literal(task.task_id))
    query = (
        sa.select(Task)
        .where(Task.project_id == task.project_id, Task.forced.is_(task.forced), *_ready(Task))
        .where(sa.tuple_(Task.rank, Task.task_id) > here)
        .order_by(Task.rank, Task.task_id)
        .limit(LOOK)
    )
    return list(reversed((await session.scalars(query)).all()))


async def next_due(session: Session) -> float | None:
    """Seconds until the next task's back-off ends; None when none waits for that."""
    query = sa.select(sa.func.min(Task.not_before), db_time()).where(
        Task.status == TaskStatus.PENDING, Task.not_before > db_time()
    )
    earliest, here = (await session.execute(query)).one()
    return None if earliest is None else max(0.0, (earliest - here).total_seconds())
