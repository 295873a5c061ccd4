"""What the doors of the board share."""

from typing import Annotated, Any

from fastapi import Depends, Path, Query, Request

from shopfloor.auth.guard import person
from shopfloor.board import queries
from shopfloor.board.models import Ticket
from shopfloor.board.schemas import TicketDetail
from shopfloor.board.steps import view
from shopfloor.board.steps.duplicates import Likeness
from shopfloor.kit.db import Session
from shopfloor.workorders.routes import tools
from shopfloor.workorders.steps import Tools

Person = Depends(person)
Tooled = Annotated[Tools, Depends(tools)]
TicketId = Annotated[str, Path(max_length=40, pattern=r"^[A-Za-z0-9._-]+$")]
ProjectName = Annotated[str | None, Query(max_length=100, description="A project's id or name; all if left out.")]
Limit = Annotated[int, Query(ge=1, le=500)]
ColumnWord = Annotated[str | None, Query(max_length=60)]


def somebody(name: str) -> str:
    """A person as the history names them."""
    return f"person:{name.strip() or 'api'}"


def likeness(request: Request) -> Likeness:
    """The texts of tickets that this process keeps."""
    if not hasattr(request.app.state, "likeness"):
        request.app.state.likeness = Likeness(tools(request).settings.board.duplicate_model)
    found: Likeness = request.app.state.likeness
    return found


Alike = Annotated[Likeness, Depends(likeness)]


async def detail(session: Session, ticket: Ticket) -> TicketDetail:
    """A ticket with what stands below it."""
    card = (await view.shown_cards(session, [ticket]))[ticket.ticket_id]
    derived = {"blocked_by", "tasks", "evidence", "cost_usd"}
    plain: dict[str, Any] = {name: getattr(ticket, name) for name in TicketDetail.model_fields if name not in derived}
    return TicketDetail(
        **plain,
        blocked_by=[other for other, _ in await queries.blocked_by(session, ticket.ticket_id)],
        tasks=card["tally"],
        evidence=card["evidence"],
        cost_usd=card["cost_usd"],
    )
