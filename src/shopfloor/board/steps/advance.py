"""One step of a ticket by itself: what `rules.flow` says from the tables, done once however often it is asked for."""

from collections.abc import Mapping, Sequence
from typing import Any

from shopfloor.board import flow_queries, queries, service
from shopfloor.board.models import Ticket
from shopfloor.board.rules import LONGEST_TASK, BlockedClass, Column, How, shortened
from shopfloor.board.rules.flow import CriterionSeen, State, Step, TaskSeen, next_step
from shopfloor.board.service import BOARD
from shopfloor.board.steps.move import MoveRefused, move, move_back
from shopfloor.board.steps.offer import offer
from shopfloor.evidence import queries as evidence
from shopfloor.evidence import rules as evidence_rules
from shopfloor.evidence import service as checks
from shopfloor.forges.texts import fenced
from shopfloor.kit.db import Session
from shopfloor.projects.models import Project
from shopfloor.tasks import queries as task_queries
from shopfloor.tasks import service as tasks
from shopfloor.tasks.models import Task
from shopfloor.workorders.steps import Tools


async def advance(tools: Tools, ticket_id: str) -> bool:
    """Do the ticket's next step; answers whether there was one. Raises nothing that only says 'not yet'."""
    async with tools.database.reading() as session:
        ticket = await queries.get(session, ticket_id)
        step = await upcoming(session, await session.get_one(Project, ticket.project_id), ticket, tools)
    if step.what == "nothing":
        return False
    if step.what == "forward":
        return await _forward(tools, ticket_id, ticket.status)
    async with tools.database.transaction() as session:
        project, ticket = await queries.locked_with_project(session, ticket_id)
        step = await upcoming(session, project, ticket, tools)
        if step.what in DOES:
            await DOES[step.what](tools, session, project, ticket, step)
        status = ticket.status
    if step.what == "back":
        await move(tools, ticket_id, step.to, how=How.FAILED, by=BOARD, reason=step.reason, expected=status)
    return True


async def upcoming(session: Session, project: Project, ticket: Ticket, tools: Tools) -> Step:
    """What the board would do next with the ticket by itself."""
    if ticket.archived_at is not None:
        return Step(what="nothing")
    return next_step(await state_of(session, project, ticket, tools.settings.board.most_returns))


async def _forward(tools: Tools, ticket_id: str, status: str) -> bool:
    """One column on, if its gates hold (C9: one step for each call). What is offered for review tells how it is proven."""
    if status in {Column.BUILDING_DONE, Column.TESTING}:
        await offer(tools, ticket_id)
    try:
        await move(tools, ticket_id, None, how=How.AUTO, by=BOARD, expected=status)
    except MoveRefused:
        return False
    return True


async def state_of(session: Session, project: Project, ticket: Ticket, most_returns: int) -> State:
    """How things stand with a ticket, by the tables."""
    own = await task_queries.of_ticket(session, ticket.ticket_id)
    standings = (await evidence.standings(session, {ticket.ticket_id: ticket.head_commit}))[ticket.ticket_id]
    errors = await flow_queries.errors(session, ticket)
    newest = await queries.newest_move(session, ticket.ticket_id)
    back = await flow_queries.newest_return(session, ticket.ticket_id)
    anew = back if back and back.how != How.AUTO else None
    return State(
        status=ticket.status,
        autonomous=project.autonomy,
        may_cost=service.may_cost(ticket),
        is_blocked=ticket.is_blocked,
        found_blocked=ticket.blocked_who == BOARD,
        blocked_class=ticket.blocked_class,
        blocked_at=ticket.blocked_at,
        progressed_at=await queries.progress(session, ticket, own),
        entered_at=newest.created_at if newest else ticket.created_at,
        sent_back_at=anew.created_at if anew else None,
        sent_back_why=anew.reason if anew else "",
        unblocked_at=ticket.unblocked_at,
        returns=await flow_queries.returns(session, ticket),
        waits_for_tickets=bool(await queries.waited_for(session, ticket.ticket_id)),
        head_commit=ticket.head_commit,
        tasks=[_seen(task) for task in own],
        criteria=[
            CriterionSeen(
                text=one.criterion.text,
                verdict=str(one.verdict),
                automatic=evidence_rules.automatic(one.criterion.check),
                reason=one.evidence.reason if one.evidence else "",
                found_at=one.evidence.created_at if one.evidence else None,
                errors=errors.get(one.criterion.criterion_id, 0),
            )
            for one in standings
        ],
        most_returns=most_returns,
        settled=ticket.merge_commit is not None or queries.overrode_evidence(newest),
    )


def _seen(task: Task) -> TaskSeen:
    return TaskSeen(
        task_id=task.task_id,
        phase=task.phase,
        status=task.status,
        held=task.held,
        waits=task.open_dependencies > 0,
        created_at=task.created_at,
        ended_at=task.ended_at,
        title=task.title,
        reason=task.reason,
        gathered=task.gathered,
    )


async def _hold(tools: Tools, session: Session, project: Project, ticket: Ticket, step: Step) -> None:
    del tools, project, step
    await service.hold_right(session, ticket)


