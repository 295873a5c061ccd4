"""Why a ticket is where it is, and what would change it."""

from typing import Any

from shopfloor.board import queries, rules
from shopfloor.board.models import Ticket
from shopfloor.board.rules import Approval, Column
from shopfloor.board.steps.move import outlook
from shopfloor.events import log as events
from shopfloor.events.log import Filters
from shopfloor.kit.clock import iso
from shopfloor.projects import queries as projects
from shopfloor.workorders.steps import Tools


async def explain(tools: Tools, ticket_id: str) -> dict[str, Any]:
    """State, since, reason, evidence (event positions) and what would change it."""
    async with tools.database.reading() as session:
        ticket = await queries.get(session, ticket_id)
        project = await projects.get(session, ticket.project_id)
        newest = await queries.newest_move(session, ticket_id)
        mine = Filters(entity_ids=frozenset({ticket_id}))
        rows = await events.history(session, mine, newest_first=True, limit=10)
    missing = (await outlook(tools, ticket_id))["missing"]
    return {
        "subject": ticket_id,
        "status": ticket.status,
        "since": newest.created_at if newest else ticket.created_at,
        "reason": ticket.blocked_reason if ticket.is_blocked else ticket.reason,
        "evidence": [_event(row) for row in rows],
        "what_would_change_it": _would(ticket, missing, autonomous=project.autonomy),
    }


def _event(row: Any) -> dict[str, Any]:
    position = f"{row[0]}-{row[1]}" if row[0] else str(row[1])
    return {"position": position, "event_type": row[2], "at": iso(row[11]), "payload": str(row[5])[:500]}


def _would(ticket: Ticket, missing: list[dict[str, str]], *, autonomous: bool) -> list[str]:
    if ticket.archived_at is not None:
        return []
    told = [f"{one['gate']}: {one['missing']} (may override: {one['who_may_override']})" for one in missing]
    if ticket.approval == Approval.PENDING_REVIEW:
        told.append(f"approve or reject; its review ends at {iso(ticket.approval_deadline)}")
    if ticket.status == Column.DONE:
        return [*told, "regress: it is reopened into building"]
    if not missing:
        told.append(f"progress: it can go to {rules.next_column(ticket.status)}")
    if not autonomous:
        told.append("its project is not autonomous: it moves when somebody moves it")
    return told
