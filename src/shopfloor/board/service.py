"""Tickets: created, changed, moved, decided about, blocked, archived. Sole writer of the board's tables."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

import sqlalchemy as sa

from shopfloor.board import merge_service, queries, rules
from shopfloor.board.models import Ticket, TicketDependency, TicketMove
from shopfloor.board.rules import APPROVAL, MAY_COST, MOVES, Approval, BlockedClass, Column, How, flow
from shopfloor.events import log as events
from shopfloor.events.catalog.board import (
    TicketApprovalChanged,
    TicketArchived,
    TicketBlocked,
    TicketChanged,
    TicketCreated,
    TicketHeadMoved,
    TicketTransitioned,
    TicketUnblocked,
    UnionChecked,
)
from shopfloor.kit import ids, log
from shopfloor.kit.db import Session, db_time
from shopfloor.kit.errors import Conflict, Malformed
from shopfloor.projects.models import Project
from shopfloor.tasks import queries as task_queries
from shopfloor.tasks import rules as task_rules
from shopfloor.tasks import service as tasks

logger = log.get(__name__)

BOARD = "board"
"""Who does what happens by itself."""


class TicketArchivedAlready(Conflict):
    """The ticket was archived."""

    hint = "Make a new ticket; what was archived is history."


class TicketHolds(Conflict):
    """The ticket lets nothing costly be done for it now."""

    hint = "Approve it, clear its way, or bring it to the column of the work first."


class TicketWaitsForItself(Conflict):
    """The ticket would wait for itself."""

    hint = "Leave out the tickets that 'circle' names."


class StrangeTicket(Malformed):
    """A ticket can only wait for tickets of its own project."""


async def create(
    session: Session, project: Project, *, by: str, approval_seconds: float | None, **columns: Any
) -> Ticket:
    """Make a ticket in the backlog. `approval_seconds`: how long a person has to approve it; None: nobody must."""
    now = await queries.moment(session)
    approval = Approval.NOT_REQUIRED if approval_seconds is None else Approval.PENDING_REVIEW
    ticket = Ticket(
        ticket_id=ids.new("tkt"),
        project_id=project.project_id,
        status=Column.BACKLOG,
        approval=approval,
        approval_deadline=cast("Any", None if approval_seconds is None else db_time(approval_seconds)),
        reason=f"created by {by}",
        **{"rank": rules.rank(columns["priority"], now.timestamp())} | columns,
    )
    session.add(ticket)
    await _kept(session, ticket)
    shown = {name: getattr(ticket, name) for name in TicketCreated.__struct_fields__}
    await events.append(session, TicketCreated(**shown))
    logger.info("ticket_created", ticket_id=ticket.ticket_id, project_id=ticket.project_id, approval=approval)
    return ticket


async def change(session: Session, ticket: Ticket, **columns: Any) -> None:
    """Set what differs, and tell it."""
    changed = {name: value for name, value in columns.items() if getattr(ticket, name) != value}
    if not changed:
        return
    if "priority" in changed and "rank" not in changed:
        changed["rank"] = rules.rank(changed["priority"], ticket.created_at.timestamp())
    for name, value in changed.items():
        setattr(ticket, name, value)
    if "spec_id" in changed:
        await tasks.set_waiting(session, ticket.ticket_id, spec_id=ticket.spec_id)
    await _kept(session, ticket)
    plain = {name: value for name, value in changed.items() if isinstance(value, str | int | float | bool | None)}
    plain |= {name: str(plain[name])[:200] for name in ("description", "context_summary") if name in plain}
    await events.append(session, TicketChanged(ticket_id=ticket.ticket_id, project_id=ticket.project_id, changes=plain))


async def archive(session: Session, ticket: Ticket, *, reason: str) -> None:
    """Take a ticket off the board; its history stays, its open tasks are cancelled. Raises TicketArchivedAlready."""
    check_live(ticket)
    for task in await task_queries.of_ticket(session, ticket.ticket_id):
        if task.status in {"pending", "running"}:
            await tasks.cancel(session, task.task_id, reason="its ticket was archived")
    await merge_service.leave(session, ticket.ticket_id, "its ticket was archived")
    ticket.archived_at = cast("Any", db_time())
    await _kept(session, ticket)
    await events.append(
        session, TicketArchived(ticket_id=ticket.ticket_id, project_id=ticket.project_id, reason=reason)
    )


def check_live(ticket: Ticket) -> None:
    """Raises TicketArchivedAlready."""
    if ticket.archived_at is not None:
        raise TicketArchivedAlready(f"{ticket.ticket_id} was archived")


async def record_move(
    session: Session,
    ticket: Ticket,
    to: str,
    *,
    how: How,
    by: str,
    reason: str,
    overridden: Sequence[Mapping[str, str]] = (),
) -> None:
    """Put a ticket into another column, with its history and fact. Only steps.move, which asks the gates, calls this."""
    before = Column(ticket.status)
    after = MOVES.step(before, Column(to))
    if before == Column.DONE:
        await merge_service.leave(session, ticket.ticket_id, f"its ticket went back to {to}")
    if ticket.merge_commit is not None and not rules.is_forward(before, to):
        await _begin_anew(session, ticket)
    ticket.status = after
    ticket.previous_status, ticket.reason = before, reason
    ticket.progressed_at = cast("Any", db_time())
    ticket.done_at = cast("Any", db_time() if to == Column.DONE else None)
    row = {"before": before, "after": to, "how": how, "moved_by": by, "reason": reason}
    session.add(TicketMove(ticket_id=ticket.ticket_id, **row, overridden=list(overridden)))
    await _kept(session, ticket)
    passed = tuple(f"{gate['gate']}: {gate['missing']}" for gate in overridden)
    fact = TicketTransitioned(ticket_id=ticket.ticket_id, project_id=ticket.project_id, **row, overridden=passed)
    await events.append(session, fact)
    await hold_right(session, ticket)
    logger.info("ticket_transitioned", ticket_id=ticket.ticket_id, **row, overridden=len(overridden))


async def _begin_anew(session: Session, ticket: Ticket) -> None:
    """Its branch is merged and gone: new work begins on a new one, and so do the tasks that wait."""
    await set_union(session, ticket, behind=0, conflicts=())
    await change(session, ticket, branch=None, base_commit=None, head_commit=None, change_id=None, merge_commit=None)
    await tasks.set_waiting(session, ticket.ticket_id, base_branch=None)


async def decide(session: Session, ticket: Ticket, to: Approval, *, by: str, reason: str = "") -> None:
    """Approve or reject a ticket, or let its time be up. Repeating what was decided changes nothing."""
    before = Approval(ticket.approval)
    if before == to:
        return
    ticket.approval = APPROVAL.step(before, to)
    ticket.approval_by, ticket.approval_reason = by, reason
    ticket.progressed_at = cast("Any", db_time())
    await _kept(session, ticket)
    fact = TicketApprovalChanged(
        ticket_id=ticket.ticket_id,
        project_id=ticket.project_id,
        before=before,
        after=to,
        decided_by=by,
        reason=reason,
    )
    await events.append(session, fact)
    await hold_right(session, ticket)
    logger.info("ticket_approval_changed", ticket_id=ticket.ticket_id, before=before, after=to, by=by)


async def time_out(session: Session, *, limit: int = 100) -> list[str]:
    """End the review of tickets whose deadline has passed; answers their ids."""
    due = (
        sa.select(Ticket)
        .where(Ticket.approval == Approval.PENDING_REVIEW, Ticket.approval_deadline <= db_time())
        .order_by(Ticket.approval_deadline)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    tickets = (await session.scalars(due)).all()
    for ticket in tickets:
        await decide(session, ticket, Approval.TIMED_OUT, by="deadline", reason="nobody decided in time")
    return [ticket.ticket_id for ticket in tickets]


def may_cost(ticket: Ticket) -> bool:
    """Whether anything costly may be done for a ticket."""
    return ticket.approval in MAY_COST


async def block(session: Session, ticket: Ticket, kind: BlockedClass, *, reason: str, who: str) -> bool:
    """Note what is in a ticket's way; answers whether that is news."""
    if (ticket.is_blocked, ticket.blocked_class, ticket.blocked_reason) == (True, kind, reason):
        return False
    ticket.is_blocked, ticket.blocked_class, ticket.blocked_reason = True, kind, reason
    ticket.blocked_who, ticket.blocked_at = who, cast("Any", db_time())
    await _kept(session, ticket)
    fact = TicketBlocked(ticket_id=ticket.ticket_id, project_id=ticket.project_id, blocked_class=kind, reason=reason)
    await events.append(session, fact)
    await hold_right(session, ticket)
    logger.info("ticket_blocked", ticket_id=ticket.ticket_id, blocked_class=kind, reason=reason)
    return True


