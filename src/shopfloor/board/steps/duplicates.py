"""Which tickets of its project a new one may repeat. Each process keeps the texts of projects it was asked about."""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa

from shopfloor.board.models import Ticket
from shopfloor.board.rules import Column
from shopfloor.board.rules.likeness import Index
from shopfloor.kit.db import Database, Session
from shopfloor.kit.errors import Conflict

OVERLAP = timedelta(seconds=60)
"""A row's time is older than its commit: so much is read again."""


class DuplicateTickets(Conflict):
    """There are tickets like this one."""

    hint = "Look at 'candidates'; if it is another thing all the same, repeat with force_create=true."


class Candidate(NamedTuple):
    """A ticket that may be the same."""

    ticket_id: str
    title: str
    status: str
    score: float


@dataclass
class _Known:
    index: Index = field(default_factory=Index)
    upto: datetime | None = None
    stamps: dict[str, datetime] = field(default_factory=dict)


class Likeness:
    """The open tickets of each project, as texts. No ticket of another project is ever looked at (W26)."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._warming = asyncio.Lock()

    async def warm(self, database: Database, project_id: str) -> None:
        """Take in a project's tickets, before a transaction has to wait for it."""
        async with self._warming:
            if project_id not in self._known:
                async with database.reading() as session:
                    rows = await _rows(session, project_id, None)
                known = _Known()
                await asyncio.to_thread(_take, known, rows)
                self._known[project_id] = known

    async def alike(
        self,
        session: Session,
        project_id: str,
        title: str,
        description: str,
        *,
        threshold: float,
        limit: int,
        without: str | None = None,
    ) -> list[Candidate]:
        """The open tickets of a project most like a text, best first."""
        known = self._known.setdefault(project_id, _Known())
        _take(known, await _rows(session, project_id, known.upto))
        found = known.index.alike(title, description, threshold=threshold, limit=limit + 1)
        scores = {key: score for key, score in found if key != without}
        query = sa.select(Ticket.ticket_id, Ticket.title, Ticket.status).where(Ticket.ticket_id.in_(scores))
        rows = {row[0]: row for row in await session.execute(query)}
        return [Candidate(key, rows[key][1], rows[key][2], score) for key, score in scores.items() if key in rows][
            :limit
        ]


async def _rows(session: Session, project_id: str, since: datetime | None) -> list[Any]:
    query = sa.select(
        Ticket.ticket_id, Ticket.title, Ticket.description, Ticket.status, Ticket.archived_at, Ticket.updated_at
    ).where(Ticket.project_id == project_id)
    if since is None:
        query = query.where(Ticket.archived_at.is_(None), Ticket.status != Column.DONE)
    else:
        query = query.where(Ticket.updated_at >= since - OVERLAP)
    return list((await session.execute(query)).all())


def _take(known: _Known, rows: list[Any]) -> None:
    for ticket_id, title, description, status, archived_at, updated_at in rows:
        if known.stamps.get(ticket_id) == updated_at:
            continue
        known.stamps[ticket_id] = updated_at
        known.upto = max(known.upto or updated_at, updated_at)
        if archived_at is not None or status == Column.DONE:
            known.index.drop(ticket_id)
        else:
            known.index.put(ticket_id, title, description)
