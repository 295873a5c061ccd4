"""A ticket's branch as a change for review, with the table of what is proven. Asked for twice it happens once."""

import hashlib
import json
from typing import Any

from shopfloor.board import queries, service
from shopfloor.board.models import Ticket
from shopfloor.evidence import queries as evidence
from shopfloor.forges import queries as changes
from shopfloor.forges.models import Change
from shopfloor.forges.port import BranchMoved
from shopfloor.forges.rules import ChangeState
from shopfloor.forges.turns import ChangeBusy
from shopfloor.kit import log
from shopfloor.kit.errors import Problem, Unavailable
from shopfloor.projects import queries as projects
from shopfloor.projects.models import Project
from shopfloor.workorders.steps import Tools

logger = log.get(__name__)


PASSING = (Unavailable, ChangeBusy, BranchMoved)
"""What says nothing of the work: the same may be done a moment later."""


def _fields(project: Project, ticket: Ticket) -> dict[str, Any]:
    """Of its Draft."""
    return {
        "work_order_id": ticket.ticket_id,
        "repository_url": project.repository_url,
        "base_branch": ticket.base_branch,
        "base_commit": ticket.base_commit,
        "head_branch": ticket.branch,
        "head_commit": ticket.head_commit,
        "title": ticket.title,
        "body": ticket.description,
    }


async def offer(tools: Tools, ticket_id: str, *, must: bool = False) -> Change | None:
    """Offer the ticket's head, or bring what was offered up to date; None when there is nothing new, or the forge says no.

    With `must`, raises what passes.
    """
    async with tools.database.reading() as session:
        ticket = await queries.get(session, ticket_id)
        project = await projects.get(session, ticket.project_id)
        if not (ticket.branch and ticket.head_commit and ticket.base_commit and ticket.base_branch):
            return None
        table = await evidence.evidence_table(session, ticket_id, ticket.head_commit)
        there = await changes.get(session, ticket.change_id) if ticket.change_id else None
        standing = await evidence.proven(session, ticket_id, ticket.head_commit)
    fields = _fields(project, ticket)
    said = json.dumps([fields, table, ticket.github_issue_number])
    offered = hashlib.sha256(said.encode()).hexdigest()
    if there is not None:
        same_head = there.head_commit == ticket.head_commit
        told = there.state != ChangeState.OPEN or not standing or ticket.offered == offered
        if there.state == ChangeState.CLOSED or (same_head and told):
            return there  # a person closed it; what was merged at an older head leaves the newer one to be offered anew
    try:
        change = await tools.repositories.forge(project.repository_url).open_change(
            tools.database, issue=ticket.github_issue_number, evidence=table, **fields
        )
    except Problem as problem:
        if must and isinstance(problem, PASSING):
            raise
        logger.warning("ticket_offer_failed", ticket_id=ticket_id, code=problem.code, reason=problem.message)
        return None
    async with tools.database.transaction() as session:
        await service.set_change(session, await queries.locked(session, ticket_id), change.change_id, offered)
    return change
