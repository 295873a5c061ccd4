"""The long parts of a work order, one file each; every one may be repeated after a crash without doing harm."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol
from weakref import WeakValueDictionary

from shopfloor.events.bus import Hub
from shopfloor.events.ingest import Ingest
from shopfloor.forges.mirrors.mirror import Base
from shopfloor.forges.service import Repositories
from shopfloor.kit.blobs import BlobStore
from shopfloor.kit.config import Settings
from shopfloor.kit.db import Database, Session
from shopfloor.projects.models import Project
from shopfloor.sandboxes.rules import SandboxState
from shopfloor.sandboxes.service import Sandboxes
from shopfloor.workorders.models import Artifact, Attempt, WorkOrder

DEAF_SECONDS = 5.0


@dataclass
class Ears:
    """Since when this process listens without a gap: a database that was away kept sandboxes from being heard, so the silence was ours."""

    since: float = field(default_factory=time.monotonic)
    last: float = field(default_factory=time.monotonic)

    def listened(self) -> float:
        """Note that the database just answered; answers the seconds since we listen."""
        now = time.monotonic()
        if now - self.last > DEAF_SECONDS:
            self.since = now
        self.last = now
        return now - self.since


@dataclass(frozen=True)
class Brief:
    """What the database knows for a new sandbox's job, and the token it is given."""

    token: str
    project: Project | None
    bundle: Artifact | None
    done: set[str]
    spoken: Any
    recount: str = ""
    """What was done so far, for an agent that cannot go on with the earlier one's conversation."""


@dataclass(frozen=True)
class Claimed:
    """An order taken, with the attempt and the place made for it."""

    attempt: Attempt
    order: WorkOrder
    brief: Brief


class Claimer(Protocol):
    """The engine of this process, for whoever makes an order claimable: no need to wait until it looks."""

    async def claim(self, session: Session) -> Claimed | None:
        """Take the oldest due order within this transaction; None when there is nothing to do or no place."""

    def start(self, claimed: Claimed, looking: asyncio.Future[Base] | None = None) -> None:
        """Begin to start the sandbox, once the transaction is through. `looking` is the look for the order's base, if one was begun."""


@dataclass(frozen=True)
class Heir:
    """Who takes the place of a sandbox that is about to leave it."""

    name: str
    until: float
    """By time.monotonic(): so long nobody else should choose it."""
    take: Callable[[SandboxState, str], Awaitable[bool]]
    """Moves the sandbox out of its place, with the reason, and starts what comes next; False: nothing was done."""


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What the steps work with."""

    settings: Settings
    database: Database
    hub: Hub
    sandboxes: Sandboxes
    repositories: Repositories
    blobs: BlobStore
    ingest: Ingest
    engine_id: str = ""
    ears: Ears = field(default_factory=Ears)
    claimable: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when an order may have become claimable."""
    news: dict[str, asyncio.Event] = field(default_factory=dict)
    """Work order id -> set when something happened to it."""
    engines: list[Claimer] = field(default_factory=list)
    """The engine of this process, if it has one."""
    heirs: dict[str, Heir] = field(default_factory=dict)
    """Sandbox id -> its heir, if one was appointed."""
    early: dict[str, asyncio.Future[bool]] = field(default_factory=dict)
    """Attempt id -> the start of its sandbox, begun when it was claimed, until `prepare` takes it."""
    uploads: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)
    """Sandbox id -> held while it uploads: one at a time, so that its allowance is counted."""
    imports: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))
    """How many bundles are unpacked at once: a sandbox may hand out any number."""

    def claimer(self) -> Claimer | None:
        """The engine of this process when it may well have a place: whether it has is found out by claiming."""
        return self.engines[0] if self.engines and len(self.news) < self.settings.max_sandboxes else None

    async def leave(self, sandbox_id: str, to: SandboxState, *, reason: str = "") -> None:
        """Move a sandbox that has done its work out of its place, which its heir takes in the same transaction."""
        heir = self.heirs.get(sandbox_id)
        try:
            if heir is None or not await heir.take(to, reason):
                await self.sandboxes.move(sandbox_id, to, reason=reason)
        finally:
            self.heirs.pop(sandbox_id, None)  # only now: until it runs nobody else should choose it

    def tell(self, order_id: str) -> None:
        """Wake whoever watches an order in this process."""
        if event := self.news.get(order_id):
            event.set()
