"""A look at an origin for who will not wait for it: shared by those who ask together, and not repeated at once when nothing came back."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from shopfloor.forges.port import Refs
from shopfloor.kit.errors import Unavailable

SILENT_SECONDS = 10.0
"""How long an origin that did not answer is left alone by those who only look."""


class OriginSilent(Unavailable):
    """The origin did not answer in time."""

    hint = "Try again in a moment; the server may be slow or unreachable."


@dataclass
class Glance:
    """What was last seen of one origin. Times are of the monotonic clock."""

    refs: Refs | None = None
    began: float = 0.0
    silent_until: float = 0.0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def take(self, ask: Callable[[], Awaitable[Refs]]) -> Refs:
        """What `ask` answers, or what it answered to another who asked after we came. Raises OriginSilent; bound it by a timeout."""
        called = time.monotonic()
        async with self.turn:
            if self.refs and self.began > called:
                return self.refs
            if time.monotonic() < self.silent_until:
                raise OriginSilent
            self.refs, self.began = None, time.monotonic()
            self.silent_until = self.began + SILENT_SECONDS  # also for an asker who is cancelled
            self.refs = await ask()
            self.silent_until = 0.0
            return self.refs
