"""Tickets in the merge queue, and projects' live branches together. Sole writer of both tables."""

from typing import Any, cast

import sqlalchemy as sa

from shopfloor.board import merge_queries as queries
from shopfloor.board.models import QueuedMerge, Ticket, Union
from shopfloor.board.rules.merging import MERGE, QUEUED, MergeState
from shopfloor.events import log as events
from shopfloor.events.catalog.board import MergeQueueChanged, UnionMade
from shopfloor.kit import log
from shopfloor.kit.db import Session, db_time

logger = log.get(__name__)


async def enqueue(session: Session, ticket: Ticket) -> QueuedMerge:
    """Let the ticket's branch, as it stands, be merged when its turn comes; it is queued once."""
    found = await queries.queued(session, ticket.ticket_id)
    if found and found.state in QUEUED and found.head_commit == ticket.head_commit:
        return found
    if found and found.state in {MergeState.WAITING, MergeState.CHECKING}:
        await step_merge(session, found, MergeState.LEFT, "the branch moved on and is queued anew")
    row = QueuedMerge(
        project_id=ticket.project_id,
        ticket_id=ticket.ticket_id,
        head_commit=ticket.head_commit or "",
        state=MergeState.WAITING,
        reason="waiting for its turn",
    )
    session.add(row)
    await session.flush()
    await _tell(session, row, "", row.reason)
    return row


async def leave(session: Session, ticket_id: str, reason: str) -> None:
    """Take a ticket out that is not being merged yet: what was queued is not what is wanted any more."""
    mine = (QueuedMerge.ticket_id == ticket_id, QueuedMerge.state.in_([MergeState.WAITING, MergeState.CHECKING]))
    for row in await session.scalars(sa.select(QueuedMerge).where(*mine).with_for_update()):
        await step_merge(session, row, MergeState.LEFT, reason)


async def step_merge(session: Session, row: QueuedMerge, to: MergeState, reason: str) -> None:
    """Move a queued merge on, with its fact."""
    before, row.state = row.state, MERGE.step(MergeState(row.state), to)
    row.reason = reason
    if to not in QUEUED:
        row.ended_at = cast("Any", db_time())
    await _tell(session, row, before, reason)


async def set_union(session: Session, project_id: str, commit: str, ticket_ids: list[str], run_id: str) -> None:
    """Note what a project's live branches are together, and which run checks that."""
    if (row := await session.get(Union, project_id, with_for_update=True)) is None:
        session.add(row := Union(project_id=project_id))
    row.commit, row.ticket_ids, row.run_id = commit, ticket_ids, run_id
    await session.flush()
    fact = UnionMade(project_id=project_id, commit=commit, ticket_ids=tuple(ticket_ids), run_id=run_id)
    await events.append(session, fact)
    logger.info("union_made", project_id=project_id, commit=commit, tickets=len(ticket_ids), run_id=run_id)


async def _tell(session: Session, row: QueuedMerge, before: str, reason: str) -> None:
    fact = MergeQueueChanged(
        ticket_id=row.ticket_id, project_id=row.project_id, before=before, after=row.state, reason=reason
    )
    await events.append(session, fact)
    await session.flush()
    logger.info("merge_queue_moved", ticket_id=row.ticket_id, state=row.state, reason=reason)
