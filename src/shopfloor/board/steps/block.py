"""Tickets that get no further: found, told why by the facts, and given a task that clears the way where an agent can."""

from typing import Any

from shopfloor.board import flow_queries, queries, rules, service
from shopfloor.board.models import Ticket
from shopfloor.board.rules import BlockedClass
from shopfloor.board.rules.flow import State
from shopfloor.board.service import BOARD
from shopfloor.board.steps.advance import state_of
from shopfloor.forges.texts import fenced
from shopfloor.kit.db import Session
from shopfloor.kit.errors import Problem
from shopfloor.projects.models import Project
from shopfloor.tasks import service as tasks
from shopfloor.workorders.steps import Tools

REMEDY = "Clear the way: "


async def detect(tools: Tools, *, seconds: float | None = None) -> list[Ticket]:
    """Block every ticket that stood still for `seconds` (else the setting) and has a cause; answers those (TKT-14)."""
    still = tools.settings.board.blocking_seconds if seconds is None else seconds
    async with tools.database.reading() as session:
        found = [ticket.ticket_id for ticket in await flow_queries.overdue(session, still)]
    return [ticket for ticket_id in found if (ticket := await _judge(tools, ticket_id, still))]


async def _judge(tools: Tools, ticket_id: str, still: float) -> Ticket | None:
    async with tools.database.transaction() as session:
        project, ticket = await queries.locked_with_project(session, ticket_id)
        if ticket.is_blocked or ticket.archived_at is not None:
            return None
        state = await state_of(session, project, ticket, tools.settings.board.most_returns)
        silent = (await queries.moment(session) - state.progressed_at).total_seconds()
        if silent < still or (cause := _cause(state)) is None:
            return None
        kind, reason = cause
        await service.block(session, ticket, kind, reason=f"{reason}; nothing happened for {silent:.0f} s", who=BOARD)
        may = project.autonomy and service.may_cost(ticket) and tools.settings.board.remedy
        if kind == BlockedClass.FAILING_CHECKS and may:
            await _remedy(tools, session, project, ticket)
        return ticket


async def undelivered(tools: Tools, ticket_id: str, problem: Problem) -> None:
    """What a task made cannot be brought into its ticket's branch: said on the card, until it was brought in."""
    async with tools.database.transaction() as session:
        ticket = await queries.locked(session, ticket_id)
        if not ticket.is_blocked and ticket.archived_at is None:
            reason = f"its branch does not take in what was made: {problem.message} {problem.hint}".strip()
            await service.block(session, ticket, BlockedClass.ENVIRONMENT, reason=reason[:2000], who=BOARD)


def _cause(state: State) -> tuple[BlockedClass, str] | None:
    own = [task for task in state.tasks if task.phase == state.status]
    running = [task for task in own if task.status == "running"]
    checking = any(one.verdict == "running" for one in state.criteria)
    if running or checking:
        return None  # somebody is at work; their own time limits end that
    failed = [task for task in own if task.status == "failed"]
    bad = [one for one in state.criteria if one.verdict == "failed"]
    broken = [task for task in failed if rules.is_environment(task.reason)]
    unjudged = [one for one in state.criteria if one.verdict == "error"]
    waiting = [task for task in own if task.status == "pending" and task.waits]
    kind = rules.blocked_by_facts(
        open_dependencies=bool(waiting) or state.waits_for_tickets,
        failing=bool(failed or bad),
        broken=bool(broken or unjudged),
        undecided=True,
    )
    told: dict[Any, str] = {
        BlockedClass.ENVIRONMENT: _named("could not be done or judged here", [*broken, *unjudged]),
        BlockedClass.FAILING_CHECKS: _named("failed", [*failed, *bad]),
        BlockedClass.DEPENDENCY: _named("wait for others", waiting) if waiting else "it waits for other tickets",
        BlockedClass.WAITING_ON_CLARIFICATION: "nothing runs, and no gate opens by itself: somebody must say or do something",
    }
    return (kind, told[kind]) if kind else None


def _named(what: str, things: list[Any]) -> str:
    names = ", ".join(str(getattr(one, "task_id", "") or getattr(one, "text", ""))[:80] for one in things[:5])
    return f"{names} {what}"


async def _remedy(tools: Tools, session: Session, project: Project, ticket: Ticket) -> None:
    """One task that may run although its ticket is blocked: it was made to end that. The caller has seen that the ticket may cost."""
    told = f"This piece of work is stuck:\n{fenced(ticket.blocked_reason[:4000])}\nFind the cause and mend it.\n\n{ticket.title}"
    await tasks.create(
        session,
        project_id=project.project_id,
        ticket_id=ticket.ticket_id,
        spec_id=ticket.spec_id,
        phase=ticket.status,
        title=f"{REMEDY}{ticket.title}"[:500],
        description=rules.shortened(f"{told}\n\n{ticket.description}", f"ticket {ticket.ticket_id}"),
        priority=ticket.priority,
        base_branch=ticket.branch,
        reason="made by the board",
        scheduling=tools.settings.scheduling,
    )
