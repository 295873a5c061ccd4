"""The board as people see it: columns of cards, with the position in the log that it shows."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from shopfloor.board import merge_queries, queries, rules
from shopfloor.board.models import Ticket, Union
from shopfloor.board.rules import ORDER
from shopfloor.board.rules.fold import Card
from shopfloor.events import log as events
from shopfloor.evidence.models import CheckRun
from shopfloor.kit.clock import iso
from shopfloor.kit.db import Database, Session
from shopfloor.projects import queries as projects
from shopfloor.projects.models import Project
from shopfloor.tasks import queries as tasks


async def board(database: Database, project: str | None, *, limit: int) -> dict[str, Any]:
    """Every column with its first cards (BRD-01). Whoever applies the events after `position` sees what the tables say."""
    # A ticket that moves between two of these reads would be in both columns or in none, and its event not apply to the snapshot.
    async with database.reading(one_moment=True) as session:
        position = await events.end(session)
        found = await projects.get(session, project) if project else None
        counts = await queries.counts(session, found.project_id if found else None)
        pages = [await _page(session, found, column, None, limit) for column in ORDER]
        shown = await shown_cards(session, [ticket for rows, _ in pages for ticket in rows])
        together = await merge_queries.union_shown(session, found) if found else None
    columns = [
        _column(column, found, counts[column], [shown[ticket.ticket_id] for ticket in rows], following)
        for column, (rows, following) in zip(ORDER, pages, strict=True)
    ]
    return {
        "project_id": found.project_id if found else None,
        "position": str(position),
        "columns": columns,
        "total_tickets": sum(counts.values()),
        "union": _together(*together) if together else None,
    }


def _together(union: Union, run: CheckRun) -> dict[str, Any]:
    """How all live branches together do."""
    plain = {"commit": union.commit, "tickets": union.ticket_ids, "run_id": run.run_id}
    return plain | {"state": run.state, "verdict": run.verdict, "reason": run.reason}


async def column(database: Database, project: str | None, name: str, cursor: str | None, limit: int) -> dict[str, Any]:
    """One column, from a cursor on (BRD-03)."""
    async with database.reading() as session:
        found = await projects.get(session, project) if project else None
        counts = await queries.counts(session, found.project_id if found else None)
        rows, following = await _page(session, found, name, cursor, limit)
        shown = await shown_cards(session, rows)
    return _column(name, found, counts[name], [shown[ticket.ticket_id] for ticket in rows], following)


async def _page(
    session: Session, project: Project | None, name: str, cursor: str | None, limit: int
) -> tuple[Sequence[Ticket], str | None]:
    project_id = project.project_id if project else None
    return await queries.column_page(session, project_id, name, cursor=cursor, limit=limit)


def _column(
    name: str, project: Project | None, count: int, cards: list[dict[str, Any]], following: str | None
) -> dict[str, Any]:
    limit = rules.wip_limit(project.wip_limits, name) if project else None
    return {
        "phase_id": name,
        "name": name.replace("-", " ").capitalize(),
        "aliases": rules.aliases(name),
        "wip_limit": limit,
        "count": count,
        "over_limit": limit is not None and count > limit,
        "tickets": cards,
        "next_cursor": following,
    }


async def shown_cards(session: Session, tickets: Sequence[Ticket]) -> dict[str, dict[str, Any]]:
    """Cards with what no event tells: costs and times."""
    cards = await queries.cards(session, tickets)
    costs = await tasks.costs(session, list(cards))
    return {
        ticket.ticket_id: _shown(ticket, cards[ticket.ticket_id], costs.get(ticket.ticket_id)) for ticket in tickets
    }


def _shown(ticket: Ticket, card: Card, cost: float | None) -> dict[str, Any]:
    plain = {name: getattr(card, name) for name in Card.__dataclass_fields__}
    return plain | {
        "tasks": {key: list(value) for key, value in card.tasks.items()},
        "criteria": {key: list(value) for key, value in card.criteria.items()},
        "tally": tally(card),
        "evidence": evidence(card),
        "cost_usd": cost,
        "created_at": iso(ticket.created_at),
        "updated_at": iso(ticket.updated_at),
        "progressed_at": iso(ticket.progressed_at),
        "approval_deadline": iso(ticket.approval_deadline),
    }


def tally(card: Card) -> dict[str, dict[str, int]]:
    """How many of a card's tasks stand where: column -> status -> count."""
    found: dict[str, dict[str, int]] = {}
    for phase, status in card.tasks.values():
        statuses = found.setdefault(phase, {})
        statuses[status] = statuses.get(status, 0) + 1
    return found


def evidence(card: Card) -> dict[str, int]:
    """How a card's criteria stand on its head."""
    found = Counter(proof.standing for proof in card.criteria.values())
    return {"total": len(card.criteria), **{name: found[name] for name in ("passed", "failed", "error", "open")}}


async def stats(database: Database, project: str | None) -> dict[str, Any]:
    """What each column holds and how long it has been there (BRD-04)."""
    async with database.reading() as session:
        found = await projects.get(session, project) if project else None
        rows = await queries.statistics(session, found.project_id if found else None)
    limits = found.wip_limits if found else {}
    columns = {
        name: {
            **rows.get(name, queries.EMPTY),
            "wip_limit": rules.wip_limit(limits, name) if found else None,
        }
        for name in ORDER
    }
    return {"columns": columns, "total_tickets": sum(one["count"] for one in columns.values())}


async def violations(database: Database, project: str | None) -> list[dict[str, Any]]:
    """Columns that hold more than they may (BRD-05): limits were lowered, gates overridden, or tickets came back."""
    async with database.reading() as session:
        found = await projects.get(session, project) if project else None
        crowded = await queries.crowded(session, found.project_id if found else None)
    return [
        {"project_id": one.project_id, "phase_id": name, "wip_limit": limit, "count": count, "excess": count - limit}
        for one, name, count in crowded
        if (limit := rules.wip_limit(one.wip_limits, name)) is not None and count > limit
    ]
