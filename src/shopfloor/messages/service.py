"""Saying things to running agents: queue, hand out (once, or leased until acknowledged), receipts."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from shopfloor.events import log
from shopfloor.events.bus import Hub, HubClosed
from shopfloor.events.catalog.sandboxes import MessageQueued, MessageReceiptChanged
from shopfloor.events.log import Filters
from shopfloor.kit import ids
from shopfloor.kit.db import Database, Session, db_time
from shopfloor.kit.errors import Conflict, NotFound
from shopfloor.messages import rules
from shopfloor.messages.models import Message
from shopfloor.messages.rules import MessageState, MessageType

LEASE_SECONDS = 30.0
MOST_AT_ONCE = 20
_STAMPS = {MessageState.DELIVERED: ("delivered_at",), MessageState.SEEN: ("delivered_at", "seen_at")}

_UNSEEN = frozenset({MessageState.ACCEPTED, MessageState.DELIVERED})


class MessageNotFound(NotFound):
    """There is no such message."""


class KeyReused(Conflict):
    """This key or id already names another message."""

    hint = "Use a new Idempotency-Key for a new message."


async def queue(
    session: Session,
    sandbox_id: str,
    content: str,
    message_type: str = MessageType.USER_MESSAGE,
    *,
    sender: str = "person",
    key: str | None = None,
    message_id: str | None = None,
) -> Message:
    """Accept a message for a sandbox, once per key or id; announces it."""
    kind = rules.message_type(message_type)
    clean = rules.cleaned(content, kind)
    values = {
        "id": message_id or ids.new("msg", 12),
        "sandbox_id": sandbox_id,
        "message_type": kind,
        "content": clean,
        "sender": sender,
        "idempotency_key": key,
        "state": MessageState.ACCEPTED,
    }
    if not await _insert(session, values):
        return await _same(session, values)
    message = await find(session, sandbox_id, values["id"])
    fact = MessageQueued(sandbox_id=sandbox_id, message_id=message.id, message_type=kind, content=clean)
    await log.append(session, fact, source=sender)
    return message


async def find(session: Session, sandbox_id: str, message_id: str | None) -> Message:
    """One message of a sandbox; raises MessageNotFound."""
    query = sa.select(Message).where(Message.sandbox_id == sandbox_id, Message.id == message_id)
    message = await session.scalar(query)
    if message is None:
        raise MessageNotFound(f"sandbox {sandbox_id} has no message {message_id}")
    return message


async def history(session: Session, sandbox_id: str, *, after: int = 0, limit: int = 100) -> list[Message]:
    """All messages of a sandbox with their receipts, oldest first."""
    query = sa.select(Message).where(Message.sandbox_id == sandbox_id, Message.position > after)
    return list(await session.scalars(query.order_by(Message.position).limit(limit)))


async def take(session: Session, sandbox_id: str, limit: int = 100) -> list[Message]:
    """Clear on read: what is pending, oldest first, counted as delivered by being read."""
    pending = _pending(sandbox_id).where(_unleased()).order_by(Message.position).limit(limit)
    messages = list(await session.scalars(pending.with_for_update()))
    for message in messages:
        await _move(session, message, MessageState.DELIVERED, "read")
    return messages


async def receipt(session: Session, sandbox_id: str, message_id: str, state: MessageState, detail: str = "") -> Message:
    """Note how far a message has come. A repeated or late receipt changes nothing; an impossible one raises IllegalMove."""
    query = sa.select(Message).where(Message.sandbox_id == sandbox_id, Message.id == message_id).with_for_update()
    message = await session.scalar(query)
    if message is None:
        raise MessageNotFound(f"sandbox {sandbox_id} has no message {message_id}")
    if rules.moves_on(MessageState(message.state), state):
        await _move(session, message, state, detail)
    return message


async def expire_for(session: Session, sandbox_id: str, detail: str = "the sandbox has ended") -> list[str]:
    """The sandbox has ended: whatever is not finished never will be. Answers what people said that no agent has seen, oldest first."""
    unfinished = [state for state in MessageState if not rules.MOVES.final(state)]
    query = sa.select(Message).where(Message.sandbox_id == sandbox_id, Message.state.in_(unfinished))
    messages = list(await session.scalars(query.order_by(Message.position).with_for_update()))
    unseen = [m.content for m in messages if m.state in _UNSEEN and m.message_type == MessageType.USER_MESSAGE]
    for message in messages:
        await _move(session, message, MessageState.EXPIRED, detail)
    return unseen


async def lease(session: Session, sandbox_id: str, *, seconds: float = LEASE_SECONDS) -> list[Message]:
    """Hand pending messages to the worker, oldest first; one that is not acknowledged in time comes again.

    Order holds: nothing passes a message the worker holds unacknowledged, but an interrupt.
    """
    leased = sa.select(sa.func.min(Message.position)).where(*_accepted(sandbox_id), sa.not_(_unleased()))
    first_held = (await session.execute(leased)).scalar()
    query = _pending(sandbox_id).where(_unleased())
    if first_held is not None:
        may_pass = Message.message_type == MessageType.INTERRUPT
        query = query.where(sa.or_(Message.position < first_held, may_pass))
    messages = list(await session.scalars(query.order_by(Message.position).limit(MOST_AT_ONCE).with_for_update()))
    if messages:
        change = sa.update(Message).where(Message.position.in_([m.position for m in messages]))
        change = change.values(lease_until=db_time(seconds), leases=Message.leases + 1)
        await session.execute(change, execution_options={"synchronize_session": False})
    return messages


async def lease_next(
    database: Database,
    hub: Hub,
    sandbox_id: str,
    *,
    wait: float,
    seconds: float = LEASE_SECONDS,
    gone: Callable[[], Awaitable[bool]] | None = None,
) -> list[Message]:
    """Lease what is pending; with nothing there wait up to `wait` seconds for it. `gone` tells that the caller has left."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait
    news = Filters(
        frozenset({"sandbox"}), frozenset({sandbox_id}), frozenset({MessageQueued.type, MessageReceiptChanged.type})
    )
    async with hub.subscribe(news) as events:
        while True:
            free_in = await _free_in(database, sandbox_id)
            if free_in is not None and free_in <= 0:
                if gone is not None and await gone():
                    return []
                async with database.transaction() as session:
                    if messages := await lease(session, sandbox_id, seconds=seconds):
                        return messages
                free_in = await _free_in(database, sandbox_id)
            left = deadline - loop.time()
            if left <= 0:
                return []
            try:
                await events.take(left if free_in is None else min(left, max(free_in, 0.05)))
            except HubClosed:
                return []


