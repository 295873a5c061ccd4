"""Something else commits between two statements of a read, just there."""

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.util import await_only

from shopfloor.kit.db import Database


@contextlib.contextmanager
def between(database: Database, after: Callable[[str, Any], bool], do: Callable[[], Awaitable[Any]]) -> Iterator[None]:
    """Once, when a statement (its text and parameters) that `after` knows was executed, `do` is done before the next one."""
    waiting = [do]

    def executed(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if waiting and after(statement, parameters):
            await_only(waiting.pop()())

    engine = database.reader.sync_engine
    sa.event.listen(engine, "after_cursor_execute", executed)
    try:
        yield
    finally:
        sa.event.remove(engine, "after_cursor_execute", executed)
    assert not waiting, "no such statement was executed"
