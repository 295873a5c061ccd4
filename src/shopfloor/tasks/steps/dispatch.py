"""A task becomes a work order: chosen, ordered and claimed in one transaction, or not at all."""

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any

from shopfloor.forges.mirrors.mirror import Base
from shopfloor.forges.texts import fenced
from shopfloor.kit import log
from shopfloor.kit.db import AWAY, Session
from shopfloor.kit.errors import Problem, Unavailable
from shopfloor.sandboxes import queries as sandboxes
from shopfloor.sandboxes.rules import LIVE, SandboxState
from shopfloor.tasks import queries, service
from shopfloor.tasks.models import Task
from shopfloor.tasks.steps.pick import Candidate, pick, still, successor
from shopfloor.workorders import queries as orders
from shopfloor.workorders import service as workorders
from shopfloor.workorders.models import WorkOrder
from shopfloor.workorders.rules import OrderStatus
from shopfloor.workorders.schemas import LONGEST_PROMPT, CreateAgentWorkOrderRequest
from shopfloor.workorders.steps import Claimed, Claimer, Heir, Tools
from shopfloor.workorders.steps.prepare import look_ahead
from shopfloor.workorders.steps.terms import terms

logger = log.get(__name__)

CHOSEN_SECONDS = 5.0
"""How long a choice made ahead holds; what came into the queue since may be more urgent, and is looked for then."""
REFUSED_SECONDS = 60.0
"""How long a task waits that its project's or the server's settings do not let start."""
AWAY_SECONDS = 5.0
"""The same when what it needs is only away."""
CUT = "\n\n(Here ends what can be told at once: what was written is longer, and the rest of it is left out.)"

RENEWED = ("agent_options", "workflow_type", "budget_usd", "base_branch", "timeout_seconds")
"""Terms of a failed order that are taken from its task and settings as they are now."""


class NoPlace(Exception):
    """Nobody took the place, or there is none: the transaction is rolled back."""


@dataclass(frozen=True)
class Choice:
    """A task that may start now, with its order's columns."""

    candidate: Candidate
    columns: dict[str, Any]

    def look_ahead(self, tools: Tools) -> asyncio.Future[Base] | None:
        """Begin to ask the origin where the order will start, unless that is known."""
        if self.candidate.task.work_order_id is not None:
            return None
        return look_ahead(tools, self.columns["repository_url"], self.columns["base_branch"])


async def dispatch(tools: Tools, claimer: Claimer) -> bool:
    """Start the next task; False when none can start now, or there is no place for it."""
    async with tools.database.reading() as session:
        if not await tools.sandboxes.has_place(session):
            return False
        heirs = _heirs(tools)
        candidate = await pick(session, tools.settings, but=heirs) or (heirs and await pick(session, tools.settings))
    if not candidate:
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
    choice = Choice(candidate, await terms(tools, _asked(candidate)))
    looking = choice.look_ahead(tools)
    async with tools.database.transaction() as session:
        await tools.sandboxes.lock_places(session)
        if not await tools.sandboxes.has_place(session):
            raise NoPlace
        found = await _start(tools, session, claimer, choice)
    _go(claimer, found, looking)


def _go(claimer: Claimer, found: tuple[WorkOrder, Claimed] | None, looking: asyncio.Future[Base] | None) -> None:
    if found:
        order, claimed = found
        # In no context: whoever makes room may be a step of another order's workflow, and this one is not its child.
        contextvars.Context().run(claimer.start, claimed, looking if claimed.order is order else None)


async def appoint(tools: Tools, claimer: Claimer, sandbox_id: str) -> None:
    """Choose who takes the place of a sandbox that is about to leave it: so it is never free while a task could start."""
    chosen, until = await _next(tools, but=_heirs(tools)), time.monotonic() + CHOSEN_SECONDS

    async def take(to: SandboxState, reason: str) -> bool:
        if chosen and time.monotonic() < until and await hand_on(tools, claimer, chosen, sandbox_id, to, reason):
            return True
        choice = await _next(tools, but=_heirs(tools)) or await _next(tools)
        return choice is not None and await hand_on(tools, claimer, choice, sandbox_id, to, reason)

    async with tools.database.reading() as session:
        leaving = await sandboxes.find(session, sandbox_id)
    if leaving and leaving.state in LIVE:  # else it was faster, and nobody would take the heir away
        tools.heirs[sandbox_id] = Heir(chosen.candidate.task.task_id if chosen else "", until, take)


def _heirs(tools: Tools) -> set[str]:
    """Tasks that wait for a place of their own; a choice that holds no more keeps nobody waiting."""
    return {heir.name for heir in tools.heirs.values() if time.monotonic() < heir.until}


