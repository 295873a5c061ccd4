"""kill -9 at any statement, for whoever runs in this process: what was not committed is gone, and nothing comes after."""

import contextlib
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any

import sqlalchemy as sa

from shopfloor.kit.db import Database


class Killed(BaseException):
    """The process died here. No `except Exception` of the code goes on after that."""


LEFT: ContextVar[list[int] | None] = ContextVar("LEFT", default=None)
"""Statements, commits among them, that whoever runs in this context still lives for."""


def die_in_time(database: Database) -> None:
    """Let whoever uses a database die at any statement, or just before a commit; the dead do nothing more there."""

    def tick(*_: Any) -> None:
        if (left := LEFT.get()) is not None:
            left[0] -= 1
            if left[0] < 0:
                raise Killed

    for engine in {database.writer, database.reader}:
        sa.event.listen(engine.sync_engine, "before_cursor_execute", tick)
        sa.event.listen(engine.sync_engine, "commit", tick)


async def killed_after(work: Coroutine[Any, Any, Any], statements: int | None) -> bool:
    """Let something run, for so many statements at most (None: to its end); answers whether it was killed. Each in a task of its own, or one by one."""
    left = None if statements is None else [statements]
    LEFT.set(left)
    with contextlib.suppress(Killed):
        await work
    LEFT.set(None)
    return left is not None and left[0] < 0
