"""Titles that an agent makes of a task's description."""

import hashlib

from shopfloor.forges.texts import fenced
from shopfloor.kit import log
from shopfloor.kit.db import Session
from shopfloor.projects.models import Project
from shopfloor.tasks import queries, rules, service
from shopfloor.tasks.models import Task
from shopfloor.workorders import queries as orders
from shopfloor.workorders import service as workorders
from shopfloor.workorders.models import WorkOrder
from shopfloor.workorders.schemas import CreateAgentWorkOrderRequest
from shopfloor.workorders.steps import Tools
from shopfloor.workorders.steps.ask import HOW, NoAnswer, answer_of, ask

logger = log.get(__name__)

LONGEST_WORDS = 20_000
"""So much of a description is enough to name it."""


async def title_by_rule(tools: Tools, task_id: str) -> str:
    """Name a task by its description; where that says nothing, the title it has stays. Answers its title."""
    async with tools.database.transaction() as session:
        task = await queries.get(session, task_id)
        if (title := rules.title(task.description)) != rules.UNTITLED:
            task = await service.change(session, task_id, tools.settings.scheduling, title=title)
        return task.title


async def ask_for_title(tools: Tools, task: Task, project: Project, agent: str) -> WorkOrder:
    """Have an agent name a task; asked twice of the same words it is one work order."""
    words = task.description or task.title
    request = CreateAgentWorkOrderRequest(
        repository_url=project.repository_url,
        workflow_type="build",
        agent=agent,
        base_branch=project.base_branch,
        agent_options=task.agent_options if agent == task.agent else {},
        initial_prompt=f"Give this piece of work a title of at most {rules.LONGEST_TITLE} letters.\n{fenced(words[:LONGEST_WORDS])}\n{HOW}",
    )
    about = hashlib.sha256(words.encode()).hexdigest()[:16]
    whose = {"task_id": task.task_id, "ticket_id": task.ticket_id, "spec_id": task.spec_id}
    return await ask(tools, f"title:{task.task_id}:{about}", request, **whose)


async def take_titles(tools: Tools) -> int:
    """Put what agents answered into place; answers how many."""
    async with tools.database.reading() as session:
        ended = [order.agent_work_order_id for order in await orders.answers(session, "title")]
    for order_id in ended:
        async with tools.database.transaction() as session:
            if order := await workorders.take_answer(session, order_id):
                await _take(tools, session, order)
    return len(ended)


async def _take(tools: Tools, session: Session, order: WorkOrder) -> None:
    task_id = (order.question or "").split(":")[1]
    try:
        title = rules.title(answer_of(order))
    except NoAnswer as error:
        logger.warning("title_not_answered", task_id=task_id, reason=error.message)
        return
    if title == rules.UNTITLED:
        logger.warning("title_not_answered", task_id=task_id, reason="the answer has no words")
    elif (await queries.get(session, task_id)).title != title:
        await service.change(session, task_id, tools.settings.scheduling, title=title)
