"""The one way a ticket changes its column: law, approval, blocks, dependencies, limits, gates; then history and fact."""

from collections.abc import Awaitable, Callable
from typing import Any

from shopfloor.board import queries, rules, service
from shopfloor.board.models import Ticket
from shopfloor.board.rules import MOVES, BlockedClass, Column, How
from shopfloor.board.rules.gates import Finding
from shopfloor.board.steps import gates
from shopfloor.kit.db import Session
from shopfloor.kit.errors import Conflict, Malformed, Unavailable
from shopfloor.projects import queries as projects
from shopfloor.projects.models import Project
from shopfloor.workorders.steps import Tools

TRIES = 5
"""How often the ticket may change under our eyes before we say so."""


class MoveRefused(Conflict):
    """The ticket may not go there yet."""

    hint = "'missing' says what each gate wants and who may override it."


class GateClosed(MoveRefused):
    """A gate of the ticket's column does not hold."""


class WipLimitReached(MoveRefused):
    """The column is full."""

    hint = "Finish or move a ticket of that column, raise the project's wip_limits, or override with a reason."


class NotApproved(MoveRefused):
    """The ticket is not approved."""

    hint = "POST /api/v1/tickets/approve; nothing of it starts before."


class StillBlocked(MoveRefused):
    """Something is in the ticket's way."""

    hint = "Remove what 'detail' names and POST …/unblock, or override with a reason."


class WaitsForTickets(MoveRefused):
    """The ticket waits for others."""

    hint = "It can start once they are done and merged; or change its blocked_by, or override with a reason."


class ReasonNeeded(Malformed):
    """Overriding a gate needs a reason."""

    hint = "Say in 'reason' why it may pass as it is; it stays in the ticket's history."


class TicketUnsteady(Unavailable):
    """The ticket changes faster than its gates can be looked at."""


async def move(
    tools: Tools,
    ticket_id: str,
    to: str | None,
    *,
    how: How,
    by: str,
    reason: str = "",
    override: bool = False,
    expected: str | None = None,
    also: Callable[[Session, Ticket], Awaitable[None]] | None = None,
) -> Ticket:
    """Move a ticket one column on (`to` None), or where it is told. `expected`: the column it must stand in, else it is left there.

    `also`: done to the moved ticket in the same transaction: both or neither. Raises IllegalMove, MoveRefused with what is missing, ReasonNeeded, TicketNotFound.
    """
    if override and not reason.strip():
        raise ReasonNeeded
    for _ in range(TRIES):
        seen = await _look(tools, ticket_id, to)
        async with tools.database.transaction() as session:
            project, ticket = await queries.locked_with_project(session, ticket_id)
            service.check_live(ticket)
            if expected is not None and ticket.status != expected:
                return ticket
            target = _target(ticket, to, how)
            forward = rules.is_forward(ticket.status, target)
            if forward and not seen.of(ticket):
                continue
            if forward:
                _check_seen(seen, by)
                await _spoken(session, ticket, by)
            passed = await _check(session, project, ticket, target, seen, override=override) if forward else []
            why = reason or ("its gates hold" if forward else "sent back")
            overridden = [finding.document() for finding in passed]
            await service.record_move(session, ticket, target, how=how, by=by, reason=why, overridden=overridden)
            if also is not None:
                await also(session, ticket)
            return ticket
    raise TicketUnsteady(f"{ticket_id} moved while its gates were looked at")


def _target(ticket: Ticket, to: str | None, how: How) -> Column:
    """Where the law lets it go. Raises IllegalMove, NoNextColumn, NotBack."""
    target = Column(to) if to else rules.next_column(ticket.status)
    MOVES.step(Column(ticket.status), target)
    if how == How.REGRESS:
        rules.check_back(ticket.status, target)
    return target


async def _look(tools: Tools, ticket_id: str, to: str | None) -> gates.Seen:
    """What git says to the gates; nothing is asked on the way back, which must be free when git cannot be read."""
    async with tools.database.reading() as session:
        ticket = await queries.get(session, ticket_id)
        project = await projects.get(session, ticket.project_id)
    forward = to is None or rules.is_forward(ticket.status, to)
    return await gates.look(tools, project, ticket) if forward else gates.Seen()


