"""Something else commits between two statements, just there."""

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.util import await_only

from shopfloor.kit.db import Database


@contextlib.contextmanager
def between(
    database: Database, after: Callable[[str, Any], bool], do: Callable[[], Awaitable[Any]], *, writing: bool = False
) -> Iterator[None]:
    """Once, when a statement (its text and parameters) of a read that `after` knows was executed, `do` is done before the next one.

    `writing`: of a transaction; where there is one writer, `do` would wait for it for ever.
    """
    waiting = [do]

    def executed(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if waiting and after(statement, parameters):
            await_only(waiting.pop()())

    engine = (database.writer if writing else database.reader).sync_engine
    sa.event.listen(engine, "after_cursor_execute", executed)
    try:
        yield
    finally:
        sa.event.remove(engine, "after_cursor_execute", executed)
    assert not waiting, "no such statement was executed"
