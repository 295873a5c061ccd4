"""Reads of the board."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from shopfloor.board.models import Ticket, TicketDependency, TicketMove
from shopfloor.board.rules import ORDER, Approval, Column
from shopfloor.board.rules.fold import Card, Proof
from shopfloor.evidence import queries as evidence
from shopfloor.evidence.models import Criterion, Evidence
from shopfloor.evidence.queries import Standing
from shopfloor.evidence.rules import Stand
from shopfloor.kit import paging
from shopfloor.kit.db import Session, db_time
from shopfloor.kit.errors import NotFound
from shopfloor.projects.models import Project
from shopfloor.tasks.models import Task

SORTS = {
    "created_at": Ticket.created_at,
    "updated_at": Ticket.updated_at,
    "progressed_at": Ticket.progressed_at,
    "rank": Ticket.rank,
    "title": Ticket.title,
}


class TicketNotFound(NotFound):
    """There is no such ticket."""

    hint = "GET /api/v1/tickets lists them."


async def moment(session: Session) -> datetime:
    """The database's time."""
    return (await session.execute(sa.select(db_time()))).scalar_one()


async def get(session: Session, ticket_id: str) -> Ticket:
    """The ticket; raises TicketNotFound."""
    if (ticket := await session.get(Ticket, ticket_id)) is None:
        raise TicketNotFound(f"there is no ticket {ticket_id[:60]!r}")
    return ticket


async def locked(session: Session, ticket_id: str) -> Ticket:
    """The ticket, which nobody else changes before this transaction ends; raises TicketNotFound."""
    ticket = await session.get(Ticket, ticket_id, with_for_update=True, populate_existing=True)
    if ticket is None:
        raise TicketNotFound(f"there is no ticket {ticket_id[:60]!r}")
    return ticket


async def locked_with_project(session: Session, ticket_id: str) -> tuple[Project, Ticket]:
    """A ticket and its project, both locked in that order: nobody else fills a column meanwhile. Raises TicketNotFound."""
    project_id = (await get(session, ticket_id)).project_id
    project = await lock_project(session, project_id)
    return project, await locked(session, ticket_id)


async def lock_project(session: Session, project_id: str) -> Project:
    """The project; whoever else locks it waits. Rows that only refer to it may be written meanwhile."""
    query = sa.select(Project).where(Project.project_id == project_id).with_for_update(key_share=True)
    return (await session.scalars(query, execution_options={"populate_existing": True})).one()


async def waits(session: Session, project_id: str) -> dict[str, set[str]]:
    """Which tickets of a project wait for which."""
    query = (
        sa.select(TicketDependency.ticket_id, TicketDependency.blocked_by)
        .join(Ticket, Ticket.ticket_id == TicketDependency.ticket_id)
        .where(Ticket.project_id == project_id)
    )
    found: dict[str, set[str]] = defaultdict(set)
    for ticket_id, other in await session.execute(query):
        found[ticket_id].add(other)
    return found


async def existing(session: Session, project_id: str, ticket_ids: Collection[str]) -> set[str]:
    """Those of the tickets that the project has."""
    query = sa.select(Ticket.ticket_id).where(Ticket.project_id == project_id, Ticket.ticket_id.in_(ticket_ids))
    return set(await session.scalars(query))


async def blocked_by(session: Session, ticket_id: str) -> list[tuple[str, str]]:
    """What a ticket waits for: ticket and its column."""
    query = (
        sa.select(Ticket.ticket_id, Ticket.status)
        .join(TicketDependency, TicketDependency.blocked_by == Ticket.ticket_id)
        .where(TicketDependency.ticket_id == ticket_id)
        .order_by(Ticket.ticket_id)
    )
    return [(row[0], row[1]) for row in await session.execute(query)]


def unmet(ticket_id: Any) -> sa.Select[Any]:
    """The dependencies of a ticket whose work is not in the base yet: not done, or not merged; archived ones aside."""
    other = aliased(Ticket)
    return (
        sa.select(other.ticket_id)
        .join(TicketDependency, TicketDependency.blocked_by == other.ticket_id)
        .where(TicketDependency.ticket_id == ticket_id, other.archived_at.is_(None))
        .where(sa.or_(other.status != Column.DONE, sa.and_(other.branch.is_not(None), other.merge_commit.is_(None))))
        .order_by(other.ticket_id)
    )


async def waited_for(session: Session, ticket_id: str) -> list[str]:
    """The tickets that one waits for: their work is not in the base yet."""
    return list(await session.scalars(unmet(ticket_id)))


