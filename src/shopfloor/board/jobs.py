"""The doors of the board: the loops that move tickets by themselves, end reviews in time and find what is blocked."""

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from shopfloor.board import flow_queries, service
from shopfloor.board.queries import TicketNotFound
from shopfloor.board.steps.advance import advance
from shopfloor.board.steps.block import detect, undelivered
from shopfloor.board.steps.integrate import take_in
from shopfloor.board.steps.react import answer, reply
from shopfloor.board.steps.reviews import review
from shopfloor.events import log as events
from shopfloor.events.bus import Published
from shopfloor.kit import log
from shopfloor.kit.background import Background
from shopfloor.kit.errors import NotFound, Problem, Unavailable
from shopfloor.workorders.models import WorkOrder
from shopfloor.workorders.steps import Tools

logger = log.get(__name__)

HEAR = (
    "task.created",
    "task.changed",
    "task.status_changed",
    "criteria.changed",
    "evidence.recorded",
    "check_run.state_changed",
    "ticket.created",
    "ticket.changed",
    "ticket.blocked",
    "ticket.unblocked",
    "ticket.approval_changed",
    "ticket.head_moved",
    "ticket.archived",
    "TICKET_TRANSITIONED",
    "project.changed",
    "work_order.finished",
    "forge.review_submitted",
    "forge.comment_made",
    "forge.checks_failed",
    "forge.change_closed",
)
REVIEW_SECONDS = 10.0
"""How often reviews are looked for: none is shorter than a minute, and one that is known is ended on time."""
TOLD, SWEPT = 0, 1
"""Whose turn is first: what happened goes before what is only looked at again."""
MOST_STEPS = 50
"""Of one ticket in a row, before others have their turn."""
AT_ONCE = 4
"""Tickets looked after at the same time: most of it is waiting for git and the database."""


@dataclass
class Mover:
    """The part of one engine process that lets tickets move."""

    tools: Tools
    background: Background
    wanted: "asyncio.PriorityQueue[tuple[int, int, str]]" = field(default_factory=asyncio.PriorityQueue)
    waiting: dict[str, int] = field(default_factory=dict)
    """Tickets in `wanted` and their turn, so that each has one."""
    numbers: Iterator[int] = field(default_factory=itertools.count)
    busy: set[str] = field(default_factory=set)
    again: set[str] = field(default_factory=set)
    """Tickets that something happened to while they were looked after."""

    def launch(self) -> None:
        """Begin."""
        self.background.keep("board_hear", self._hear)
        self.background.keep("board_sweep", self._sweep)
        self.background.keep("board_reviews", self._reviews)
        self.background.keep("board_blocking", self._blocking)
        for number in range(AT_ONCE):
            self.background.keep(f"board_move_{number}", self._work)

    def want(self, ticket_id: str, *, turn: int = TOLD) -> None:
        """Have a ticket looked after: soon when a fact tells of it, else when there is nothing to do for those."""
        if ticket_id in self.busy:
            self.again.add(ticket_id)
        elif turn < self.waiting.get(ticket_id, turn + 1):
            self.waiting[ticket_id] = turn
            self.wanted.put_nowait((turn, next(self.numbers), ticket_id))

    async def _work(self) -> None:
        while True:
            turn, _, ticket_id = await self.wanted.get()
            if self.waiting.get(ticket_id) != turn:
                continue  # it had an earlier turn
            del self.waiting[ticket_id]
            self.busy.add(ticket_id)
            try:
                await self.look_after(ticket_id)
            except NotFound:
                continue
            except Problem as problem:  # the forge or git is away; the sweep comes back to it
                logger.warning("ticket_advance_failed", ticket_id=ticket_id, code=problem.code, reason=problem.message)
            finally:
                self.busy.discard(ticket_id)
                if ticket_id in self.again:
                    self.again.discard(ticket_id)
                    self.want(ticket_id)

    async def look_after(self, ticket_id: str) -> None:
        """Take in what its tasks made and what a forge told of its change, then do its next steps until there is none."""
        await self._integrate(ticket_id)
        await answer(self.tools, ticket_id)
        await review(self.tools, ticket_id)
        for _ in range(MOST_STEPS):
            if not await advance(self.tools, ticket_id):
                break
        else:
            self.again.add(ticket_id)
        await reply(self.tools, ticket_id)

    async def _integrate(self, ticket_id: str) -> None:
        async with self.tools.database.reading() as session:
            made = await flow_queries.deliveries(session, ticket_id)
        for task_id in made:
            try:
                await take_in(self.tools, ticket_id, task_id)
            except (Unavailable, TicketNotFound):
                raise
            except Problem as problem:
                await undelivered(self.tools, ticket_id, problem)
                return

    async def _hear(self) -> None:
        async with self.tools.hub.subscribe(events.Filters(event_types=frozenset(HEAR))) as feed:
            async for event in feed:
                await self._take(event)

    async def _take(self, event: Published) -> None:
        payload = event.payload
        ticket_id = payload.get("ticket_id") or payload.get("subject_id")
        if event.event_type == "work_order.finished":
            ticket_id = await self._reviewed(event.entity_id)
        if event.entity_type == "repository":
            ticket_id = payload.get("work_order_id")
        if ticket_id:
            self.want(ticket_id)
        if event.event_type == "project.changed":
            await self._look_around()
        left = payload.get("before") if event.event_type == "TICKET_TRANSITIONED" else None
        if left or event.event_type == "ticket.archived" or "merge_commit" in payload.get("changes", {}):
            async with self.tools.database.reading() as session:
                for other in await flow_queries.neighbours(session, payload["ticket_id"], left):
                    self.want(other)

    async def _reviewed(self, order_id: str) -> str | None:
        """The ticket that a reviewer's order is about; other orders are told of by their tasks."""
        async with self.tools.database.reading() as session:
            order = await session.get(WorkOrder, order_id)
        return order.ticket_id if order and order.question else None

    async def _sweep(self) -> None:
        """What a crash left, and what nobody told of."""
        while True:
            await self._look_around()
            await asyncio.sleep(self.tools.settings.board.sweep_seconds)

    async def _look_around(self) -> None:
        async with self.tools.database.reading() as session:
            for ticket_id in await flow_queries.stirring(session):
                self.want(ticket_id, turn=SWEPT)

    async def _reviews(self) -> None:
        while True:
            async with self.tools.database.reading() as session:
                left = await flow_queries.review_ends(session)
            if left is not None and left <= 0:
                async with self.tools.database.transaction() as session:
                    await service.time_out(session)
            await asyncio.sleep(REVIEW_SECONDS if left is None else min(REVIEW_SECONDS, max(0.5, left)))

    async def _blocking(self) -> None:
        while True:
            await asyncio.sleep(min(60.0, self.tools.settings.board.blocking_seconds / 4))
            await detect(self.tools)
