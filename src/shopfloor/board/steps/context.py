"""What is known around a ticket, for whoever works on it next: an agent or a person (TKT-09, TKT-10)."""

from typing import Any

from shopfloor.board import queries, service
from shopfloor.board.models import Ticket
from shopfloor.evidence import queries as evidence
from shopfloor.kit.clock import iso
from shopfloor.kit.db import Database, Session
from shopfloor.tasks import queries as tasks

MOST_RESULTS = 50


async def refresh(database: Database, ticket_id: str) -> Ticket:
    """Gather it anew and keep it."""
    async with database.transaction() as session:
        ticket = await queries.locked(session, ticket_id)
        context = await gather(session, ticket)
        await service.set_context(session, ticket, context, summary(context))
        return ticket


async def gather(session: Session, ticket: Ticket) -> dict[str, Any]:
    """Criteria and how they stand, what each task came to, the way over the board, what it waits for."""
    standings = (await evidence.standings(session, {ticket.ticket_id: ticket.head_commit}))[ticket.ticket_id]
    own = await tasks.of_ticket(session, ticket.ticket_id)
    moves = await queries.moves(session, ticket.ticket_id)
    return {
        "title": ticket.title,
        "description": ticket.description,
        "status": ticket.status,
        "branch": ticket.branch,
        "head_commit": ticket.head_commit,
        "criteria": [{"text": one.criterion.text, "verdict": str(one.verdict)} for one in standings],
        "tasks": [
            {
                "task_id": task.task_id,
                "phase": task.phase,
                "title": task.title,
                "status": task.status,
                "summary": str((task.result or {}).get("summary", ""))[:2000],
            }
            for task in own[-MOST_RESULTS:]
        ],
        "moves": [
            {"at": iso(one.created_at), "before": one.before, "after": one.after, "reason": one.reason[:500]}
            for one in moves[-MOST_RESULTS:]
        ],
        "blocked_by": [one for one, _ in await queries.blocked_by(session, ticket.ticket_id)],
    }


def summary(context: dict[str, Any]) -> str:
    """The context in a few lines."""
    done = [task for task in context["tasks"] if task["status"] == "completed"]
    proven = [one for one in context["criteria"] if one["verdict"] == "passed"]
    worked = f"{len(done)} of {len(context['tasks'])} tasks are completed"
    shown = f"{len(proven)} of {len(context['criteria'])} criteria are proven"
    lines = [f"{context['title']} is in {context['status']}.", f"{worked}, {shown}."]
    if context["moves"]:
        lines.append(f"Last move: to {context['moves'][-1]['after']}, {context['moves'][-1]['reason']}")
    lines += [f"{task['title']}: {task['summary']}" for task in done if task["summary"]]
    return "\n".join(lines)[:10_000]
