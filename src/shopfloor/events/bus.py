"""The hub: reads each new event once from the log, encodes it once, hands it to everybody whose filter it passes."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import cached_property
from itertools import islice
from typing import Any

import orjson

from shopfloor.events import log
from shopfloor.events.log import ALL, APPENDED, START, Filters, Position
from shopfloor.events.tail import Tail, tail_of
from shopfloor.kit import log as logs
from shopfloor.kit.db import Database

logger = logs.get(__name__)

PAGE = 250
QUEUE = 2000
QUEUE_BYTES = 16 * 1024 * 1024
"""Events, and their size together, that may wait for one subscriber before it counts as slow."""
AT_ONCE = 200
NOTIFY_SECONDS = 0.02
POLL_SECONDS = 0.25
SAFETY_SECONDS = 5.0
"""On SQLite nothing but a commit cancelled at the wrong moment loses a wake-up: look this often while somebody listens."""
UNSETTLED_SECONDS = 0.004


class SlowSubscriber(Exception):
    """More events wait for this subscriber than are kept for it."""

    def __init__(self, resume_after: Position) -> None:
        super().__init__(f"too slow; resume after {resume_after}")
        self.resume_after = resume_after


class HubClosed(Exception):
    """The process is shutting down."""


class Published:
    """One event, encoded once, shared by everybody who gets it."""

    def __init__(self, row: Sequence[Any]) -> None:
        self.position = Position(row[0], row[1])
        self.event_type: str = row[2]
        self.entity_type: str = row[3]
        self.entity_id: str = row[4]
        self.size = len(row[5])
        self._row = row

    @property
    def work_order_id(self) -> str | None:
        """The work order it belongs to."""
        found: str | None = self._row[7]
        return found

    @cached_property
    def text(self) -> str:
        """The event on the wire."""
        return log.encode(self._row).decode()

    @cached_property
    def payload(self) -> dict[str, Any]:
        """The payload, parsed."""
        parsed: dict[str, Any] = orjson.loads(self._row[5])
        return parsed


class Subscription:
    """What one subscriber has yet to see: first from the log, when it asked for a position, then live."""

    def __init__(self, hub: "Hub", filters: Filters, after: Position | None, *, limit: int, patient: bool) -> None:
        self.filters = filters
        self.position = hub.position if after is None else after
        """Everything up to here was handed out."""
        self.slow = asyncio.Event()
        self.takes_all = not (filters.entity_types or filters.event_types)
        """Whether every event passes that reaches it by its entity id."""
        self._hub, self._limit, self._patient = hub, limit, patient
        self._items: deque[Published] = deque()
        self._bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._replaying = after is not None
        self._goal: Position | None = None
        if after is None:
            hub.attach(self)

    def offer(self, event: Published) -> None:
        """Called by the hub for each event that passes the filter."""
        if event.position <= self.position:  # it asked for a place that the hub, idle until now, had not read up to
            return
        if len(self._items) < self._limit and self._bytes < QUEUE_BYTES:
            self._items.append(event)
            self._bytes += event.size
        else:
            self._hub.detach(self)
            self._items.clear()
            self._bytes = 0
            self.slow.set()
        self.stir()

    def stir(self) -> None:
        """Wake whoever waits in `take`."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def take(self, timeout: float | None = None) -> list[Published]:
        """The next events that are at hand; empty after `timeout` seconds. Raises SlowSubscriber or HubClosed."""
        while True:
            if self._hub.closed:
                raise HubClosed
            if self._replaying:
                if events := await self._replay():
                    return events
                continue
            if self._items:
                events = list(islice(self._items, AT_ONCE))
                if len(events) == len(self._items):
                    self._items.clear()
                    self._bytes = 0
                else:
                    for event in events:
                        self._items.popleft()
                        self._bytes -= event.size
                self.position = events[-1].position
                return events
            if self.slow.is_set():
                if not self._patient:
                    raise SlowSubscriber(self.position)
                self.slow.clear()
                self._replaying, self._goal = True, None
                continue
            if not await self._wait(timeout):
                return []

    async def _wait(self, timeout: float | None) -> bool:
        """Until something is at hand; False when the time is over first."""
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_later(timeout, self.stir) if timeout is not None else None
        try:
            await self._waiter
        finally:
            self._waiter = None
            if timer:
                timer.cancel()
        return bool(self._items) or self.slow.is_set() or self._hub.closed

    async def _replay(self) -> list[Published]:
        """A page out of the log. Nearly at the end: attach first, read up to there, and nothing is missed or repeated."""
        upto = self._goal or self._hub.position
        events = await self._hub.read(self.filters, self.position, upto)
        full = len(events) == PAGE
        self.position = events[-1].position if full else max(upto, self.position)
        if not full and self._goal is None:
            self._goal = self._hub.position
            self._hub.attach(self)
        elif not full:
            self._replaying = False
        return events

    async def __aiter__(self) -> AsyncIterator[Published]:
        while True:
            for event in await self.take():
                yield event


