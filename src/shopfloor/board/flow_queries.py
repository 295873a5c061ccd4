"""Reads of what may go on by itself, and of how often it did not."""

from collections.abc import Sequence

import sqlalchemy as sa

from shopfloor.board import queries
from shopfloor.board.models import Ticket, TicketDependency, TicketMove
from shopfloor.board.queries import unmet
from shopfloor.board.rules import LIMITS, ORDER, Approval, Column, How
from shopfloor.board.rules.flow import MOST_ERRORS
from shopfloor.evidence.models import Criterion, Evidence
from shopfloor.evidence.rules import Verdict
from shopfloor.forges import inbox
from shopfloor.forges.models import Delivery
from shopfloor.kit.db import Session, db_time
from shopfloor.projects.models import Project
from shopfloor.tasks.models import Task
from shopfloor.workorders.models import WorkOrder
from shopfloor.workorders.queries import told_of_orders
from shopfloor.workorders.rules import OrderStatus

NEAR = 20
"""How many tickets of a column are looked at when a place in the next one becomes free, at least."""


def _may_begin() -> sa.ColumnElement[bool]:
    """Tickets of a backlog that nothing keeps there: those that something does must not hide the others."""
    approved = Ticket.approval.in_([Approval.NOT_REQUIRED, Approval.APPROVED])
    waits = unmet(Ticket.ticket_id).order_by(None).correlate(Ticket).exists()
    return sa.and_(Ticket.status == Column.BACKLOG, Ticket.is_blocked.is_(False), approved, ~waits)


async def newest_return(session: Session, ticket_id: str) -> TicketMove | None:
    """The newest move that led a ticket backward, whoever made it."""
    places = {column: place for place, column in enumerate(ORDER)}
    backward = sa.case(places, value=TicketMove.after) < sa.case(places, value=TicketMove.before)
    query = sa.select(TicketMove).where(TicketMove.ticket_id == ticket_id, backward)
    return await session.scalar(query.order_by(TicketMove.id.desc()).limit(1))


async def returns(session: Session, ticket: Ticket) -> int:
    """How often a ticket went back by itself since a person last moved or unblocked it."""
    mine = TicketMove.ticket_id == ticket.ticket_id
    by_person = sa.select(sa.func.coalesce(sa.func.max(TicketMove.id), 0)).where(
        mine, TicketMove.moved_by.like("person:%")
    )
    query = sa.select(sa.func.count()).where(
        mine, TicketMove.how.in_([How.FAILED, How.REOPENED]), TicketMove.id > by_person.scalar_subquery()
    )
    if ticket.unblocked_at is not None:
        query = query.where(TicketMove.created_at > ticket.unblocked_at)
    return await session.scalar(query) or 0


async def errors(session: Session, ticket: Ticket) -> dict[str, int]:
    """How often each criterion could not be judged on the ticket's head; a judge whom somebody stopped counts as if that were too often."""
    judge = WorkOrder.agent_work_order_id == sa.func.substr(Evidence.said_by, len("agent:") + 1)
    stopped = sa.exists().where(judge, WorkOrder.status == OrderStatus.CANCELLED)
    query = (
        sa.select(Criterion.criterion_id, sa.func.sum(sa.case((stopped, MOST_ERRORS + 1), else_=1)))
        .join(Evidence, Evidence.criterion_id == Criterion.criterion_id)
        .where(Criterion.subject_id == ticket.ticket_id, Evidence.commit == ticket.head_commit)
        .where(Evidence.verdict == Verdict.ERROR, Evidence.check_hash == Criterion.check_hash)
        .group_by(Criterion.criterion_id)
    )
    return {row[0]: int(row[1]) for row in await session.execute(query)}