def _check_seen(seen: gates.Seen, by: str) -> None:
    """The board refuses nothing because git or the origin is away just now: it is told so, and comes back to it. A person may override."""
    for problem in seen.unread.values():
        if by == service.BOARD and isinstance(problem, Unavailable):
            raise problem


async def move_back(session: Session, ticket: Ticket, to: str, *, how: How, by: str, reason: str) -> None:
    """Move a locked ticket to an earlier column in the transaction of what led to it: no gate stands before that. Raises NotBack, TicketArchivedAlready."""
    service.check_live(ticket)
    rules.check_back(ticket.status, to)
    await service.record_move(session, ticket, to, how=how, by=by, reason=reason)


async def _spoken(session: Session, ticket: Ticket, by: str) -> None:
    """The board waited for somebody to say something: a person who moves the ticket has."""
    waits = ticket.blocked_class == BlockedClass.WAITING_ON_CLARIFICATION and ticket.blocked_who == service.BOARD
    if ticket.is_blocked and waits and by != service.BOARD:
        await service.unblock(session, ticket, reason=f"{by} moved it", who=by)


async def _check(
    session: Session, project: Project, ticket: Ticket, to: Column, seen: gates.Seen, *, override: bool
) -> list[Finding]:
    """What stands in the way and is overridden; raises MoveRefused with what is not. Approval is never overridden: it is given."""
    if not service.may_cost(ticket):
        raise NotApproved(f"{ticket.ticket_id} is {ticket.approval}", missing=[_approval(ticket).document()])
    found: list[tuple[type[MoveRefused], Finding]] = []
    if ticket.is_blocked:
        found.append((StillBlocked, Finding(gate="blocked", kind="blocked", missing=_blocked(ticket))))
    if ticket.status == Column.BACKLOG and (others := await queries.waited_for(session, ticket.ticket_id)):
        missing = f"waits for {', '.join(others[:5])}"
        found.append((WaitsForTickets, Finding(gate="blocked_by", kind="dependency", missing=missing)))
    if full := await _full(session, project, to):
        found.append((WipLimitReached, full))
    found += [(GateClosed, finding) for finding in await gates.findings(session, project, ticket, seen)]
    if found and not override:
        kind = found[0][0]
        raise kind(
            "; ".join(f"{finding.gate}: {finding.missing}" for _, finding in found),
            missing=[finding.document() for _, finding in found],
            column=ticket.status,
            to=str(to),
        )
    return [finding for _, finding in found]


async def check_room(session: Session, project: Project, column: Column) -> None:
    """Raises WipLimitReached when that column of a locked project takes in no new ticket."""
    if full := await _full(session, project, column):
        raise WipLimitReached(full.missing, hint="Move a ticket of that column on, or raise the project's wip_limits.")


async def _full(session: Session, project: Project, to: Column) -> Finding | None:
    limit = rules.wip_limit(project.wip_limits, to)
    if limit is None:
        return None
    there = await queries.count_in(session, project.project_id, to)
    if there < limit:
        return None
    return Finding(gate="wip_limit", kind="wip_limit", missing=f"{to} holds {there} of at most {limit} tickets")


def _approval(ticket: Ticket) -> Finding:
    return Finding(
        gate="approval", kind="approval", missing=f"it is {ticket.approval}", who="nobody; a person approves the ticket"
    )


def _blocked(ticket: Ticket) -> str:
    return f"{ticket.blocked_class}: {ticket.blocked_reason}"


async def outlook(tools: Tools, ticket_id: str) -> dict[str, Any]:
    """Why a ticket does not go on: the refusal it would meet, or nothing."""
    async with tools.database.reading() as session:
        ticket = await queries.get(session, ticket_id)
        project = await projects.get(session, ticket.project_id)
    if ticket.status == Column.DONE:
        return {"missing": []}
    seen = await gates.look(tools, project, ticket)
    async with tools.database.reading() as session:
        try:
            await _check(session, project, ticket, rules.next_column(ticket.status), seen, override=False)
        except MoveRefused as refused:
            return {"missing": refused.facts["missing"]}
    return {"missing": []}