async def _make(tools: Tools, session: Session, project: Project, ticket: Ticket, step: Step) -> None:
    """The one task of a column that was given none: the ticket in its own words."""
    del step
    criteria = await evidence.criteria(session, ticket.ticket_id)
    await _create(tools, session, project, ticket, ticket.title, _told(ticket, [one.text for one in criteria]))


async def _mend(tools: Tools, session: Session, project: Project, ticket: Ticket, step: Step) -> None:
    """The task of a ticket that came back: what failed, and to mend it."""
    await mend(tools, session, project, ticket, f"The work so far does not hold:\n{fenced(step.reason[:4000])}")


async def mend(tools: Tools, session: Session, project: Project, ticket: Ticket, why: str) -> Task:
    """Make a task that goes on from what is there, told why, in the ticket's column; it waits for whatever holds the ticket's work."""
    criteria = await evidence.criteria(session, ticket.ticket_id)
    told = f"{why}\nGo on from what is there, and mend the cause.\n\n"
    told += _told(ticket, [one.text for one in criteria], LONGEST_TASK - len(told))
    return await _create(tools, session, project, ticket, f"Mend: {ticket.title}", told)


async def _create(tools: Tools, session: Session, project: Project, ticket: Ticket, title: str, text: str) -> Task:
    begins = await service.terms(session, project.project_id, ticket.ticket_id, ticket.status)
    return await tasks.create(
        session,
        project_id=project.project_id,
        ticket_id=ticket.ticket_id,
        phase=ticket.status,
        title=title[:500],
        description=text,
        priority=ticket.priority,
        base_branch=ticket.branch,
        **begins | {"reason": begins["reason"] or "made by the board"},
        scheduling=tools.settings.scheduling,
    )


def _told(ticket: Ticket, criteria: Sequence[str], most: int = LONGEST_TASK) -> str:
    """The ticket's words and what must hold, in at most so many letters: the words make room for the criteria, as far as half of it."""
    where = f"ticket {ticket.ticket_id}"
    wanted = "\n\nIt is done when:\n" + "\n".join(f"- {text}" for text in criteria) if criteria else ""
    words = f"{ticket.title}\n\n{ticket.description}".strip()
    return shortened(shortened(words, where, max(most // 2, most - len(wanted))) + wanted, where, most)


async def _retry(tools: Tools, session: Session, project: Project, ticket: Ticket, step: Step) -> None:
    del project, ticket
    for task_id in step.task_ids:
        await tasks.retry(session, task_id, reason=step.reason, scheduling=tools.settings.scheduling)


async def _check(tools: Tools, session: Session, project: Project, ticket: Ticket, step: Step) -> None:
    del tools, step
    await request_checks(session, project, ticket)


async def _recheck(tools: Tools, session: Session, project: Project, ticket: Ticket, step: Step) -> None:
    del tools, step
    await recheck(session, project, ticket)


async def recheck(session: Session, project: Project, ticket: Ticket) -> None:
    """Have those criteria checked anew that could not be judged on the ticket's head."""
    standings = (await evidence.standings(session, {ticket.ticket_id: ticket.head_commit}))[ticket.ticket_id]
    unjudged = [
        {"criterion_id": one.criterion.criterion_id, "check": one.criterion.check, "text": one.criterion.text}
        for one in standings
        if one.verdict == evidence_rules.Stand.ERROR and evidence_rules.automatic(one.criterion.check)
    ]
    await request_checks(session, project, ticket, of=unjudged)


async def request_checks(
    session: Session,
    project: Project,
    ticket: Ticket,
    *,
    again: bool = False,
    of: Sequence[Mapping[str, Any]] | None = None,
) -> Any:
    """Have the ticket's criteria (or the checks given) made on its head; answers the run, or None when there is nothing to find out."""
    if ticket.head_commit is None or ticket.base_commit is None:
        return None
    return await checks.request_run(
        session,
        subject_id=ticket.ticket_id,
        purpose="criteria",
        project=project,
        base_commit=ticket.base_commit,
        commit=ticket.head_commit,
        checks=of,
        again=again,
    )


async def _block(tools: Tools, session: Session, project: Project, ticket: Ticket, step: Step) -> None:
    del tools, project
    await service.block(session, ticket, step.kind or BlockedClass.FAILING_CHECKS, reason=step.reason, who=BOARD)


async def _reopen(tools: Tools, session: Session, project: Project, ticket: Ticket, step: Step) -> None:
    del tools, project
    await move_back(session, ticket, Column.BUILDING, how=How.AUTO, by=BOARD, reason=step.reason)


async def _unblock(tools: Tools, session: Session, project: Project, ticket: Ticket, step: Step) -> None:
    del tools, project
    await service.unblock(session, ticket, reason=step.reason)


DOES = {
    "hold": _hold,
    "lift": _hold,
    "make": _make,
    "mend": _mend,
    "retry": _retry,
    "check": _check,
    "recheck": _recheck,
    "reopen": _reopen,
    "block": _block,
    "unblock": _unblock,
}
"""Steps that are rows only, done under the ticket's lock."""
