"""Tasks: made, held, moved, cancelled, retried, followed. Sole writer of the table."""

from collections.abc import Sequence
from typing import Any, cast

import sqlalchemy as sa

from shopfloor.events import log as events
from shopfloor.events.catalog.tasks import TaskChanged, TaskCreated, TaskStatusChanged
from shopfloor.kit import ids, log
from shopfloor.kit.config import Scheduling
from shopfloor.kit.db import Session, db_time
from shopfloor.kit.errors import Conflict
from shopfloor.projects import queries as projects
from shopfloor.projects import rules as columns_of
from shopfloor.tasks import graph, queries, rules
from shopfloor.tasks.models import Task
from shopfloor.tasks.rules import ENDED, TASK, TaskStatus
from shopfloor.workorders import queries as orders
from shopfloor.workorders import service as workorders
from shopfloor.workorders.models import WorkOrder
from shopfloor.workorders.rules import FINISHED, OrderStatus, workflow_type

logger = log.get(__name__)

LOGGED = {
    TaskStatus.PENDING: "task_requeued",
    TaskStatus.RUNNING: "task_started",
    TaskStatus.COMPLETED: "task_completed",
    TaskStatus.FAILED: "task_failed",
    TaskStatus.CANCELLED: "task_cancelled",
}


STOPPING = "; its agent is being stopped"


class TaskEnded(Conflict):
    """The task has ended."""


class TaskNotEnded(Conflict):
    """The task has not ended."""

    hint = "Only a failed or cancelled task can be retried; cancel it first."


class TaskRunning(Conflict):
    """The task is at work."""

    hint = "What it is told, and how, can be changed before it starts or once it has ended; cancel it first."


async def create(
    session: Session,
    *,
    project_id: str,
    ticket_id: str | None = None,
    phase: str = "building",
    title: str = "",
    description: str = "",
    workflow: str | None = None,
    priority: str = "medium",
    owned_paths: Sequence[str] = (),
    depends_on: Sequence[str] = (),
    held: bool = False,
    reason: str = "",
    scheduling: Scheduling | None = None,
    **columns: Any,
) -> Task:
    """Make a task; `columns` are others of its table. Raises what its words break, ProjectNotFound, and what `graph.depend` raises."""
    column = columns_of.column(phase)
    task = Task(
        task_id=ids.new("tsk", 10),
        project_id=(await projects.get(session, project_id)).project_id,
        ticket_id=ticket_id,
        phase=column,
        title=" ".join(title.split())[:500] or rules.title(description),
        description=description,
        workflow_type=str(workflow_type(workflow or rules.WORKFLOWS[column])),
        priority=rules.priority(priority),
        owned_paths=[rules.path_glob(path) for path in owned_paths],
        status=TaskStatus.PENDING,
        reason=reason,
        held=held,
        open_dependencies=0,
        retries=0,
        **{"agent_options": {}, "max_retries": 3, "forced": False, "created_at": await orders.moment(session)}
        | columns,
    )
    task.rank = _rank(task, scheduling or Scheduling())
    await _add(session, task, depends_on)
    return task


async def _add(session: Session, task: Task, depends_on: Sequence[str]) -> None:
    session.add(task)
    await session.flush()
    if depends_on:
        await graph.depend(session, task, depends_on, new=True)
    await session.refresh(task)
    whose = {"task_id": task.task_id, "ticket_id": task.ticket_id, "project_id": task.project_id}
    await events.append(
        session,
        TaskCreated(
            task_id=task.task_id,
            ticket_id=task.ticket_id,
            project_id=task.project_id,
            phase=task.phase,
            title=task.title,
        ),
    )
    logger.info("task_created", **whose, phase=task.phase)


def _rank(task: Task, scheduling: Scheduling) -> float:
    return rules.rank(
        task.created_at.timestamp(),
        head_start=scheduling.head_start_seconds.get(cast("Any", task.priority), 0.0),
        retries=task.retries,
        retry_head_start=scheduling.retry_head_start_seconds,
        deadline=task.deadline.timestamp() if task.deadline else None,
        deadline_lead=scheduling.deadline_lead_seconds,
    )


WORKING_TERMS = frozenset(
    {"description", "agent", "model", "agent_options", "base_branch", "workflow_type", "owned_paths"}
)
"""What an order began with: not to be changed under it."""


