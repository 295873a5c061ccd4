"""The HTTP door of approval, duplicates and blocked tickets: every route of tickets whose path is fixed (TKT-11…16)."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from shopfloor.board import queries, service
from shopfloor.board.models import Ticket
from shopfloor.board.routes.common import Alike, Person, ProjectName, Tooled, detail, somebody
from shopfloor.board.rules import Approval
from shopfloor.board.schemas import CandidateView, Decision, Lookalikes, Lookup, TicketDetail
from shopfloor.board.steps.block import detect
from shopfloor.projects import queries as projects
from shopfloor.workorders.steps import Tools

router = APIRouter(prefix="/api/v1/tickets", tags=["tickets"], dependencies=[Person])


@router.get("/pending-review-count")
async def pending_review_count(house: Tooled, project: ProjectName = None) -> dict[str, Any]:
    """How many tickets wait for approval, for each project and owner (TKT-15)."""
    async with house.database.reading() as session:
        project_id = (await projects.get(session, project)).project_id if project else None
        rows = [row for row in await queries.pending_by(session) if project_id in {None, row[0]}]
    by_project: dict[str, int] = {}
    by_owner: dict[str, int] = {}
    for one, owner, number in rows:
        by_project[one] = by_project.get(one, 0) + number
        by_owner[owner or ""] = by_owner.get(owner or "", 0) + number
    return {"pending_count": sum(by_project.values()), "by_project": by_project, "by_owner": by_owner}


@router.get("/approval-status")
async def approval_status(
    house: Tooled, ticket_id: Annotated[str, Query(min_length=1, max_length=40)]
) -> dict[str, Any]:
    """Whether a ticket is approved, by whom, and how long it may still be decided (TKT-16)."""
    async with house.database.reading() as session:
        ticket = await queries.get(session, ticket_id)
        here = await queries.moment(session)
    return _status(ticket, (ticket.approval_deadline - here).total_seconds() if ticket.approval_deadline else None)


def _status(ticket: Ticket, left: float | None) -> dict[str, Any]:
    pending = ticket.approval == Approval.PENDING_REVIEW
    return {
        "ticket_id": ticket.ticket_id,
        "approval_status": ticket.approval,
        "is_approved": service.may_cost(ticket),
        "decided_by": ticket.approval_by,
        "reason": ticket.approval_reason,
        "deadline": ticket.approval_deadline,
        "seconds_left": max(0.0, left) if pending and left is not None else None,
    }


@router.post("/approve")
async def approve(body: Decision, house: Tooled) -> TicketDetail:
    """Let a ticket be worked on (TKT-11)."""
    return await _decided(house, body, Approval.APPROVED)


@router.post("/reject")
async def reject(body: Decision, house: Tooled) -> TicketDetail:
    """Let a ticket not be worked on; tasks that wait are held (TKT-12)."""
    return await _decided(house, body, Approval.REJECTED)


async def _decided(house: Tools, body: Decision, to: Approval) -> TicketDetail:
    async with house.database.transaction() as session:
        ticket = await queries.locked(session, body.ticket_id)
        service.check_live(ticket)
        await service.decide(session, ticket, to, by=somebody(body.by), reason=body.reason)
        return await detail(session, ticket)


@router.post("/check-duplicates")
async def check_duplicates(body: Lookup, house: Tooled, likeness: Alike) -> Lookalikes:
    """Tickets of the project that say much the same (TKT-13)."""
    threshold = body.threshold or house.settings.board.duplicates_from
    async with house.database.reading() as session:
        project_id = (await projects.get(session, body.project)).project_id
    await likeness.warm(house.database, project_id)
    async with house.database.reading() as session:
        found = await likeness.alike(
            session, project_id, body.title, body.description, threshold=threshold, limit=body.limit
        )
    shown = [CandidateView(**one._asdict()) for one in found]
    return Lookalikes(is_duplicate=bool(shown), threshold=threshold, candidates=shown)


@router.post("/detect-blocking")
async def detect_blocking(
    house: Tooled, seconds: Annotated[float | None, Query(ge=0, le=1e9)] = None
) -> dict[str, Any]:
    """Find tickets that get no further, now (TKT-14). `seconds`: how long they must have stood still; else the setting."""
    found = await detect(house, seconds=seconds)
    blocked = [
        {"ticket_id": one.ticket_id, "blocked_class": one.blocked_class, "reason": one.blocked_reason} for one in found
    ]
    return {"blocked": blocked, "count": len(blocked)}