async def count_in(session: Session, project_id: str, column: str) -> int:
    """How many tickets stand in a column."""
    query = sa.select(sa.func.count()).where(
        Ticket.project_id == project_id, Ticket.archived_at.is_(None), Ticket.status == column
    )
    return await session.scalar(query) or 0


async def counts(session: Session, project_id: str | None) -> dict[str, int]:
    """How many tickets stand in each column, of a project or of all."""
    query = sa.select(Ticket.status, sa.func.count()).where(Ticket.archived_at.is_(None)).group_by(Ticket.status)
    if project_id:
        query = query.where(Ticket.project_id == project_id)
    found = {row[0]: row[1] for row in await session.execute(query)}
    return {column: found.get(column, 0) for column in ORDER}


async def crowded(session: Session, project_id: str | None) -> list[tuple[Project, str, int]]:
    """Project, column and number of tickets, wherever there are any."""
    counted = (
        sa.select(Ticket.project_id, Ticket.status, sa.func.count().label("number"))
        .where(Ticket.archived_at.is_(None))
        .group_by(Ticket.project_id, Ticket.status)
    )
    if project_id:
        counted = counted.where(Ticket.project_id == project_id)
    rows = counted.subquery()
    query = sa.select(Project, rows.c.status, rows.c.number).join(rows, rows.c.project_id == Project.project_id)
    found = await session.execute(query.order_by(Project.project_id, rows.c.status))
    return [(row[0], row[1], row[2]) for row in found]


EMPTY: dict[str, Any] = {"count": 0, "blocked": 0, "pending_review": 0, "longest_seconds": 0.0}


async def statistics(session: Session, project_id: str | None) -> dict[str, dict[str, Any]]:
    """Column -> what it holds, and since when the ticket that stood still longest did."""
    here = await moment(session)
    query = (
        sa.select(
            Ticket.status,
            sa.func.count(),
            sa.func.count().filter(Ticket.is_blocked),
            sa.func.count().filter(Ticket.approval == Approval.PENDING_REVIEW),
            sa.func.min(Ticket.progressed_at),
        )
        .where(Ticket.archived_at.is_(None))
        .group_by(Ticket.status)
    )
    if project_id:
        query = query.where(Ticket.project_id == project_id)
    return {
        status: {
            "count": count,
            "blocked": blocked,
            "pending_review": pending,
            "longest_seconds": max(0.0, (here - oldest).total_seconds()),
        }
        for status, count, blocked, pending, oldest in await session.execute(query)
    }


def filtered(
    *,
    project_id: str | None = None,
    status: str | None = None,
    priority: str | None = None,
    owner: str | None = None,
    approval: str | None = None,
    blocked: bool | None = None,
    spec_id: str | None = None,
    q: str = "",
    archived: bool = False,
) -> sa.Select[Any]:
    """Tickets by what they must be. Raises TooManyWords."""
    query = sa.select(Ticket)
    wanted = {
        Ticket.project_id: project_id,
        Ticket.status: status,
        Ticket.priority: priority,
        Ticket.owner: owner,
        Ticket.approval: approval,
        Ticket.is_blocked: blocked,
        Ticket.spec_id: spec_id,
    }
    query = query.where(*(column == value for column, value in wanted.items() if value is not None))
    query = query.where(Ticket.archived_at.is_not(None) if archived else Ticket.archived_at.is_(None))
    return paging.search(query, q, (Ticket.title, Ticket.description, Ticket.ticket_id))


async def listing(
    session: Session, query: sa.Select[Any], *, sort: str, cursor: str | None, limit: int
) -> tuple[Sequence[Ticket], str | None, int]:
    """A page of tickets, the cursor of the next one, and how many there are in all. Raises UnknownSort, BadCursor."""
    order = paging.sort(sort, SORTS, Ticket.ticket_id)
    return await paging.listing(session, query, order, cursor=cursor, limit=limit)


async def moves(session: Session, ticket_id: str, *, limit: int = 1000) -> Sequence[TicketMove]:
    """A ticket's way over the board, oldest first."""
    query = sa.select(TicketMove).where(TicketMove.ticket_id == ticket_id).order_by(TicketMove.id).limit(limit)
    return (await session.scalars(query)).all()


async def newest_move(session: Session, ticket_id: str) -> TicketMove | None:
    """How a ticket came where it stands; None: it was made there."""
    query = sa.select(TicketMove).where(TicketMove.ticket_id == ticket_id).order_by(TicketMove.id.desc()).limit(1)
    return await session.scalar(query)