async def stirring(session: Session) -> list[str]:
    """Tickets that may have somewhere to go by themselves.

    Of autonomous projects those of working columns, and as many of the backlog as it may analyze; of all projects those whose branch
    lacks what a task made, those that no person blocked, and those whose change a forge told something of.
    """
    live = (Ticket.archived_at.is_(None), Ticket.project_id == Project.project_id)
    working = sa.and_(Project.autonomy, Ticket.status.not_in([Column.BACKLOG, Column.DONE]))
    found_blocked = sa.and_(Ticket.is_blocked, Ticket.blocked_who.not_like("person:%"))
    moving = sa.select(Ticket.ticket_id).where(*live, sa.or_(working, found_blocked))
    made = sa.select(Task.ticket_id).join(Ticket, Ticket.ticket_id == Task.ticket_id)
    made = made.where(Ticket.archived_at.is_(None), Task.status == "completed", ~Task.gathered)
    place = sa.func.row_number().over(partition_by=Ticket.project_id, order_by=(Ticket.rank, Ticket.ticket_id))
    waiting = (
        sa.select(Ticket.ticket_id, place.label("place"))
        .add_columns(_analyzing().label("most"))
        .where(*live, _may_begin(), Project.autonomy)
        .subquery()
    )
    first = sa.select(waiting.c.ticket_id).where(waiting.c.place <= waiting.c.most)
    told = sa.select(Delivery.work_order_id).where(inbox.open_facts(), ~told_of_orders())
    return list(await session.scalars(moving.union(first, made, told)))


def _analyzing() -> sa.ColumnElement[int]:
    """How many tickets a project may analyze at once."""
    return sa.func.coalesce(Project.wip_limits[Column.ANALYZING].as_integer(), LIMITS[Column.ANALYZING])


async def overdue(session: Session, seconds: float) -> Sequence[Ticket]:
    """Tickets in working columns that did not get further for so many seconds, and are not blocked yet."""
    query = sa.select(Ticket).where(
        Ticket.archived_at.is_(None),
        Ticket.is_blocked.is_(False),
        Ticket.status.not_in([Column.BACKLOG, Column.DONE]),
        Ticket.progressed_at <= db_time(-seconds),
    )
    return (await session.scalars(query.order_by(Ticket.progressed_at).limit(200))).all()


async def deliveries(session: Session, ticket_id: str) -> list[str]:
    """The completed tasks of a ticket whose work its branch has not taken in yet, oldest first; none once it is archived."""
    query = (
        sa.select(Task.task_id)
        .join(Ticket, Ticket.ticket_id == Task.ticket_id)
        .where(Ticket.archived_at.is_(None))
        .where(Task.ticket_id == ticket_id, Task.status == "completed", ~Task.gathered)
        .order_by(Task.ended_at, Task.task_id)
    )
    return list(await session.scalars(query))


async def neighbours(session: Session, ticket_id: str, left: str | None) -> list[str]:
    """Tickets that may move because this one did: the first of the column before the one it left (None: any), and those that wait for it."""
    ticket = await queries.get(session, ticket_id)
    query = sa.select(Ticket.ticket_id).where(Ticket.project_id == ticket.project_id, Ticket.archived_at.is_(None))
    query = query.where(sa.or_(Ticket.status != Column.BACKLOG, _may_begin()))
    if left is not None:
        query = query.where(Ticket.status == ORDER[max(0, ORDER.index(Column(left)) - 1)])
    else:
        query = query.where(Ticket.status != Column.DONE)
    limit = await session.scalar(sa.select(_analyzing()).where(Project.project_id == ticket.project_id))
    near = list(await session.scalars(query.order_by(Ticket.rank, Ticket.ticket_id).limit(max(NEAR, limit or 0))))
    waiting = sa.select(TicketDependency.ticket_id).where(TicketDependency.blocked_by == ticket_id)
    return [*near, *await session.scalars(waiting)]


async def review_ends(session: Session) -> float | None:
    """Seconds until the next review's time is up; None when nothing waits for approval."""
    query = sa.select(sa.func.min(Ticket.approval_deadline), db_time())
    earliest, here = (await session.execute(query.where(Ticket.approval == Approval.PENDING_REVIEW))).one()
    return None if earliest is None else (earliest - here).total_seconds()
