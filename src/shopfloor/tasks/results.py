"""What sandboxes and people report of a task. Writes as a part of the service."""

from typing import Any

from shopfloor.auth.guard import Caller, NotYourSandbox
from shopfloor.kit.db import Session
from shopfloor.kit.errors import Conflict
from shopfloor.tasks import graph, service
from shopfloor.tasks.models import Task
from shopfloor.tasks.rules import ENDED, TaskStatus
from shopfloor.workorders import queries as orders
from shopfloor.workorders.service import StaleFencing


class ResultDiffers(Conflict):
    """The task has ended with another result."""

    hint = "GET its result. What has ended is not changed: make a new task, or retry this one."


class OrderDecides(Conflict):
    """The task's work runs as a work order, and ends as that does."""

    hint = "Wait for its work order, or cancel the task."


class OtherConversation(Conflict):
    """The task's sandbox is another one."""

    hint = "Name the sandbox that the task runs in, or leave it out."


async def report(session: Session, task_id: str, caller: Caller, result: dict[str, Any]) -> Task:
    """Record how a task ended (RES-01); the same words once more change nothing. Raises what is in the way.

    A sandbox's word is kept; the task ends with the delivery of its order. A person ends a task that has no order.
    """
    task = await graph.locked(session, task_id)
    if not caller.is_person:
        await _own(session, task, caller)
    if task.status in ENDED:
        if task.result is None or task.result != result:
            raise ResultDiffers(f"the task is {task.status}")
        return task
    if caller.is_person:
        if task.work_order_id is not None:
            raise OrderDecides(f"{task.task_id} is the work of {task.work_order_id}")
        task.result = result
        await service.move(session, task, TaskStatus(result["status"]), reason=result["summary"] or "said by a person")
    elif task.result != result:
        task.result = result
        await service.tell(session, task, "result")
    return task


async def converse(
    session: Session, task_id: str, caller: Caller, conversation_id: str, sandbox_id: str | None
) -> Task:
    """Bind a conversation to a task, and to its sandbox (TSK-12, 001 6.2). Raises NotYourSandbox, StaleFencing, OtherConversation."""
    task = await graph.locked(session, task_id)
    if not caller.is_person:
        await _own(session, task, caller)
        sandbox_id = sandbox_id or caller.sandbox_id
    if sandbox_id is not None and task.sandbox_id not in {None, sandbox_id}:
        raise OtherConversation(f"the task runs in {task.sandbox_id}")
    if (task.conversation_id, task.sandbox_id) != (conversation_id, sandbox_id or task.sandbox_id):
        task.conversation_id, task.sandbox_id = conversation_id, sandbox_id or task.sandbox_id
        await service.tell(session, task, "conversation")
    return task


async def _own(session: Session, task: Task, caller: Caller) -> None:
    """A sandbox speaks only for the task that its order is the work of, and only while it is the newest attempt (W30)."""
    attempt = await orders.find_attempt(session, caller.sandbox_id or "")
    if attempt is None or attempt.work_order_id != task.work_order_id:
        raise NotYourSandbox(f"this sandbox does not work on {task.task_id}")
    order = await orders.get(session, attempt.work_order_id)
    if order.attempts != attempt.number or caller.fencing != attempt.number:
        raise StaleFencing(f"the newest attempt is {order.attempts}")
