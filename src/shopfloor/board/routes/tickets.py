"""The HTTP door of tickets: made, listed, changed, archived (TKT-01…03)."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query

from shopfloor.board import queries, service
from shopfloor.board.models import Ticket
from shopfloor.board.routes.common import (
    Alike,
    ColumnWord,
    Limit,
    Person,
    ProjectName,
    TicketId,
    Tooled,
    detail,
    somebody,
)
from shopfloor.board.rules import Approval, Column, How
from shopfloor.board.schemas import TicketDetail, TicketList, TicketPatch, TicketRequest, TicketView
from shopfloor.board.steps.duplicates import DuplicateTickets, Likeness
from shopfloor.board.steps.move import check_room, move
from shopfloor.evidence import service as checks
from shopfloor.kit.db import Session
from shopfloor.kit.errors import Malformed
from shopfloor.kit.paging import Cursor
from shopfloor.projects import queries as projects
from shopfloor.projects.models import Project
from shopfloor.projects.rules import column
from shopfloor.tasks import service as tasks
from shopfloor.tasks.rules import priority
from shopfloor.workorders.steps import Tools

router = APIRouter(prefix="/api/v1/tickets", tags=["tickets"], dependencies=[Person])
NEEDED = ("title", "description", "kind", "priority", "rank", "blocked_by", "status")
PLAIN = ("title", "description", "kind", "priority", "owner", "spec_id", "github_issue_number", "rank")
Word = Annotated[str | None, Query(max_length=100)]


@router.post("", status_code=201)
async def create_ticket(body: TicketRequest, house: Tooled, likeness: Alike) -> TicketDetail:
    """Make a ticket, if there is none like it (TKT-02). A ticket that needs approval starts nothing before it has it."""
    async with house.database.reading() as session:
        project_id = (await projects.get(session, body.project)).project_id
    if not body.force_create:
        await likeness.warm(house.database, project_id)
    async with house.database.transaction() as session:
        project = await queries.lock_project(session, project_id)
        await check_room(session, project, Column.BACKLOG)
        if not body.force_create:
            await _refuse_repeated(session, house, likeness, project_id, body)
        ticket = await _make(session, house, project, body)
        return await detail(session, ticket)


async def _refuse_repeated(
    session: Session, house: Tools, likeness: Likeness, project_id: str, body: TicketRequest
) -> None:
    """Under the project's lock, so that two requests at once do not both find nothing. Raises DuplicateTickets."""
    limits = house.settings.board
    found = await likeness.alike(
        session,
        project_id,
        body.title,
        body.description,
        threshold=limits.duplicates_from,
        limit=limits.duplicate_candidates,
    )
    if found:
        named = ", ".join(f"{one.ticket_id} ({one.score:.2f})" for one in found)
        raise DuplicateTickets(f"{body.title[:80]!r} is like {named}", candidates=[one._asdict() for one in found])


async def _make(session: Session, house: Tools, project: Project, body: TicketRequest) -> Ticket:
    columns = body.model_dump(include=set(PLAIN), exclude_none=True)
    needs = project.approval or bool(body.require_approval)
    seconds = (body.approval_seconds or house.settings.board.approval_seconds) if needs else None
    ticket = await service.create(session, project, by=somebody(body.by), approval_seconds=seconds, **columns)
    if body.criteria:
        await checks.add_criteria(session, ticket.ticket_id, [one.model_dump() for one in body.criteria])
    if body.blocked_by:
        await service.set_blocked_by(session, ticket, body.blocked_by)
    for wish in body.tasks:
        await tasks.create(
            session,
            project_id=project.project_id,
            ticket_id=ticket.ticket_id,
            spec_id=ticket.spec_id,
            held=True,
            reason="its ticket is in backlog",
            priority=ticket.priority,
            scheduling=house.settings.scheduling,
            **wish.model_dump(),
        )
    return ticket


@router.get("")
async def list_tickets(
    house: Tooled,
    project: ProjectName = None,
    status: ColumnWord = None,
    priority_: Annotated[str | None, Query(alias="priority", max_length=20)] = None,
    owner: Word = None,
    approval: Approval | None = None,
    blocked: bool | None = None,
    spec: Word = None,
    q: Annotated[str, Query(max_length=500)] = "",
    archived: bool = False,
    sort: Annotated[str, Query(max_length=40)] = "-created_at",
    cursor: Cursor = None,
    limit: Limit = 50,
) -> TicketList:
    """Tickets, by what they must be, in pages (TKT-01)."""
    async with house.database.reading() as session:
        query = queries.filtered(
            project_id=(await projects.get(session, project)).project_id if project else None,
            status=column(status) if status else None,
            priority=priority(priority_) if priority_ else None,
            owner=owner,
            approval=approval,
            blocked=blocked,
            spec_id=spec,
            q=_storable(q),
            archived=archived,
        )
        rows, following, total = await queries.listing(session, query, sort=sort, cursor=cursor, limit=limit)
    return TicketList(
        tickets=[TicketView.model_validate(row) for row in rows], next_cursor=following, total_count=total
    )


def _storable(text: str) -> str:
    if "\x00" in text:
        raise Malformed("q must not contain NUL")
    return text


@router.get("/{ticket_id}")
async def get_ticket(ticket_id: TicketId, house: Tooled) -> TicketDetail:
    """One ticket, with its tasks counted, its evidence and its cost (TKT-03)."""
    async with house.database.reading() as session:
        return await detail(session, await queries.get(session, ticket_id))


@router.patch("/{ticket_id}")
async def change_ticket(ticket_id: TicketId, body: TicketPatch, house: Tooled) -> TicketDetail:
    """Change what is given, all of it or nothing; a `status` is a move like any other, asked of the ticket as it was (W23)."""
    given = body.model_dump(exclude_unset=True)
    if missing := next((name for name in NEEDED if name in given and given[name] is None), None):
        raise Malformed(f"{missing} cannot be null", hint="Leave it out to keep it as it is.")
    async with house.database.reading() as session:
        now = (await queries.get(session, ticket_id)).status
    if body.status is not None and body.status != now:
        said: dict[str, Any] = {"by": somebody(body.by), "reason": body.reason, "override": body.override}
        also = partial(_set, given=given)
        ticket = await move(house, ticket_id, body.status, how=How.PATCH, also=also, **said)
        async with house.database.reading() as session:
            return await detail(session, ticket)
    async with house.database.transaction() as session:
        _, ticket = await queries.locked_with_project(session, ticket_id)
        service.check_live(ticket)
        await _set(session, ticket, given)
        return await detail(session, ticket)


async def _set(session: Session, ticket: Ticket, given: dict[str, Any]) -> None:
    await service.change(session, ticket, **{name: given[name] for name in PLAIN if name in given})
    if given.get("blocked_by") is not None:
        await service.set_blocked_by(session, ticket, given["blocked_by"])


@router.delete("/{ticket_id}", status_code=204)
async def archive_ticket(
    ticket_id: TicketId, house: Tooled, reason: Annotated[str, Query(max_length=4000)] = ""
) -> None:
    """Take a ticket off the board; what waits of it is cancelled, what was done stays."""
    async with house.database.transaction() as session:
        ticket = await queries.locked(session, ticket_id)
        await service.archive(session, ticket, reason=_storable(reason))