def overrode_evidence(newest: TicketMove | None) -> bool:
    """Whether the newest move let a ticket be done although it was not proven: somebody said so, with a reason."""
    return newest is not None and any(gate["kind"] == "evidence" for gate in newest.overridden)


async def unproven(session: Session, ticket: Ticket) -> list[Standing]:
    """The criteria of a ticket that do not hold on its head, as far as is known; none where that was overridden when it got done."""
    standings = (await evidence.standings(session, {ticket.ticket_id: ticket.head_commit}))[ticket.ticket_id]
    found = [one for one in standings if one.verdict != Stand.PASSED]
    return [] if found and overrode_evidence(await newest_move(session, ticket.ticket_id)) else found


async def progress(session: Session, ticket: Ticket, own: Sequence[Task]) -> datetime:
    """When a ticket last got further: it moved, its branch did, a task of it began or was completed, something was proven."""
    proven = (
        sa.select(sa.func.max(Evidence.created_at))
        .join(Criterion, Criterion.criterion_id == Evidence.criterion_id)
        .where(Criterion.subject_id == ticket.ticket_id)
    )
    times = [ticket.progressed_at, await session.scalar(proven)]
    times += [task.started_at for task in own]
    times += [task.ended_at for task in own if task.status == "completed"]
    return max(moment for moment in times if moment is not None)


async def pending_by(session: Session) -> list[tuple[str, str | None, int]]:
    """How many tickets wait for approval: project, owner, number."""
    query = (
        sa.select(Ticket.project_id, Ticket.owner, sa.func.count())
        .where(Ticket.approval == Approval.PENDING_REVIEW, Ticket.archived_at.is_(None))
        .group_by(Ticket.project_id, Ticket.owner)
        .order_by(Ticket.project_id, Ticket.owner)
    )
    return [(row[0], row[1], row[2]) for row in await session.execute(query)]


async def tasks_of(session: Session, ticket_ids: Sequence[str]) -> dict[str, dict[str, tuple[str, str]]]:
    """Ticket -> task -> its column and status."""
    query = sa.select(Task.ticket_id, Task.task_id, Task.phase, Task.status).where(Task.ticket_id.in_(ticket_ids))
    found: dict[str, dict[str, tuple[str, str]]] = defaultdict(dict)
    for ticket_id, task_id, phase, status in await session.execute(query):
        found[str(ticket_id)][task_id] = (phase, status)
    return found


async def proofs(session: Session, heads: Mapping[str, str | None]) -> dict[str, dict[str, Proof]]:
    """Ticket -> criterion -> what was last found of it on the ticket's head."""
    found: dict[str, dict[str, Proof]] = defaultdict(dict)
    for ticket_id, standings in (await evidence.standings(session, heads)).items():
        for one in standings:
            criterion, seen = one.criterion, one.evidence
            here = seen if seen and seen.commit == heads[ticket_id] else None
            found[ticket_id][criterion.criterion_id] = Proof(
                wanted=criterion.check_hash,
                found=here.check_hash if here else "",
                verdict=str(here.verdict) if here else "",
            )
    return found


async def column_page(
    session: Session, project_id: str | None, column: str, *, cursor: str | None, limit: int
) -> tuple[Sequence[Ticket], str | None]:
    """A page of a column, in its order."""
    query = sa.select(Ticket).where(Ticket.archived_at.is_(None), Ticket.status == column)
    if project_id:
        query = query.where(Ticket.project_id == project_id)
    order = paging.Sort(Ticket.rank, Ticket.ticket_id)
    rows = await session.scalars(paging.after(query, order, cursor=cursor, limit=limit))
    return paging.page(rows.all(), order, limit=limit)


async def cards(session: Session, tickets: Sequence[Ticket]) -> dict[str, Card]:
    """The tickets as the board shows them, in a number of statements that does not grow."""
    ticket_ids = [ticket.ticket_id for ticket in tickets]
    tasks = await tasks_of(session, ticket_ids)
    proven = await proofs(session, {ticket.ticket_id: ticket.head_commit for ticket in tickets})
    plain = [name for name in Card.__dataclass_fields__ if name not in {"tasks", "criteria", "conflicts_with"}]
    return {
        ticket.ticket_id: Card(
            **{name: getattr(ticket, name) for name in plain},
            conflicts_with=tuple(str(one["with"]) for one in ticket.conflicts),
            tasks=tasks.get(ticket.ticket_id, {}),
            criteria=proven.get(ticket.ticket_id, {}),
        )
        for ticket in tickets
    }
