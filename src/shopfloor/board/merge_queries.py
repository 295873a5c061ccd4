"""Reads of live branches and of the merge queue."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from shopfloor.board.models import QueuedMerge, Ticket
from shopfloor.board.rules.merging import QUEUED
from shopfloor.evidence import rules as evidence
from shopfloor.evidence.models import CheckRun, Criterion
from shopfloor.forges.models import Change
from shopfloor.kit.db import Session
from shopfloor.projects.models import Project
from shopfloor.tasks.models import Task
from shopfloor.workorders.models import WorkOrder


async def live(session: Session, project_id: str) -> Sequence[Ticket]:
    """The project's tickets whose branches are not merged yet."""
    mine = (Ticket.project_id == project_id, Ticket.head_commit.is_not(None))
    open_ = (Ticket.merge_commit.is_(None), Ticket.archived_at.is_(None))
    return (await session.scalars(sa.select(Ticket).where(*mine, *open_).order_by(Ticket.ticket_id))).all()


async def projects_alive(session: Session) -> Sequence[str]:
    """Projects that have a live branch."""
    alive = (Ticket.head_commit.is_not(None), Ticket.merge_commit.is_(None), Ticket.archived_at.is_(None))
    return (await session.scalars(sa.select(Ticket.project_id).where(*alive).distinct())).all()


async def queue(session: Session, project_id: str) -> Sequence[QueuedMerge]:
    """What waits or is at work in a project's merge queue, first come first."""
    mine = (QueuedMerge.project_id == project_id, QueuedMerge.state.in_(QUEUED))
    return (await session.scalars(sa.select(QueuedMerge).where(*mine).order_by(QueuedMerge.id))).all()


async def queues(session: Session) -> Sequence[str]:
    """Projects whose merge queue is not empty."""
    query = sa.select(QueuedMerge.project_id).where(QueuedMerge.state.in_(QUEUED)).distinct()
    return (await session.scalars(query)).all()


async def left_queue(session: Session, project_id: str, most: int = 20) -> Sequence[QueuedMerge]:
    """Those who left the queue last."""
    mine = (QueuedMerge.project_id == project_id, QueuedMerge.state.not_in(QUEUED))
    return (
        await session.scalars(sa.select(QueuedMerge).where(*mine).order_by(QueuedMerge.id.desc()).limit(most))
    ).all()


async def queued(session: Session, ticket_id: str) -> QueuedMerge | None:
    """The ticket's place in the merge queue, or how it left it last."""
    mine = sa.select(QueuedMerge).where(QueuedMerge.ticket_id == ticket_id).order_by(QueuedMerge.id.desc()).limit(1)
    return await session.scalar(mine)


async def work_of(session: Session, task_id: str) -> WorkOrder | None:
    """The delivered work order of a task, if it has one."""
    mine = sa.select(WorkOrder).join(Task, Task.work_order_id == WorkOrder.agent_work_order_id)
    return await session.scalar(mine.where(Task.task_id == task_id, WorkOrder.head_commit.is_not(None)))


async def merged_elsewhere(session: Session) -> list[tuple[Ticket, str]]:
    """Tickets whose change is merged and who do not know it, with the commit."""
    query = sa.select(Ticket, Change.merge_commit).join(Change, Change.change_id == Ticket.change_id)
    mine = query.where(Ticket.merge_commit.is_(None), Change.merge_commit.is_not(None))
    return [(ticket, str(commit)) for ticket, commit in (await session.execute(mine)).all()]


async def automatic(session: Session, ticket_ids: Sequence[str]) -> list[dict[str, Any]]:
    """The checks of these tickets' criteria that need nobody to look."""
    query = sa.select(Criterion).where(Criterion.subject_id.in_(ticket_ids), Criterion.retired_at.is_(None))
    found = (await session.scalars(query.order_by(Criterion.subject_id, Criterion.position))).all()
    return [
        {"criterion_id": one.criterion_id, "check": one.check, "text": one.text}
        for one in found
        if evidence.automatic(one.check)
    ]


async def ready(session: Session) -> Sequence[Ticket]:
    """Tickets that are done and offered, whose project merges by itself, and that were not in the queue with this head yet."""
    queued_before = sa.exists().where(
        QueuedMerge.ticket_id == Ticket.ticket_id, QueuedMerge.head_commit == Ticket.head_commit
    )
    done = (Ticket.status == "done", Ticket.merge_commit.is_(None), Ticket.archived_at.is_(None))
    offered = (Ticket.change_id.is_not(None), Ticket.head_commit.is_not(None), ~queued_before)
    query = sa.select(Ticket).join(Project, Project.project_id == Ticket.project_id)
    query = query.where(Project.merge_queue, *done, *offered).order_by(Ticket.done_at, Ticket.ticket_id)
    return (await session.scalars(query)).all()


async def failed_after_merge(session: Session) -> list[tuple[Ticket, CheckRun]]:
    """Tickets that are done and merged, and whose criteria do not hold on the merged commit."""
    query = sa.select(Ticket, CheckRun).join(
        CheckRun, sa.and_(CheckRun.subject_id == Ticket.ticket_id, CheckRun.commit == Ticket.merge_commit)
    )
    failed = (CheckRun.purpose == "merged", CheckRun.verdict == "failed")
    return [(row[0], row[1]) for row in await session.execute(query.where(Ticket.status == "done", *failed))]


async def refused_unheard(session: Session) -> list[tuple[Ticket, QueuedMerge]]:
    """Tickets that are done, and whose head the queue refused."""
    same = sa.and_(QueuedMerge.ticket_id == Ticket.ticket_id, QueuedMerge.head_commit == Ticket.head_commit)
    query = sa.select(Ticket, QueuedMerge).join(QueuedMerge, same)
    mine = query.where(Ticket.status == "done", QueuedMerge.state == "refused", Ticket.merge_commit.is_(None))
    return [(row[0], row[1]) for row in await session.execute(mine)]
