"""The doors of the engine: the loops that claim runs of checks, and that take back what dead engines left."""

import asyncio
from dataclasses import dataclass, field

from shopfloor.events.bus import Hub
from shopfloor.events.log import Filters
from shopfloor.evidence import queries, service
from shopfloor.evidence.models import CheckRun
from shopfloor.evidence.steps import Bench
from shopfloor.evidence.steps.examine import examine, release
from shopfloor.kit import log
from shopfloor.kit.background import Background
from shopfloor.kit.engine import Engine

logger = log.get(__name__)

WAKING = frozenset({"check_run.state_changed", "sandbox.state_changed"})
LOOK_SECONDS = 5.0
TEND_SECONDS = 2.0


@dataclass
class Checks:
    """The checking part of one engine process."""

    bench: Bench
    hub: Hub
    engine: Engine
    background: Background
    driven: set[str] = field(default_factory=set)
    """The sandboxes of the runs that this process drives: one of each attempt, also when a run comes to it twice."""
    awake: asyncio.Event = field(default_factory=asyncio.Event)
    _idle: asyncio.Event = field(default_factory=asyncio.Event)
    _claiming: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held until what was claimed is among the driven: to whoever looks in between, it is ours and dropped."""

    async def launch(self) -> None:
        """Take back what dead engines left, then begin to claim."""
        self._idle.set()
        await self.tend()
        self.background.keep("checks_listen", self._listen)
        self.background.keep("checks_claim", self._claim)
        self.background.keep("checks_tend", self._tend)

    async def _listen(self) -> None:
        async with self.hub.subscribe(Filters(event_types=WAKING)) as subscription:
            self.awake.set()
            async for _ in subscription:
                self.awake.set()

    async def _claim(self) -> None:
        """Start queued runs as long as there are places; woken by events, with a slow look in between."""
        while True:
            self.awake.clear()
            while await self.claim_one():
                pass
            try:
                await asyncio.wait_for(self.awake.wait(), LOOK_SECONDS)
            except TimeoutError:
                continue

    async def claim_one(self) -> bool:
        """Claim the oldest run and begin to drive it; answers whether there was one. Without a place, the next free one is ours."""
        sandboxes, settings = self.bench.sandboxes, self.bench.settings.checks
        sandboxes.promised = 0
        if len(self.driven) >= settings.max_runs:
            return False
        async with self.bench.database.reading() as session:
            if not await queries.anything_queued(session, sandboxes.host_id):
                return False
        async with self._claiming:
            async with self.bench.database.transaction() as session:
                run = await service.claim(session, sandboxes, self.bench.engine_id, sandbox_type=settings.sandbox)
            if run is None:
                sandboxes.promised = 1
                return False
            assert run.sandbox_id
            self.driven.add(run.sandbox_id)
        self._idle.clear()
        self.background.start(f"check_run {run.run_id}", self._drive(run, run.sandbox_id))
        return True

    async def _drive(self, run: CheckRun, sandbox_id: str) -> None:
        try:
            await examine(self.bench, run)
        finally:
            self.driven.remove(sandbox_id)
            self.awake.set()
            if not self.driven:
                self._idle.set()

    async def idle(self) -> None:
        """Answer once nothing is driven."""
        await self._idle.wait()

    async def _tend(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS if self.bench.database.sqlite else TEND_SECONDS)
            await self.tend()

    async def tend(self) -> None:
        """Queue the runs again that nobody drives any more, and free the places of those that nobody will."""
        sqlite, lease = self.bench.database.sqlite, self.engine.lease_seconds
        # After a silence of our own, others were silent too: they get a whole lease to be heard again.
        if sqlite or self.engine.steady_seconds >= lease:
            async with self._claiming, self.bench.database.reading() as session:
                silent = None if sqlite else lease
                found = await queries.orphans(session, self.bench.engine_id, silent_seconds=silent)
                left = [run for run in found if run.sandbox_id not in self.driven]
            for run in left:
                async with self.bench.database.transaction() as session:
                    why = f"the engine {run.engine_id} that drove it is gone"
                    await service.give_back(session, run.run_id, run.attempts, why=why)
                logger.warning("check_run_given_back", run_id=run.run_id, attempts=run.attempts)
        await self._sweep()

    async def _sweep(self) -> None:
        """Remove sandboxes of this host whose run is over or another's."""
        async with self.bench.database.reading() as session:
            left = await queries.abandoned(session, self.bench.sandboxes.host_id)
        for sandbox_id, repository_url in left:
            if sandbox_id not in self.driven:
                await release(self.bench, sandbox_id, repository_url)
