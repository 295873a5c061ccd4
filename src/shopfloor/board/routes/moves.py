"""The HTTP door of one ticket's way: moved, sent back, blocked, told of (TKT-04…10). Every move is steps.move."""

from typing import Any

from fastapi import APIRouter

from shopfloor.board import queries, rules, service
from shopfloor.board.routes.common import Person, TicketId, Tooled, detail, somebody
from shopfloor.board.rules import How
from shopfloor.board.schemas import (
    Block,
    CriterionRequest,
    History,
    Move,
    MoveView,
    Regress,
    Said,
    TicketDetail,
    Transition,
)
from shopfloor.board.steps import context
from shopfloor.board.steps.advance import recheck, request_checks
from shopfloor.board.steps.explain import explain
from shopfloor.board.steps.move import move
from shopfloor.evidence import queries as evidence
from shopfloor.evidence import service as checks
from shopfloor.kit.errors import Conflict
from shopfloor.workorders.schemas import Explanation
from shopfloor.workorders.steps import Tools

router = APIRouter(prefix="/api/v1/tickets/{ticket_id}", tags=["tickets"], dependencies=[Person])


class NothingToCheck(Conflict):
    """There is nothing to check."""

    hint = "A check needs a commit on the ticket's branch and a criterion that a program can judge."


async def _moved(house: Tools, ticket_id: str, to: str | None, how: How, said: Move) -> TicketDetail:
    ticket = await move(house, ticket_id, to, how=how, by=somebody(said.by), reason=said.reason, override=said.override)
    async with house.database.reading() as session:
        return await detail(session, ticket)


@router.post("/transition")
async def transition_ticket(ticket_id: TicketId, body: Transition, house: Tooled) -> TicketDetail:
    """Move a ticket to a column, through its gates (TKT-04)."""
    return await _moved(house, ticket_id, body.to_status, How.TRANSITION, body)


@router.post("/progress")
async def progress_ticket(ticket_id: TicketId, house: Tooled, body: Move | None = None) -> TicketDetail:
    """Move a ticket one column on, through its gates (TKT-05, RES-05)."""
    return await _moved(house, ticket_id, None, How.PROGRESS, body or Move())


@router.post("/regress")
async def regress_ticket(ticket_id: TicketId, house: Tooled, body: Regress | None = None) -> TicketDetail:
    """Send a ticket back, one column or to the one named; what is done is reopened (TKT-08)."""
    said = body or Regress()
    async with house.database.reading() as session:
        now = (await queries.get(session, ticket_id)).status
    to = said.to_status or rules.column_before(now)
    rules.check_back(now, to)
    return await _moved(house, ticket_id, to, How.REGRESS, Move(reason=said.reason, by=said.by))


@router.post("/block")
async def block_ticket(ticket_id: TicketId, house: Tooled, body: Block | None = None) -> TicketDetail:
    """Say what is in a ticket's way: its waiting tasks are held until it is unblocked (TKT-06)."""
    said = body or Block()
    async with house.database.transaction() as session:
        ticket = await queries.locked(session, ticket_id)
        service.check_live(ticket)
        reason = said.reason or "somebody said so"
        await service.block(session, ticket, said.blocked_class, reason=reason, who=somebody(said.by))
        return await detail(session, ticket)


@router.post("/unblock")
async def unblock_ticket(ticket_id: TicketId, house: Tooled, body: Said | None = None) -> TicketDetail:
    """Nothing is in the ticket's way any more (TKT-07): what failed is tried again, what could not be judged is checked anew."""
    said = body or Said()
    async with house.database.transaction() as session:
        project, ticket = await queries.locked_with_project(session, ticket_id)
        who = somebody(said.by)
        if await service.unblock(session, ticket, reason=said.reason or f"{who} said so", who=who):
            await recheck(session, project, ticket)
        return await detail(session, ticket)


@router.get("/context")
async def get_context(ticket_id: TicketId, house: Tooled) -> dict[str, Any]:
    """What is known around a ticket, as last gathered; gathered now if it never was (TKT-09)."""
    async with house.database.reading() as session:
        ticket = await queries.get(session, ticket_id)
        kept = ticket.context or await context.gather(session, ticket)
    return {"ticket_id": ticket_id, "context": kept, "summary": ticket.context_summary or context.summary(kept)}


@router.post("/update-context")
async def update_context(ticket_id: TicketId, house: Tooled) -> dict[str, Any]:
    """Gather it anew (TKT-10)."""
    ticket = await context.refresh(house.database, ticket_id)
    return {"ticket_id": ticket_id, "context": ticket.context, "summary": ticket.context_summary}


@router.get("/history")
async def get_history(ticket_id: TicketId, house: Tooled) -> History:
    """A ticket's way over the board, oldest first, with what was overridden."""
    async with house.database.reading() as session:
        await queries.get(session, ticket_id)
        rows = await queries.moves(session, ticket_id)
    return History(ticket_id=ticket_id, moves=[MoveView.model_validate(row) for row in rows])


@router.get("/explain")
async def explain_ticket(ticket_id: TicketId, house: Tooled) -> Explanation:
    """Why the ticket is where it is, since when, and what would change it."""
    return Explanation.model_validate(await explain(house, ticket_id))


@router.get("/criteria")
async def list_criteria(ticket_id: TicketId, house: Tooled) -> dict[str, Any]:
    """What must hold before the ticket is done, and how it stands on the newest commit of its branch."""
    async with house.database.reading() as session:
        ticket = await queries.get(session, ticket_id)
        found = await evidence.standings(session, {ticket_id: ticket.head_commit})
    shown = [
        {
            "criterion_id": one.criterion.criterion_id,
            "text": one.criterion.text,
            "check": one.criterion.check,
            "verdict": str(one.verdict),
            "reason": one.evidence.reason if one.evidence else "",
            "commit": one.evidence.commit if one.evidence else None,
            "said_by": one.evidence.said_by if one.evidence else None,
        }
        for one in found[ticket_id]
    ]
    return {"ticket_id": ticket_id, "head_commit": ticket.head_commit, "criteria": shown}


@router.post("/criteria", status_code=201)
async def add_criteria(ticket_id: TicketId, body: list[CriterionRequest], house: Tooled) -> dict[str, Any]:
    """Let more hold before the ticket is done."""
    async with house.database.transaction() as session:
        service.check_live(await queries.locked(session, ticket_id))
        await checks.add_criteria(session, ticket_id, [one.model_dump() for one in body])
    return await list_criteria(ticket_id, house)


@router.post("/check", status_code=202)
async def check_ticket(ticket_id: TicketId, house: Tooled) -> dict[str, Any]:
    """Have every criterion checked now, on the newest commit of the ticket's branch."""
    async with house.database.transaction() as session:
        project, ticket = await queries.locked_with_project(session, ticket_id)
        service.check_live(ticket)
        run = await request_checks(session, project, ticket, again=True)
    if run is None:
        raise NothingToCheck
    return {"run_id": run.run_id, "state": run.state, "commit": run.commit}