async def unblock(session: Session, ticket: Ticket, *, reason: str, who: str = BOARD) -> bool:
    """Nothing is in its way any more; answers whether that is news. When a person says so, what failed may be tried again."""
    if not ticket.is_blocked:
        return False
    ticket.is_blocked, ticket.blocked_class, ticket.blocked_reason = False, None, ""
    ticket.blocked_who = ticket.blocked_at = None
    if who != BOARD:
        ticket.unblocked_at = cast("Any", db_time())
    ticket.progressed_at = cast("Any", db_time())
    await _kept(session, ticket)
    fact = TicketUnblocked(ticket_id=ticket.ticket_id, project_id=ticket.project_id, reason=reason)
    await events.append(session, fact)
    await hold_right(session, ticket)
    logger.info("ticket_unblocked", ticket_id=ticket.ticket_id, reason=reason)
    return True


async def terms(session: Session, project_id: str, ticket_id: str, column: str) -> dict[str, Any]:
    """The columns a new task of a ticket begins with: whether it is held and why, its spec.

    Raises TicketNotFound, StrangeTicket, TicketArchivedAlready.
    """
    ticket = await queries.locked(session, ticket_id)
    check_live(ticket)
    if ticket.project_id != project_id:
        raise StrangeTicket(f"{ticket_id} belongs to another project")
    held = not may_cost(ticket) or ticket.is_blocked or ticket.status != column
    return {"held": held, "reason": _why(ticket) if held else "", "spec_id": ticket.spec_id}


