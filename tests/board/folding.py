"""The same board from three sides: the tables, the log from its beginning, and a client that applies what happened since it looked."""

from typing import Any

import orjson
import sqlalchemy as sa

from shopfloor.board import queries
from shopfloor.board.models import Ticket
from shopfloor.board.rules.fold import Board, Card, Proof, apply
from shopfloor.events.log import START, position, read_after
from shopfloor.kit.db import Database
from tests.board.desk import Desk


async def tables(database: Database) -> Board:
    """What the tables say."""
    async with database.reading() as session:
        tickets = (await session.scalars(sa.select(Ticket).where(Ticket.archived_at.is_(None)))).all()
        return await queries.cards(session, tickets)


async def followed(database: Database, board: Board, place: Any) -> tuple[Board, Any]:
    """A board with every event after a place in the log, and the place where that ended."""
    async with database.reading() as session:
        while rows := await read_after(session, place, limit=200):
            for row in rows:
                board = apply(board, row[2], orjson.loads(row[5]))
            place = type(START)(rows[-1][0], rows[-1][1])
    return board, place


async def folded(database: Database, board: Board, after: str | None) -> Board:
    """An old board with every event since."""
    place = position(after, sqlite=database.sqlite) if after else START
    return (await followed(database, board, place))[0]


async def looked(desk: Desk) -> tuple[Board, Any]:
    """A client's snapshot, and where in the log it goes on from there."""
    view = await desk.get("/board/view", project="p")
    return of_view(view), position(view["position"], sqlite=desk.database.sqlite)


def of_view(view: dict[str, Any]) -> Board:
    """A client's snapshot: the cards of the board's answer."""
    cards = [card for column in view["columns"] for card in column["tickets"]]
    return {card["ticket_id"]: _card(card) for card in cards}


def _card(shown: dict[str, Any]) -> Card:
    plain = {name: shown[name] for name in Card.__dataclass_fields__}
    plain["tasks"] = {key: tuple(value) for key, value in shown["tasks"].items()}
    plain["criteria"] = {key: Proof(*value) for key, value in shown["criteria"].items()}
    plain["conflicts_with"] = tuple(shown["conflicts_with"])
    return Card(**plain)