async def _free_in(database: Database, sandbox_id: str) -> float | None:
    """In how many seconds something may be leased: 0 when now, None when nothing is pending. Reads only."""
    columns = (Message.lease_until, db_time().label("now"), Message.message_type)
    query = sa.select(*columns).where(*_accepted(sandbox_id)).order_by(Message.position)
    async with database.reading() as session:
        rows = (await session.execute(query)).all()
    if not rows:
        return None
    waits = [(r[0] - r[1]).total_seconds() if r[0] else 0.0 for r in rows]
    interrupts = [w for w, r in zip(waits, rows, strict=True) if r[2] == MessageType.INTERRUPT]
    return max(0.0, min([waits[0], *interrupts]))


def _accepted(sandbox_id: str) -> tuple[sa.ColumnElement[bool], ...]:
    return Message.sandbox_id == sandbox_id, Message.state == MessageState.ACCEPTED


def _pending(sandbox_id: str) -> sa.Select[Any]:
    return sa.select(Message).where(*_accepted(sandbox_id))


def _unleased() -> sa.ColumnElement[bool]:
    return sa.or_(Message.lease_until.is_(None), Message.lease_until <= db_time())


async def _move(session: Session, message: Message, state: MessageState, detail: str) -> None:
    """The one place where a receipt changes; announces it."""
    before = MessageState(message.state)
    message.state = rules.MOVES.step(before, state)
    message.detail = detail
    message.lease_until = None
    moment = (await session.execute(sa.select(db_time()))).scalar_one()
    for name in _STAMPS.get(state, ("ended_at",)):
        if getattr(message, name) is None:
            setattr(message, name, moment)
    await session.flush()
    fact = MessageReceiptChanged(sandbox_id=message.sandbox_id, message_id=message.id, before=before, after=state)
    await log.append(session, fact)


async def _insert(session: Session, values: dict[str, Any]) -> bool:
    """Whether the message is new."""
    insert: Any = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    result: Any = await session.execute(insert(Message).values(values).on_conflict_do_nothing())
    return bool(result.rowcount)


async def _same(session: Session, values: dict[str, Any]) -> Message:
    """The message that has this id or key already, when it says the same; raises KeyReused."""
    named = sa.or_(
        Message.id == values["id"],
        sa.and_(Message.sandbox_id == values["sandbox_id"], Message.idempotency_key == values["idempotency_key"]),
    )
    message = (await session.scalars(sa.select(Message).where(named))).first()
    if message is None or any(
        getattr(message, name) != values[name] for name in ("sandbox_id", "message_type", "content")
    ):
        raise KeyReused
    return message