async def change(
    session: Session, task_id: str, scheduling: Scheduling, *, longest: float | None = None, **columns: Any
) -> Task:
    """Change what is given of a task; `longest`: how long one may run that has no limit of its own. Raises TaskNotFound, TaskRunning."""
    task = await queries.locked(session, task_id)
    if task.status == TaskStatus.RUNNING and (fixed := WORKING_TERMS & columns.keys()):
        raise TaskRunning(f"the task is running; {', '.join(sorted(fixed))} cannot be changed now")
    for name, value in columns.items():
        setattr(task, name, value)
    task.rank = _rank(task, scheduling)
    if "timeout_seconds" in columns and task.status == TaskStatus.RUNNING:
        order = await orders.locked(session, task.work_order_id or "")
        workorders.set_timeout(order, columns["timeout_seconds"] or longest or order.timeout_seconds)
    await tell(session, task, ", ".join(sorted(columns)))
    return task


async def move(session: Session, task: Task, to: TaskStatus, *, reason: str) -> None:
    """Move a task on if the law allows it, with its fact; what waits for a completed one is let go. Needs the graph's lock."""
    before = TaskStatus(task.status)
    task.status = TASK.step(before, to)
    task.reason = reason[:4000]
    task.stopping = None
    if to == TaskStatus.RUNNING:
        task.started_at, task.ended_at, task.not_before = cast("Any", db_time()), None, None
    elif to == TaskStatus.PENDING:
        task.ended_at = None
    else:
        task.ended_at = cast("Any", db_time())
    await session.flush()
    if to == TaskStatus.COMPLETED:
        task.gathered = task.ticket_id is None or task.work_order_id is None
        await graph.let_go(session, task.task_id)
    fact = TaskStatusChanged(
        task_id=task.task_id,
        ticket_id=task.ticket_id,
        project_id=task.project_id,
        phase=task.phase,
        before=before,
        after=to,
        reason=task.reason,
        work_order_id=task.work_order_id,
    )
    await events.append(session, fact)
    logger.info(LOGGED[to], task_id=task.task_id, work_order_id=task.work_order_id, reason=task.reason)
    await session.refresh(task)


async def start(session: Session, task: Task, order: WorkOrder) -> None:
    """Say that a task's order is on its way. The caller holds the task's row and the lock of the places."""
    task.work_order_id, task.sandbox_id = order.agent_work_order_id, order.sandbox_identifier
    await move(session, task, TaskStatus.RUNNING, reason="its work order is on its way")


async def hold(
    session: Session, ticket_id: str, *, held: bool, why: str, only: Sequence[str] | None = None
) -> list[str]:
    """Hold the tasks of a ticket (only these of them), or let them start; answers those it changed.

    One that runs goes on, but is not tried again while it is held.
    """
    wanted = [Task.ticket_id == ticket_id, Task.held.is_(not held), Task.status != TaskStatus.COMPLETED]
    if only is not None:
        wanted.append(Task.task_id.in_(only))
    await _lock_ticket(session, ticket_id)
    changed = []
    for task in (await session.scalars(sa.select(Task).where(*wanted).with_for_update())).all():
        task.held = held
        if task.status == TaskStatus.PENDING:
            task.reason = why
        await tell(session, task, "held" if held else "released")
        changed.append(task.task_id)
    return changed


async def note_gathered(session: Session, task_id: str) -> None:
    """What the task made is in its ticket's branch, or is made anew: the next may start from there."""
    task = await queries.locked(session, task_id)
    if not task.gathered:
        task.gathered = True
        await tell(session, task, "gathered")


async def set_waiting(session: Session, ticket_id: str, **columns: str | None) -> None:
    """Change the waiting tasks of a ticket: `base_branch` (None: the project's base; an order keeps its commit), `spec_id`."""
    await _lock_ticket(session, ticket_id)
    pending = (Task.ticket_id == ticket_id, Task.status == TaskStatus.PENDING)
    await session.execute(sa.update(Task).where(*pending).values(**columns))


async def cancel(session: Session, task_id: str, *, reason: str = "cancelled") -> Task:
    """Cancel: a waiting task at once, a running one as soon as its agent has been stopped (TSK-08). Raises TaskEnded."""
    return await _stop(session, task_id, TaskStatus.CANCELLED, reason)


async def time_out(session: Session, task_id: str, *, reason: str) -> Task:
    """Stop a task that ran too long; it fails once its agent has been stopped (TSK-15). Raises TaskEnded."""
    return await _stop(session, task_id, TaskStatus.FAILED, reason)


async def _stop(session: Session, task_id: str, end: TaskStatus, reason: str) -> Task:
    task = await graph.locked(session, task_id)
    if end in {task.status, task.stopping}:
        return task
    if task.status in ENDED:
        raise TaskEnded(f"the task is {task.status}", hint="Only a task that waits or runs can be cancelled.")
    if task.status == TaskStatus.PENDING or task.work_order_id is None:
        await move(session, task, end, reason=reason)
        return task
    order = await orders.locked(session, task.work_order_id)
    task.stopping, task.reason = end, reason + STOPPING
    if order.status not in FINISHED:
        await workorders.request_cancel(session, order)
    await session.flush()
    await _follow(session, task, order, Scheduling())
    if task.status == TaskStatus.RUNNING:
        await tell(session, task, "stopping")
    return task


