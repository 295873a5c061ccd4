"""Which tickets of its project a new one may repeat. Each process keeps the texts of projects it was asked about."""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple, cast

import sqlalchemy as sa

from shopfloor.board.models import Ticket
from shopfloor.board.port import DuplicateModelUnusable, Model
from shopfloor.board.rules import Column
from shopfloor.board.rules.likeness import Index
from shopfloor.kit import plugins
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


def load(name: str) -> Model:
    """The model of that name or folder; blocks while it is read, or downloaded. Raises DuplicateModelUnusable."""
    try:
        adapter = plugins.load("shopfloor.board.adapters", "model2vec")
    except ImportError as error:
        raise DuplicateModelUnusable(
            f"duplicate_model is set, and what it needs is not installed: {error}",
            hint="pip install 'shopfloor[embeddings]' where the server runs, or leave [board] duplicate_model empty; "
            "force_create=true makes a ticket without asking it.",
        ) from error
    return cast("Model", adapter.create(name))


@dataclass
class _Known:
    index: Index
    upto: datetime | None = None
    stamps: dict[str, datetime] = field(default_factory=dict)


class Likeness:
    """The open tickets of each project, as texts. No ticket of another project is ever looked at (W26)."""

    def __init__(self, model: str = "") -> None:
        """`model`: as in [board] duplicate_model; it is loaded when a project is first asked about."""
        self._name = model
        self._model: Model | None = None
        self._known: dict[str, _Known] = {}
        self._warming = asyncio.Lock()

    async def warm(self, database: Database, project_id: str) -> None:
        """Take in a project's tickets, before a transaction has to wait for it. Raises DuplicateModelUnusable."""
        async with self._warming:
            if project_id not in self._known:
                known = _Known(await self._index())
                async with database.reading() as session:
                    rows = await _rows(session, project_id, None)
                await asyncio.to_thread(_take, known, rows)
                self._known[project_id] = known

    async def _index(self) -> Index:
        if not self._name:
            return Index()
        if self._model is None:
            self._model = await asyncio.to_thread(load, self._name)
        return Index(self._model.texts(), self._model.texts())

    async def alike(
        self, session: Session, project_id: str, title: str, description: str, *, threshold: float, limit: int
    ) -> list[Candidate]:
        """The open tickets of a project, which was warmed, most like a text, best first."""
        known = self._known[project_id]
        _take(known, await _rows(session, project_id, known.upto))
        scores = dict(known.index.alike(title, description, threshold=threshold, limit=limit))
        query = sa.select(Ticket.ticket_id, Ticket.title, Ticket.status).where(Ticket.ticket_id.in_(scores))
        rows = {row[0]: row for row in await session.execute(query)}
        return [Candidate(key, rows[key][1], rows[key][2], score) for key, score in scores.items() if key in rows]


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
