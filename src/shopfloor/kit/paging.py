"""Pages by cursor: a list goes on after the last row that was seen, whatever came or went before it."""

import base64
import binascii
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
import sqlalchemy as sa

from shopfloor.kit.db import Instant
from shopfloor.kit.errors import Malformed


class BadCursor(Malformed):
    """That is not a cursor of this list."""

    hint = "Use 'next_cursor' of the page before, with the same sort; leave it out to begin."


type Column = sa.orm.InstrumentedAttribute[Any]


def after(
    query: sa.Select[Any], *, by: Column, id_: Column, descending: bool, cursor: str | None, limit: int
) -> sa.Select[Any]:
    """`query` sorted by a column (never null) and then by id, from the cursor on, with one row more than `limit`. Raises BadCursor."""
    if cursor is not None:
        value, last = _read(cursor, by)
        here, place = sa.tuple_(by, id_), sa.tuple_(sa.literal(value, by.type), sa.literal(last))
        query = query.where(here < place if descending else here > place)
    order = (by.desc(), id_.desc()) if descending else (by.asc(), id_.asc())
    return query.order_by(*order).limit(limit + 1)


def page[T](rows: Sequence[T], *, by: Column, id_: Column, limit: int) -> tuple[Sequence[T], str | None]:
    """The rows of this page, and the cursor of the next if there is one."""
    if len(rows) <= limit:
        return rows, None
    last = rows[limit - 1]
    value = getattr(last, by.key)
    plain = value.timestamp() if isinstance(value, datetime) else value
    text = base64.urlsafe_b64encode(orjson.dumps([plain, getattr(last, id_.key)])).decode()
    return rows[:limit], text


def _read(cursor: str, by: Column) -> tuple[Any, str]:
    try:
        value, last = orjson.loads(base64.urlsafe_b64decode(cursor.encode()))
        if isinstance(by.type, Instant):
            value = datetime.fromtimestamp(float(value), UTC)
        elif isinstance(by.type, sa.Double):
            value = float(value)
        elif not isinstance(value, str):
            raise TypeError
        if not isinstance(last, str) or "\x00" in last + str(value):
            raise TypeError
    except (ValueError, TypeError, OverflowError, OSError, binascii.Error):
        raise BadCursor from None
    return value, last