class Hub:
    """Feeds every subscriber of this process from one reader of the log."""

    def __init__(self, database: Database) -> None:
        self.position = START
        """Everything up to here was handed out."""
        self.closed = False
        self.queue = QUEUE
        self._database = database
        self._wake = asyncio.Event()
        self._tail: Tail = tail_of(database, self._wake.set)
        self._poll = SAFETY_SECONDS if database.sqlite else POLL_SECONDS
        self._any: set[Subscription] = set()
        self._by_entity: dict[str, set[Subscription]] = {}
        self._task: asyncio.Task[None] | None = None
        self._announcer: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    async def start(self) -> None:
        """Begin at the end of the log."""
        async with self._database.reading() as session:
            self.position = await log.end(session)
        self._database.on_commit.append(self._committed)
        self._task = asyncio.create_task(self._run(), name="event-hub")
        if not self._database.sqlite:
            self._announcer = asyncio.create_task(self._announce(), name="event-announcer")

    async def close(self) -> None:
        """End every subscription."""
        self.closed = True
        if self._committed in self._database.on_commit:
            self._database.on_commit.remove(self._committed)
        for subscription in self._subscriptions():
            subscription.stir()
        tasks = [task for task in (self._task, self._announcer) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._tail.close()

    def wake(self) -> None:
        """Something was committed here: look, and tell the other processes."""
        self._wake.set()
        self._news.set()

    @asynccontextmanager
    async def subscribe(
        self, filters: Filters = ALL, after: Position | None = None, *, limit: int | None = None, patient: bool = True
    ) -> AsyncIterator[Subscription]:
        """Events from now on, or after a position. A patient one that falls behind goes on from the log; else SlowSubscriber."""
        if after is None and self._idle:
            async with self._database.reading() as session:
                newest = await log.end(session)
            if self._idle:  # else somebody came meanwhile, and the hub follows the log by itself
                self.position = max(self.position, newest)
        subscription = Subscription(self, filters, after, limit=limit or self.queue, patient=patient)
        try:
            yield subscription
        finally:
            self.detach(subscription)

    async def read(self, filters: Filters, after: Position, upto: Position) -> list[Published]:
        """A page of the log between two positions."""
        if after >= upto:
            return []
        async with self._database.reading() as session:
            rows = await log.read_after(session, after, filters, upto=upto, limit=PAGE)
        return [Published(row) for row in rows]

    def attach(self, subscription: Subscription) -> None:
        """From this moment on the subscription is offered what comes."""
        for place in self._places(subscription.filters):
            place.add(subscription)
        self._wake.set()

    def detach(self, subscription: Subscription) -> None:
        """The subscription is offered nothing more."""
        for place in self._places(subscription.filters):
            place.discard(subscription)
        for entity_id in subscription.filters.entity_ids:
            if not self._by_entity.get(entity_id):
                self._by_entity.pop(entity_id, None)

    def _places(self, filters: Filters) -> Iterable[set[Subscription]]:
        return [self._by_entity.setdefault(i, set()) for i in filters.entity_ids] if filters.entity_ids else [self._any]

    @property
    def _idle(self) -> bool:
        """Nobody listens: the log is not read, and `position` stays behind until somebody comes."""
        return not self._any and not self._by_entity

    def _subscriptions(self) -> set[Subscription]:
        return self._any.union(*self._by_entity.values())

    def _committed(self, gathered: dict[Any, Any]) -> None:
        if gathered.get(APPENDED):
            self.wake()

    async def _run(self) -> None:
        pause = 0.05
        while True:
            try:
                await self._follow()
            except Exception as error:
                logger.warning("event_tail_failed", error=str(error), retry_in_seconds=pause)
                await self._tail.close()
                await asyncio.sleep(pause)
                pause = min(pause * 2, 1.0)

    async def _follow(self) -> None:
        while True:
            self._wake.clear()
            if self._idle:
                await self._wake.wait()
                continue
            rows, unsettled = await self._tail.read(self.position, PAGE)
            if rows:
                self._publish(rows)
                await asyncio.sleep(0)  # let the subscribers send before the next page
            elif unsettled:
                await asyncio.sleep(UNSETTLED_SECONDS)
            else:
                await self._sleep()

    async def _sleep(self) -> None:
        try:
            async with asyncio.timeout(self._poll):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _publish(self, rows: Sequence[Sequence[Any]]) -> None:
        for row in rows:
            self.position = Position(row[0], row[1])
            own = self._by_entity.get(row[4])
            if own or self._any:
                self._offer(Published(row), own)

    def _offer(self, event: Published, own: set[Subscription] | None) -> None:
        for group in (self._any, own):
            for subscription in tuple(group or ()):
                if subscription.takes_all or subscription.filters.match(
                    event.entity_type, event.entity_id, event.event_type
                ):
                    subscription.offer(event)

    async def _announce(self) -> None:
        """One NOTIFY for everything committed within some milliseconds: NOTIFY in each transaction would halve the commits."""
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self._tail.announce()
            except Exception as error:  # a lost wake-up costs the others one poll interval
                logger.warning("event_announcement_failed", error=str(error))
            await asyncio.sleep(NOTIFY_SECONDS)
