"""A task becomes a work order: chosen, ordered and claimed in one transaction, or not at all."""

from typing import Any

from shopfloor.forges.texts import fenced
from shopfloor.kit import log
from shopfloor.kit.db import AWAY, Session
from shopfloor.kit.errors import Problem, Unavailable
from shopfloor.tasks import service
from shopfloor.tasks.models import Task
from shopfloor.tasks.steps.pick import Candidate, pick, still
from shopfloor.workorders import queries as orders
from shopfloor.workorders import service as workorders
from shopfloor.workorders.models import WorkOrder
from shopfloor.workorders.rules import OrderStatus
from shopfloor.workorders.schemas import CreateAgentWorkOrderRequest
from shopfloor.workorders.steps import Claimed, Claimer, Tools
from shopfloor.workorders.steps.prepare import look_ahead
from shopfloor.workorders.steps.terms import terms

logger = log.get(__name__)

REFUSED_SECONDS = 60.0
"""How long a task waits that its project's or the server's settings do not let start."""
AWAY_SECONDS = 5.0
"""The same when what it needs is only away."""


class NoPlace(Exception):
    """Nobody could be claimed: the transaction is rolled back."""


async def dispatch(tools: Tools, claimer: Claimer) -> bool:
    """Start the next task; False when none can start now, or there is no place for it."""
    async with tools.database.reading() as session:
        if not await tools.sandboxes.has_place(session):
            return False
        candidate = await pick(session, tools.settings)
    if candidate is None:
        return False
    try:
        await _take(tools, claimer, candidate)
    except NoPlace:
        return False
    except AWAY:
        raise
    except Problem as problem:
        reason = f"{problem.code}: {problem.message} {problem.hint}"
        await _refuse(tools, candidate, reason, AWAY_SECONDS if isinstance(problem, Unavailable) else REFUSED_SECONDS)
    except Exception as error:  # one task that cannot be started must not keep all others from it
        logger.exception("task_dispatch_failed", task_id=candidate.task.task_id)
        await _refuse(tools, candidate, f"internal error: {type(error).__name__}: {error}", REFUSED_SECONDS)
    return True


async def _take(tools: Tools, claimer: Claimer, candidate: Candidate) -> None:
    """Start a candidate, if it still may be. Raises NoPlace, and what is wrong with it."""
    columns, looking = await terms(tools, _asked(candidate)), None
    if candidate.task.work_order_id is None:
        looking = look_ahead(tools, columns["repository_url"], columns["base_branch"])
    async with tools.database.transaction() as session:
        found = await _start(tools, session, claimer, candidate, columns)
    if found:
        order, claimed = found
        claimer.start(claimed, looking if claimed.order is order else None)


def _asked(candidate: Candidate) -> CreateAgentWorkOrderRequest:
    task, project = candidate.task, candidate.project
    return CreateAgentWorkOrderRequest(
        repository_url=project.repository_url,
        workflow_type=task.workflow_type,
        initial_prompt=_prompt(task),
        agent=task.agent or project.agent,
        model=task.model,
        agent_options=task.agent_options,
        base_branch=task.base_branch or project.base_branch,
        timeout_seconds=task.timeout_seconds,
    )


def _prompt(task: Task) -> str:
    """The description, under the title unless that was made of it."""
    return (
        task.description if task.description.startswith(task.title) else f"{task.title}\n\n{task.description}".strip()
    )


async def _refuse(tools: Tools, candidate: Candidate, reason: str, pause: float) -> None:
    """What cannot be started now is tried again later."""
    async with tools.database.transaction() as session:
        if found := await still(session, tools.settings, candidate):
            await service.postpone(session, found.task, f"cannot be started: {reason}"[:2000], pause)


async def _start(
    tools: Tools, session: Session, claimer: Claimer, candidate: Candidate, columns: dict[str, Any]
) -> tuple[WorkOrder, Claimed] | None:
    """None: somebody else was faster, or what runs now stands in the way; look again. Raises NoPlace."""
    await tools.sandboxes.lock_places(session)
    if not await tools.sandboxes.has_place(session):
        raise NoPlace
    if (found := await still(session, tools.settings, candidate)) is None:
        return None
    order = await _order(session, found.task, columns)
    # An older order may be claimed in this one's stead, which then takes the next place: as many begin to wait as begin to run.
    if (claimed := await claimer.claim(session)) is None:
        raise NoPlace
    await service.start(session, found.task, order)
    return order, claimed


async def _order(session: Session, task: Task, columns: dict[str, Any]) -> WorkOrder:
    """The task's order: a new one, or the one that failed, which keeps its branch, its commits and its conversation."""
    if task.work_order_id is None:
        mine: dict[str, Any] = {"task_id": task.task_id, "ticket_id": task.ticket_id, "offers": task.ticket_id is None}
        return await workorders.create(session, **columns, **mine)
    order = await orders.locked(session, task.work_order_id)
    if order.status in {OrderStatus.FAILED, OrderStatus.CANCELLED}:
        how = {name: columns[name] for name in ("agent", "model", "account")}
        await workorders.retry(session, order, prompt=_told(order, columns["initial_prompt"]), **how)
        workorders.set_timeout(order, columns["timeout_seconds"])
    return order


def _told(order: WorkOrder, prompt: str) -> str:
    """What a next try is told. The reason may be an agent's own words."""
    told = (
        f"The last try did not succeed:\n{fenced(order.reason[:4000])}\nGo on from what is there, and mend the cause."
    )
    return told if prompt == order.initial_prompt else f"{prompt}\n\n{told}"
