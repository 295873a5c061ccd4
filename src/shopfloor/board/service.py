"""The board's tickets: the branch they gather on, and their merge. Sole writer of its tables."""

from collections.abc import Sequence
from typing import Any, cast

from shopfloor.board import queries
from shopfloor.board.models import QueuedMerge, Ticket
from shopfloor.board.rules.merging import MERGE, QUEUED, MergeState
from shopfloor.events import log as events
from shopfloor.events.catalog.board import MergeQueueChanged, TicketChanged, TicketHeadMoved, UnionChecked
from shopfloor.kit import log
from shopfloor.kit.db import Session, db_time

logger = log.get(__name__)


async def set_head(
    session: Session,
    ticket: Ticket,
    *,
    branch: str,
    base_branch: str | None,
    base_commit: str | None,
    head_commit: str,
    why: str,
) -> None:
    """Note where the ticket's branch stands now; what was proven on another commit is stale."""
    before = ticket.head_commit
    ticket.branch, ticket.base_branch, ticket.base_commit = branch, base_branch, base_commit
    if before == head_commit:
        return
    ticket.head_commit = head_commit
    ticket.progressed_at = cast("Any", db_time())
    fact = TicketHeadMoved(
        ticket_id=ticket.ticket_id, project_id=ticket.project_id, before=before, after=head_commit, why=why
    )
    await events.append(session, fact)
    await session.flush()
    logger.info("ticket_head_moved", ticket_id=ticket.ticket_id, commit=head_commit, why=why)


async def set_change(session: Session, ticket: Ticket, change_id: str) -> None:
    """Note under which change the ticket's branch is offered."""
    await _note(session, ticket, change_id=change_id)


async def set_merged(session: Session, ticket: Ticket, merge_commit: str) -> None:
    """Note the commit that made the ticket's work part of its base."""
    await _note(session, ticket, merge_commit=merge_commit)


async def _note(session: Session, ticket: Ticket, **changes: str) -> None:
    if all(getattr(ticket, name) == value for name, value in changes.items()):
        return
    for name, value in changes.items():
        setattr(ticket, name, value)
    ticket.progressed_at = cast("Any", db_time())
    fact = TicketChanged(ticket_id=ticket.ticket_id, project_id=ticket.project_id, changes=dict(changes))
    await events.append(session, fact)
    await session.flush()


async def set_union(session: Session, ticket: Ticket, behind: int, conflicts: Sequence[dict[str, Any]]) -> bool:
    """Note what the ticket's branch does not merge with; answers whether that is news."""
    if (ticket.behind, ticket.conflicts) == (behind, list(conflicts)):
        return False
    ticket.behind, ticket.conflicts = behind, list(conflicts)
    fact = UnionChecked(
        ticket_id=ticket.ticket_id,
        project_id=ticket.project_id,
        head_commit=ticket.head_commit or "",
        behind=behind,
        conflicts_with=tuple(one["with"] for one in conflicts),
    )
    await events.append(session, fact)
    await session.flush()
    return True


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


async def step_merge(session: Session, row: QueuedMerge, to: MergeState, reason: str) -> None:
    """Move a queued merge on, with its fact."""
    before, row.state = row.state, MERGE.step(MergeState(row.state), to)
    row.reason = reason
    if to not in QUEUED:
        row.ended_at = cast("Any", db_time())
    await _tell(session, row, before, reason)


async def _tell(session: Session, row: QueuedMerge, before: str, reason: str) -> None:
    fact = MergeQueueChanged(
        ticket_id=row.ticket_id, project_id=row.project_id, before=before, after=row.state, reason=reason
    )
    await events.append(session, fact)
    await session.flush()
    logger.info("merge_queue_moved", ticket_id=row.ticket_id, state=row.state, reason=reason)
