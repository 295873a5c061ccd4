"""Lists: found by words, sorted, and in pages by cursor, which go on after the last row seen whatever came or went before it."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
import sqlalchemy as sa
from fastapi import Query

from shopfloor.kit.db import Instant, Session
from shopfloor.kit.errors import Malformed

Cursor = Annotated[str | None, Query(max_length=8000, description="'next_cursor' of the page before.")]
"""The longest title is in it, in base64."""
MOST_WORDS = 10
"""Of a search: each is a look through every text."""


class BadCursor(Malformed):
    """That is not a cursor of this list."""

    hint = "Use 'next_cursor' of the page before, with the same sort; leave it out to begin."


class UnknownSort(Malformed):
    """The list cannot be sorted by that."""


class TooManyWords(Malformed):
    """The search has too many words."""

    hint = "Leave out those that many texts have."


type Column = sa.orm.InstrumentedAttribute[Any]


@dataclass(frozen=True)
class Sort:
    """By a column that is never null, and then by id."""

    by: Column
    id_: Column
    descending: bool = False

    @property
    def name(self) -> str:
        """As it is asked for."""
        return f"{'-' * self.descending}{self.by.key}"


def sort(word: str, sorts: Mapping[str, Column], id_: Column) -> Sort:
    """What a word means, `-` before it for descending; raises UnknownSort."""
    if (by := sorts.get(word.removeprefix("-"))) is None:
        hint = f"Sort by one of {', '.join(sorts)}; with - before it, descending."
        raise UnknownSort(f"the list cannot be sorted by {word[:40]!r}", hint=hint)
    return Sort(by, id_, word.startswith("-"))


def search(query: sa.Select[Any], q: str, columns: Sequence[Column]) -> sa.Select[Any]:
    """Those rows of `query` that have every word of `q` in one of the columns, whatever its case. Raises TooManyWords."""
    if len(words := q.split()) > MOST_WORDS:
        raise TooManyWords(f"q has {len(words)} words; a search takes {MOST_WORDS}")
    for word in words:
        query = query.where(sa.or_(*(column.icontains(word, autoescape=True) for column in columns)))
    return query


async def listing(
    session: Session, query: sa.Select[Any], order: Sort, *, cursor: str | None, limit: int, offset: int = 0
) -> tuple[Sequence[Any], str | None, int]:
    """A page of a query's rows, the cursor of the next one, and how many there are in all. Raises BadCursor."""
    total = await session.scalar(sa.select(sa.func.count()).select_from(query.subquery()))
    found = await session.scalars(after(query, order, cursor=cursor, limit=limit).offset(offset))
    return *page(found.all(), order, limit=limit), total or 0


def after(query: sa.Select[Any], order: Sort, *, cursor: str | None, limit: int) -> sa.Select[Any]:
    """`query` sorted, from the cursor on, with one row more than `limit`. Raises BadCursor."""
    by, id_, descending = order.by, order.id_, order.descending
    if cursor is not None:
        value, last = _read(cursor, order)
        here, place = sa.tuple_(by, id_), sa.tuple_(sa.literal(value, by.type), sa.literal(last))
        query = query.where(here < place if descending else here > place)
    columns = (by.desc(), id_.desc()) if descending else (by.asc(), id_.asc())
    return query.order_by(*columns).limit(limit + 1)


def page[T](rows: Sequence[T], order: Sort, *, limit: int) -> tuple[Sequence[T], str | None]:
    """The rows of this page, and the cursor of the next if there is one."""
    if len(rows) <= limit:
        return rows, None
    last = rows[limit - 1]
    value = getattr(last, order.by.key)
    plain = value.timestamp() if isinstance(value, datetime) else value
    text = base64.urlsafe_b64encode(orjson.dumps([order.name, plain, getattr(last, order.id_.key)])).decode()
    return rows[:limit], text


def _read(cursor: str, order: Sort) -> tuple[Any, str]:
    kind = order.by.type
    try:
        name, value, last = orjson.loads(base64.urlsafe_b64decode(cursor.encode()))
        if name != order.name:  # a place in another order: the rows after it are others
            raise BadCursor
        if isinstance(kind, Instant):
            value = datetime.fromtimestamp(float(value), UTC)
        elif isinstance(kind, sa.Double):
            value = float(value)
        elif not isinstance(value, str):
            raise TypeError
        if not isinstance(last, str) or "\x00" in last + str(value):
            raise TypeError
    except (ValueError, TypeError, OverflowError, OSError, binascii.Error):
        raise BadCursor from None
    return value, last
