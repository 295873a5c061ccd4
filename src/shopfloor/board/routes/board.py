"""The HTTP door of the board (BRD-01…06)."""

from typing import Annotated, Any

from fastapi import APIRouter, Path

from shopfloor.board.routes.common import Limit, Person, ProjectName, TicketId, Tooled, detail, somebody
from shopfloor.board.rules import How
from shopfloor.board.schemas import BoardMove, Move, TicketDetail
from shopfloor.board.steps import view
from shopfloor.board.steps.move import move
from shopfloor.kit.paging import Cursor
from shopfloor.projects.rules import column

router = APIRouter(prefix="/api/v1/board", tags=["board"], dependencies=[Person])


@router.get("/view")
async def view_board(house: Tooled, project: ProjectName = None, limit: Limit = 100) -> dict[str, Any]:
    """Every column with its first cards; `position` is where to follow the events from (BRD-01)."""
    return await view.board(house.database, project, limit=limit)


@router.get("/column/{phase_id}")
async def view_column(
    phase_id: Annotated[str, Path(max_length=60)],
    house: Tooled,
    project: ProjectName = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """One column (BRD-03)."""
    return await view.column(house.database, project, column(phase_id), cursor, limit)


@router.get("/stats")
async def board_stats(house: Tooled, project: ProjectName = None) -> dict[str, Any]:
    """What each column holds (BRD-04)."""
    return await view.stats(house.database, project)


@router.get("/wip-violations")
async def wip_violations(house: Tooled, project: ProjectName = None) -> dict[str, Any]:
    """Columns that hold more than they may (BRD-05)."""
    return {"violations": await view.violations(house.database, project)}


@router.post("/move")
async def move_ticket(body: BoardMove, house: Tooled) -> TicketDetail:
    """Move a ticket to another column, through its gates (BRD-02)."""
    ticket = await move(
        house,
        body.ticket_id,
        body.target_phase,
        how=How.MOVE,
        by=somebody(body.by),
        reason=body.reason,
        override=body.override,
    )
    async with house.database.reading() as session:
        return await detail(session, ticket)


@router.post("/auto-transition/{ticket_id}")
async def auto_transition(ticket_id: TicketId, house: Tooled, body: Move | None = None) -> TicketDetail:
    """Move a ticket one column on if its gates hold (BRD-06, C9)."""
    said = body or Move()
    ticket = await move(
        house, ticket_id, None, how=How.AUTO, by=somebody(said.by), reason=said.reason, override=said.override
    )
    async with house.database.reading() as session:
        return await detail(session, ticket)
