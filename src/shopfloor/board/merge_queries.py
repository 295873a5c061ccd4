"""Reads of live branches and of the merge queue."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from shopfloor.board.models import QueuedMerge, Ticket, Union
from shopfloor.board.rules.merging import QUEUED
from shopfloor.evidence import rules as evidence
from shopfloor.evidence.models import CheckRun, Criterion
from shopfloor.forges.models import Change
from shopfloor.kit.db import Session
from shopfloor.projects.models import Project
from shopfloor.tasks.models import Task
from shopfloor.workorders.models import WorkOrder

ALIVE = (Ticket.head_commit.is_not(None), Ticket.merge_commit.is_(None), Ticket.archived_at.is_(None))
"""Tickets whose branches are not merged yet."""


async def live(session: Session, project_id: str) -> Sequence[Ticket]:
    """The project's tickets whose branches are not merged yet."""
    query = sa.select(Ticket).where(Ticket.project_id == project_id, *ALIVE)
    return (await session.scalars(query.order_by(Ticket.ticket_id))).all()


async def projects_alive(session: Session) -> Sequence[str]:
    """Projects that have a live branch."""
    return (await session.scalars(sa.select(Ticket.project_id).where(*ALIVE).distinct())).all()


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
    """The ticket's place in the merge queue, or how it left it last, for writing."""
    mine = sa.select(QueuedMerge).where(QueuedMerge.ticket_id == ticket_id).order_by(QueuedMerge.id.desc()).limit(1)
    return await session.scalar(mine.with_for_update().execution_options(populate_existing=True))


async def work_of(session: Session, task_id: str) -> WorkOrder | None:
    """The delivered work order of a task, if it has one."""
    mine = sa.select(WorkOrder).join(Task, Task.work_order_id == WorkOrder.agent_work_order_id)
    return await session.scalar(mine.where(Task.task_id == task_id, WorkOrder.head_commit.is_not(None)))


async def merged_elsewhere(session: Session) -> list[tuple[Ticket, str]]:
    """Tickets whose head is merged, by whichever change, and who do not know it, with the commit."""
    theirs = sa.and_(Change.work_order_id == Ticket.ticket_id, Change.head_commit == Ticket.head_commit)
    query = sa.select(Ticket, Change.merge_commit).join(Change, theirs)
    unaware = (Ticket.merge_commit.is_(None), Ticket.archived_at.is_(None))
    mine = query.where(Change.merge_commit.is_not(None), *unaware)
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
    """Tickets that are done, whose project merges by itself, and that were not in the queue with this head since."""
    mine = (QueuedMerge.ticket_id == Ticket.ticket_id, QueuedMerge.head_commit == Ticket.head_commit)
    before = sa.exists().where(*mine, QueuedMerge.created_at >= Ticket.done_at)
    query = sa.select(Ticket).join(Project, Project.project_id == Ticket.project_id)
    query = query.where(Project.merge_queue, *_finished(), Ticket.head_commit.is_not(None), ~before)
    return (await session.scalars(query.order_by(Ticket.done_at, Ticket.ticket_id))).all()


def _finished() -> list[sa.ColumnElement[bool]]:
    return [Ticket.status == "done", Ticket.merge_commit.is_(None), Ticket.archived_at.is_(None)]


async def judged_after_merge(session: Session) -> list[tuple[Ticket, CheckRun]]:
    """Tickets that are done and merged, with the newest run of their criteria on the merged commit, where it did not pass."""
    newer = aliased(CheckRun)
    same = (newer.subject_id == CheckRun.subject_id, newer.commit == CheckRun.commit, newer.purpose == CheckRun.purpose)
    query = sa.select(Ticket, CheckRun).join(
        CheckRun, sa.and_(CheckRun.subject_id == Ticket.ticket_id, CheckRun.commit == Ticket.merge_commit)
    )
    query = query.where(Ticket.status == "done", Ticket.archived_at.is_(None), CheckRun.purpose == "merged")
    query = query.where(CheckRun.verdict.in_(("failed", "error")))
    query = query.where(~sa.exists().where(*same, newer.created_at > CheckRun.created_at))
    return [(row[0], row[1]) for row in await session.execute(query)]


async def union(session: Session, project_id: str) -> tuple[Union, CheckRun] | None:
    """A project's live branches together, with the run that checks them."""
    query = sa.select(Union, CheckRun).join(CheckRun, CheckRun.run_id == Union.run_id)
    row = (await session.execute(query.where(Union.project_id == project_id))).first()
    return (row[0], row[1]) if row else None


async def union_shown(session: Session, project: Project) -> tuple[Union, CheckRun] | None:
    """The same while it says something: it is wanted, and a branch of it is live."""
    found = await union(session, project.project_id) if project.union_check else None
    if found is None:
        return None
    here = sa.select(Ticket.ticket_id).where(Ticket.ticket_id.in_(found[0].ticket_ids), *ALIVE).limit(1)
    return found if await session.scalar(here) else None


async def batch_of(session: Session, run_id: str) -> int:
    """How many tickets were merged together for a run of checks, those who left since too."""
    mine = sa.select(sa.func.count()).select_from(QueuedMerge).where(QueuedMerge.run_id == run_id)
    return await session.scalar(mine) or 0


async def merging_with(session: Session, row: QueuedMerge) -> Sequence[QueuedMerge]:
    """The others that one run of checks found fit together with a queued merge, and that are not merged yet."""
    if row.run_id is None:
        return []
    mine = (QueuedMerge.run_id == row.run_id, QueuedMerge.id != row.id, QueuedMerge.state == "merging")
    return (await session.scalars(sa.select(QueuedMerge).where(*mine).order_by(QueuedMerge.id))).all()


async def runs_of(session: Session, run: CheckRun) -> int:
    """How often this was checked."""
    same = (CheckRun.subject_id == run.subject_id, CheckRun.commit == run.commit, CheckRun.purpose == run.purpose)
    return await session.scalar(sa.select(sa.func.count()).where(*same)) or 0


async def refused_unheard(session: Session) -> list[tuple[Ticket, QueuedMerge]]:
    """Tickets that are done, and that the queue refused since."""
    newer = aliased(QueuedMerge)
    query = sa.select(Ticket, QueuedMerge).join(QueuedMerge, QueuedMerge.ticket_id == Ticket.ticket_id)
    query = query.where(*_finished(), QueuedMerge.state == "refused", QueuedMerge.ended_at > Ticket.done_at)
    query = query.where(~sa.exists().where(newer.ticket_id == Ticket.ticket_id, newer.id > QueuedMerge.id))
    return [(row[0], row[1]) for row in await session.execute(query)]
