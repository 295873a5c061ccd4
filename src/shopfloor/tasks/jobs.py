"""The doors of the queue: the loops that dispatch, follow orders, and find what a crash left."""

import asyncio
from dataclasses import dataclass, field

from shopfloor.events import log as events
from shopfloor.events.bus import Published
from shopfloor.kit import log
from shopfloor.kit.background import Background
from shopfloor.sandboxes.rules import LIVE, SandboxState
from shopfloor.tasks import queries
from shopfloor.tasks.steps.dispatch import appoint, dispatch, follow
from shopfloor.tasks.steps.pick import next_due
from shopfloor.tasks.steps.titles import take_titles
from shopfloor.workorders.rules import FINISHED
from shopfloor.workorders.steps import Claimer, Tools

logger = log.get(__name__)

HEAR = (
    "task.created",
    "task.changed",
    "task.status_changed",
    "work_order.status_changed",
    "project.changed",
    "account.resumed",
)
LOOK_SECONDS = 5.0
"""Nothing should need it: how often the queue is looked at, and orders' ends are, that no fact told of."""


@dataclass
class Dispatcher:
    """The part of one engine process that turns tasks into work orders."""

    tools: Tools
    claimer: Claimer
    background: Background
    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a task may have become able to start."""
    appointing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def launch(self) -> None:
        """Begin."""
        self.background.keep("tasks_hear", self._hear)
        self.background.keep("tasks_places", self._watch_places)
        self.background.keep("tasks_sweep", self._sweep)
        self.background.keep("tasks_dispatch", self._dispatch)

    async def _dispatch(self) -> None:
        """Start tasks for as long as there are some and places for them; then wait for a fact."""
        while True:
            self.wanted.clear()
            while await dispatch(self.tools, self.claimer):
                pass
            async with self.tools.database.reading() as session:
                due = await next_due(session)
            try:
                await asyncio.wait_for(self.wanted.wait(), LOOK_SECONDS if due is None else min(due, LOOK_SECONDS))
            except TimeoutError:
                continue

    async def _hear(self) -> None:
        """Follow orders as they move, and wake the dispatcher."""
        async with self.tools.hub.subscribe(events.Filters(event_types=frozenset(HEAR))) as feed:
            self.wanted.set()
            async for event in feed:
                await self._take(event)

    async def _take(self, event: Published) -> None:
        if event.event_type == "work_order.status_changed":
            await follow(self.tools, self.claimer, event.entity_id)
            if event.payload.get("after") in FINISHED:
                await take_titles(self.tools)
        self.wanted.set()

    async def _watch_places(self) -> None:
        """See places being left and free, behind nothing that takes its time."""
        async with self.tools.hub.subscribe(events.Filters(event_types=frozenset({"sandbox.state_changed"}))) as feed:
            async for event in feed:
                self._placed(event)

    def _placed(self, event: Published) -> None:
        """A place that is about to be free gets an heir; one that is free, the next task."""
        state, mine = event.payload.get("after"), event.work_order_id in self.tools.news
        if state == SandboxState.COMPLETING and mine:
            self.background.start("task_appoint", self._appoint(event.entity_id))
        elif state not in LIVE:
            self.wanted.set()
        if state == SandboxState.TERMINATED:
            self.tools.heirs.pop(event.entity_id, None)

    async def _appoint(self, sandbox_id: str) -> None:
        """One after the other: two that leave at once must not choose the same."""
        async with self.appointing:
            await appoint(self.tools, self.claimer, sandbox_id)

    async def _sweep(self) -> None:
        """Make up for what no fact told of, or a crash cut off."""
        while True:
            async with self.tools.database.reading() as session:
                left = await queries.astray(session)
            for order_id in left:
                await follow(self.tools, self.claimer, order_id)
            await take_titles(self.tools)
            await asyncio.sleep(LOOK_SECONDS)