async def retry(
    session: Session,
    task_id: str,
    *,
    reason: str,
    scheduling: Scheduling,
    afresh: bool = False,
    held: bool | None = None,
) -> Task:
    """Let a failed or cancelled task wait for its turn again; its order goes on where it stopped unless `afresh`. Raises TaskNotEnded, TaskEnded.

    `held`: whether its ticket holds it; None: as before.
    """
    task = await graph.locked(session, task_id)
    if task.status == TaskStatus.COMPLETED:
        raise TaskEnded("the task is completed", hint="Make a new task.")
    if task.status not in ENDED:
        raise TaskNotEnded(f"the task is {task.status}")
    if afresh:
        task.work_order_id = task.sandbox_id = None
    task.max_retries = max(task.max_retries, task.retries + 1)
    task.not_before = None
    task.held = task.held if held is None else held
    await _try_again(session, task, reason, scheduling)
    return task


async def _try_again(session: Session, task: Task, reason: str, scheduling: Scheduling) -> None:
    task.retries += 1
    task.rank = _rank(task, scheduling)
    task.result = None
    await move(session, task, TaskStatus.PENDING, reason=reason)


async def force(session: Session, task_id: str) -> Task:
    """Let a waiting task start though its project has no autonomy, and without its back-off. Raises TaskRunning, TaskEnded."""
    task = await queries.locked(session, task_id)
    if task.status == TaskStatus.RUNNING:
        raise TaskRunning(hint="It runs already.")
    if task.status in ENDED:
        raise TaskEnded(f"the task is {task.status}", hint="Retry it first.")
    task.forced, task.not_before = True, None
    await tell(session, task, "forced")
    return task


async def follow(session: Session, order_id: str, scheduling: Scheduling) -> Task | None:
    """Bring the task of an order to where the order says; answers it when something changed. May be repeated."""
    if (seen := await queries.of_order(session, order_id)) is None:
        return None
    task = await graph.locked(session, seen.task_id)
    if task.work_order_id != order_id:
        return None
    return task if await _follow(session, task, await orders.locked(session, order_id), scheduling) else None


async def _follow(session: Session, task: Task, order: WorkOrder, scheduling: Scheduling) -> bool:
    changed = task.sandbox_id != order.sandbox_identifier
    task.sandbox_id = order.sandbox_identifier
    now, stopping = TaskStatus(task.status), TaskStatus(task.stopping) if task.stopping else None
    another = task.retries < task.max_retries and not rules.hopeless(order.reason)
    to = rules.follow(now, OrderStatus(order.status), stopping=stopping, another_try=another)
    if to == now:
        if changed:
            await tell(session, task, "sandbox")
        return changed
    why = task.reason.removesuffix(STOPPING) if stopping == to else order.reason
    if to == TaskStatus.PENDING:
        pause = rules.back_off_seconds(task.retries + 1, scheduling.retry_seconds)
        task.not_before = cast("Any", db_time(pause))
        await _try_again(session, task, f"failed: {why}; tried again in {pause:.0f} s", scheduling)
        return True
    if to not in TASK.moves[now]:  # nobody saw its order go on
        await move(session, task, TaskStatus.RUNNING, reason="its order went on")
    await move(session, task, to, reason=why)
    return True


async def postpone(session: Session, task: Task, reason: str, seconds: float) -> None:
    """Let a task wait that cannot be started as things are, and say why."""
    task.not_before = cast("Any", db_time(seconds))
    again = task.reason == reason
    task.reason = reason
    await session.flush()
    if not again:
        await tell(session, task, "postponed")
        logger.warning("task_postponed", task_id=task.task_id, reason=reason)


async def _lock_ticket(session: Session, ticket_id: str) -> None:
    projects_ = sa.select(Task.project_id).where(Task.ticket_id == ticket_id).distinct().order_by(Task.project_id)
    for project_id in (await session.scalars(projects_)).all():
        await graph.lock(session, project_id)


async def tell(session: Session, task: Task, what: str) -> None:
    """Append the fact that something of a task changed."""
    await session.flush()
    await session.refresh(task)
    fact = TaskChanged(task_id=task.task_id, ticket_id=task.ticket_id, project_id=task.project_id, what=what)
    await events.append(session, fact)