async def check_allows(session: Session, ticket_id: str, order_id: str | None = None) -> None:
    """Whether an agent may be asked to work for a ticket now, or to go on with an order of it by a person's word, whom only a person stops.

    Raises TicketNotFound, TicketArchivedAlready, TicketHolds. To be asked before a row of its tasks or orders is locked.
    """
    ticket = await queries.locked(session, ticket_id)
    check_live(ticket)
    task = await task_queries.of_order(session, order_id) if order_id else None
    elsewhere = task is not None and task.phase != ticket.status
    if not may_cost(ticket) or elsewhere or (ticket.is_blocked and ticket.blocked_who != BOARD):
        raise TicketHolds(f"{ticket_id} lets nothing costly be done now: {_why(ticket)}")


async def hold_right(session: Session, ticket: Ticket) -> None:
    """Hold the ticket's tasks that may not be started now, again or at all, and let go the others, in the transaction that changed it."""
    open_ = [task for task in await task_queries.of_ticket(session, ticket.ticket_id) if task.status != "completed"]
    right: dict[bool, list[str]] = {True: [], False: []}
    for task in open_:
        starts = flow.may_start(
            may_cost=may_cost(ticket),
            here=task.phase == ticket.status,
            is_blocked=ticket.is_blocked,
            blocked_at=ticket.blocked_at,
            found=ticket.blocked_who == BOARD,
            created_at=task.created_at,
        )
        if task.held == starts:
            right[not starts].append(task.task_id)
    for held, changed in right.items():
        if changed:
            why = _why(ticket) if held else f"its ticket is in {ticket.status}"
            await tasks.hold(session, ticket.ticket_id, held=held, why=why, only=changed)


def _why(ticket: Ticket) -> str:
    if not may_cost(ticket):
        return f"its ticket is {ticket.approval}"
    return (
        f"its ticket is blocked: {ticket.blocked_class}" if ticket.is_blocked else f"its ticket is in {ticket.status}"
    )