async def _next(tools: Tools, but: Collection[str] = ()) -> Choice | None:
    async with tools.database.reading() as session:
        candidate = await pick(session, tools.settings, but=but)
    return await _choice(tools, candidate) if candidate else None


async def hand_on(
    tools: Tools, claimer: Claimer, choice: Choice, sandbox_id: str, to: SandboxState, reason: str
) -> bool:
    """Free a place and start the chosen task in it, in one transaction; False: it may not start now, nothing was done."""

    async def leave(session: Session) -> None:
        await tools.sandboxes.moved(session, sandbox_id, to, reason=reason)

    return await _start_after(tools, claimer, choice, leave)


async def follow(tools: Tools, claimer: Claimer, order_id: str) -> None:
    """Bring the task of an order to where the order is; what waited for it alone starts in the same transaction, if there is a place."""

    async def bring(session: Session) -> None:
        await service.follow(session, order_id, tools.settings.scheduling)

    async with tools.database.reading() as session:
        if (task := await queries.of_order(session, order_id)) is None:
            return
        done = (await orders.get(session, order_id)).status == OrderStatus.COMPLETED
        waiting = await successor(session, task) if done else None
    if waiting and (choice := await _choice(tools, waiting)) and await _start_after(tools, claimer, choice, bring):
        return
    async with tools.database.transaction() as session:
        await bring(session)


async def _start_after(
    tools: Tools, claimer: Claimer, choice: Choice, first: Callable[[Session], Awaitable[None]]
) -> bool:
    """Do what lets a task start, and start it if there is a place, in one transaction; False: it may not start, nothing was done."""
    found, looking = None, None
    try:
        async with tools.database.transaction() as session:
            await tools.sandboxes.lock_places(session)
            await first(session)
            if await tools.sandboxes.has_place(session):
                looking = choice.look_ahead(tools)
                if (found := await _start(tools, session, claimer, choice)) is None:
                    raise NoPlace
    except NoPlace:
        return False
    except Exception:
        logger.exception("task_not_started_ahead", task_id=choice.candidate.task.task_id)
        return False
    _go(claimer, found, looking)
    return True


async def _choice(tools: Tools, candidate: Candidate) -> Choice | None:
    """None: it would be refused. What is wrong with it is told when its turn has come."""
    try:
        return Choice(candidate, await terms(tools, _asked(candidate)))
    except Exception:
        return None


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
    """The description, under the title unless that was made of it; what no order takes is left out, and said so."""
    told = (
        task.description if task.description.startswith(task.title) else f"{task.title}\n\n{task.description}".strip()
    )
    return told if len(told) <= LONGEST_PROMPT else told[: LONGEST_PROMPT - len(CUT)] + CUT


async def _refuse(tools: Tools, candidate: Candidate, reason: str, pause: float) -> None:
    """What cannot be started now is tried again later."""
    async with tools.database.transaction() as session:
        if found := await still(session, tools.settings, candidate):
            await service.postpone(session, found.task, f"cannot be started: {reason}"[:2000], pause)


async def _start(tools: Tools, session: Session, claimer: Claimer, choice: Choice) -> tuple[WorkOrder, Claimed] | None:
    """None: somebody else was faster, it was changed, or what runs now stands in its way; look again. Raises NoPlace.

    The caller holds the lock of the places, and has seen that there is one.
    """
    found = await still(session, tools.settings, choice.candidate)
    if found is None or _asked(found) != _asked(choice.candidate):
        return None
    order = await _order(session, found.task, choice.columns)
    # An older order may be claimed in this one's stead, which then takes the next place: as many begin to wait as begin to run.
    if (claimed := await claimer.claim(session)) is None:
        raise NoPlace
    await service.start(session, found.task, order)
    return order, claimed


async def _order(session: Session, task: Task, columns: dict[str, Any]) -> WorkOrder:
    """The task's order: a new one, or the one that failed, which keeps its branch, its commits and its conversation."""
    if task.work_order_id is None:
        mine = {"task_id": task.task_id, "ticket_id": task.ticket_id, "spec_id": task.spec_id}
        return await workorders.create(session, **columns, **mine, offers=task.ticket_id is None)
    order = await orders.locked(session, task.work_order_id)
    if order.status in {OrderStatus.FAILED, OrderStatus.CANCELLED}:
        how = {name: columns[name] for name in ("agent", "model", "account")}
        renewed = {name: columns[name] for name in RENEWED}
        await workorders.retry(session, order, prompt=_told(order, columns["initial_prompt"]), terms=renewed, **how)
    return order


def _told(order: WorkOrder, prompt: str) -> str:
    """What a next try is told. The reason may be an agent's own words."""
    told = (
        f"The last try did not succeed:\n{fenced(order.reason[:4000])}\nGo on from what is there, and mend the cause."
    )
    return told if prompt == order.initial_prompt else f"{prompt}\n\n{told}"