async def set_blocked_by(session: Session, ticket: Ticket, others: Collection[str]) -> None:
    """Replace what a ticket waits for, under its project's lock. Raises StrangeTicket, TicketWaitsForItself."""
    wanted = set(others)
    edges, strangers = (
        await queries.waits(session, ticket.project_id),
        wanted - await queries.existing(session, ticket.project_id, wanted),
    )
    if strangers:
        raise StrangeTicket(f"no ticket of this project: {', '.join(sorted(strangers)[:5])}")
    if circle := task_rules.circle(edges, ticket.ticket_id, wanted):
        raise TicketWaitsForItself(f"a circle: {' waits for '.join(circle)}", circle=circle)
    await session.execute(sa.delete(TicketDependency).where(TicketDependency.ticket_id == ticket.ticket_id))
    session.add_all(TicketDependency(ticket_id=ticket.ticket_id, blocked_by=other) for other in sorted(wanted))
    await session.flush()
    named = ",".join(sorted(wanted))
    fact = TicketChanged(ticket_id=ticket.ticket_id, project_id=ticket.project_id, changes={"blocked_by": named})
    await events.append(session, fact)


async def set_head(
    session: Session,
    ticket: Ticket,
    *,
    branch: str,
    base_branch: str,
    base_commit: str,
    head_commit: str,
    why: str,
) -> bool:
    """The ticket's branch stands at another commit: what was proven elsewhere is stale. Answers whether that is news.

    A ticket that was done with another head, and is neither merged nor archived, is done no more: it goes back to building, to be proven anew.
    """
    before = ticket.head_commit
    ticket.branch, ticket.base_branch, ticket.base_commit = branch, base_branch, base_commit
    ticket.head_commit = head_commit
    if before == head_commit:
        await _kept(session, ticket)
        return False
    ticket.progressed_at = cast("Any", db_time())
    if ticket.merge_commit is not None:  # of the head before: this one is not merged, and wants a change of its own
        await change(session, ticket, merge_commit=None, change_id=None)
    await _kept(session, ticket)
    proofs = (await queries.proofs(session, {ticket.ticket_id: head_commit})).get(ticket.ticket_id, {})
    fact = TicketHeadMoved(
        ticket_id=ticket.ticket_id,
        project_id=ticket.project_id,
        before=before,
        after=head_commit,
        why=why,
        branch=branch,
        found={key: (proof.found, proof.verdict) for key, proof in proofs.items() if proof.verdict},
    )
    await events.append(session, fact)
    logger.info("ticket_head_moved", ticket_id=ticket.ticket_id, before=before, after=head_commit, why=why)
    if before is not None and (ticket.status, ticket.archived_at, ticket.merge_commit) == (Column.DONE, None, None):
        reason = f"its branch moved to {head_commit[:12]} ({why}): what is done is not proven there"
        await record_move(session, ticket, Column.BUILDING, how=How.AUTO, by=BOARD, reason=reason)
    return True


async def set_change(session: Session, ticket: Ticket, change_id: str, offered: str) -> None:
    """The ticket's branch was offered for review; `offered` is the hash of what was said."""
    ticket.offered = offered
    await change(session, ticket, change_id=change_id)


async def set_merged(session: Session, ticket: Ticket, merge_commit: str) -> None:
    """The ticket's branch was merged."""
    await change(session, ticket, merge_commit=merge_commit)


async def set_union(session: Session, ticket: Ticket, *, behind: int, conflicts: Sequence[Mapping[str, Any]]) -> bool:
    """What the ticket's branch does not merge with, of `{with, paths}`; answers whether that is news."""
    found = [dict(one) for one in conflicts]
    if (ticket.behind, ticket.conflicts) == (behind, found):
        return False
    ticket.behind, ticket.conflicts = behind, found
    await _kept(session, ticket)
    fact = UnionChecked(
        ticket_id=ticket.ticket_id,
        project_id=ticket.project_id,
        head_commit=ticket.head_commit or "",
        behind=behind,
        conflicts_with=tuple(str(one["with"]) for one in found),
    )
    await events.append(session, fact)
    return True


async def set_context(session: Session, ticket: Ticket, context: dict[str, Any], summary: str) -> None:
    """What is known around a ticket, gathered anew."""
    ticket.context, ticket.context_summary = context, summary
    await _kept(session, ticket)


async def _kept(session: Session, ticket: Ticket) -> None:
    await session.flush()
    await session.refresh(ticket)
