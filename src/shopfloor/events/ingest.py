"""Taking in agents' events: one group-commit writer per process; acknowledged after the commit, never before."""

import asyncio
import inspect
import re
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

import msgspec
import orjson

from shopfloor.events.catalog import OURS
from shopfloor.events.log import HEARTBEAT
from shopfloor.events.store import Away, Row, Store
from shopfloor.kit import log
from shopfloor.kit.errors import Malformed, TooLarge, Unavailable

logger = log.get(__name__)

MOST_DATA = 100 * 1024
MOST_EVENTS = 500
MOST_WAITING = 50_000
MOST_BYTES_WAITING = 64 << 20
ROWS_A_COMMIT = 1000
EVENT_TYPE = r"[A-Za-z][A-Za-z0-9_.-]{0,99}"
SOURCE = r"[ -~]{1,50}"
_EVENT_TYPE, _SOURCE = re.compile(EVENT_TYPE), re.compile(SOURCE)
_HEARTBEATS = frozenset({"heartbeat", "agent.heartbeat", HEARTBEAT})
_EARLIEST, _LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)


class EventMalformed(Malformed):
    """The event is not well formed."""


class EventTooLarge(TooLarge):
    """The event data is larger than allowed."""

    hint = f"Keep event_data under {MOST_DATA} bytes and a batch at {MOST_EVENTS} events; upload large outputs as artifacts."


class IngestUnavailable(Unavailable):
    """Events cannot be stored right now; nothing was acknowledged."""

    hint = "Send the same events again with the same seq numbers; they are stored once."


class Posted(msgspec.Struct):
    """One event as a sandbox posts it."""

    event_type: str
    event_data: msgspec.Raw = msgspec.Raw(b"{}")
    source: str = "agent"
    seq: int | None = None
    occurred_at: datetime | None = None


class _Body(msgspec.Struct):
    """The single form and the batch, on one route."""

    events: list[Posted] | None = None
    event_type: str | None = None
    event_data: msgspec.Raw = msgspec.Raw(b"{}")
    source: str = "agent"
    seq: int | None = None
    occurred_at: datetime | None = None


class Stored(NamedTuple):
    """What became of a post: how many events are new, how many were there already, the highest seq of the post."""

    accepted: int
    duplicates: int
    last_seq: int | None


Owner = tuple[str | None, str | None]
OwnerOf = Callable[[str], Owner | Awaitable[Owner | None] | None]

_decoder = msgspec.json.Decoder(_Body)


def decode(body: bytes) -> list[Posted]:
    """Parse and judge a request body; raises EventMalformed or EventTooLarge."""
    try:
        parsed = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise EventMalformed(f"body: {error}") from error
    if parsed.events is None:
        if parsed.event_type is None:
            raise EventMalformed(
                "body: event_type is missing", hint="Send {event_type, event_data} or {events: [...]}."
            )
        events = [Posted(parsed.event_type, parsed.event_data, parsed.source, parsed.seq, parsed.occurred_at)]
    else:
        events = parsed.events
    if len(events) > MOST_EVENTS:
        raise EventTooLarge(f"{len(events)} events in one batch; at most {MOST_EVENTS}")
    return events


def row(event: Posted, sandbox_id: str, owner: Owner) -> Row:
    """The stored form of a posted event; raises EventMalformed or EventTooLarge."""
    if event.seq is not None and not 1 <= event.seq < 2**63:
        raise EventMalformed("seq: must be a positive 64-bit number")
    return Row(
        _event_type(event.event_type),
        sandbox_id,
        _payload(event.event_data),
        _source(event.source),
        event.seq,
        owner[0],
        owner[1],
        _occurred(event.occurred_at),
    )


@lru_cache(maxsize=1024)
def _event_type(text: str) -> str:
    if not _EVENT_TYPE.fullmatch(text):
        raise EventMalformed(f"event_type: {text[:100]!r} does not match {EVENT_TYPE}")
    if text in OURS:
        raise EventMalformed(f"event_type: {text} is said by the platform alone", hint="Choose a type of your own.")
    return HEARTBEAT if text in _HEARTBEATS else text


@lru_cache(maxsize=1024)
def _source(text: str) -> str:
    if not _SOURCE.fullmatch(text):
        raise EventMalformed(f"source: {text[:50]!r} does not match {SOURCE}")
    return text


def _payload(raw: msgspec.Raw) -> str:
    """The data's own text, checked to be an object that every later reader can parse, on one line."""
    data = bytes(raw)
    if len(data) > MOST_DATA:
        raise EventTooLarge(f"event_data has {len(data)} bytes; at most {MOST_DATA}")
    if data == b"null":
        return "{}"
    try:
        parsed = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise EventMalformed(f"event_data: {error}") from error
    if not isinstance(parsed, dict):
        raise EventMalformed("event_data: must be an object")
    return (orjson.dumps(parsed) if b"\n" in data or b"\r" in data else data).decode()


def _occurred(instant: datetime | None) -> datetime | None:
    if instant is None:
        return None
    aware = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
    if not _EARLIEST <= aware <= _LATEST:
        raise EventMalformed("occurred_at: out of range")
    return aware


class Ingest:
    """The only door of agents' events into the log of this process."""

    def __init__(
        self, store: Store, *, owner_of: OwnerOf | None = None, stored: Callable[[], None] | None = None
    ) -> None:
        self._store, self._owner_of, self._stored = store, owner_of, stored
        self._waiting: deque[tuple[list[Row], asyncio.Future[int]]] = deque()
        self._rows_waiting = self._bytes_waiting = 0
        self._owners: dict[str, tuple[float, Owner]] = {}
        self._kick = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.commits = 0

    async def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._run(), name="event-ingest")

    async def close(self) -> None:
        """Write what is waiting, then stop."""
        task, self._task = self._task, None
        self._kick.set()
        if task:
            await task
        await self._store.close()

    async def post(self, sandbox_id: str, body: bytes) -> Stored:
        """Store a request body of a sandbox; returns after the commit. Raises EventMalformed, EventTooLarge, IngestUnavailable."""
        events = decode(body)
        owner = await self.owner(sandbox_id)
        rows = [row(event, sandbox_id, owner) for event in events]
        last = max((r.seq for r in rows if r.seq is not None), default=None)
        accepted = await self._write(rows) if rows else 0
        return Stored(accepted, len(rows) - accepted, last)

    async def _write(self, rows: list[Row]) -> int:
        if self._task is None or self._task.done():
            raise IngestUnavailable("the event writer is not running")
        if self._rows_waiting > MOST_WAITING or self._bytes_waiting > MOST_BYTES_WAITING:
            raise IngestUnavailable("too many events are waiting to be stored")
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append((rows, done))
        self._rows_waiting += len(rows)
        self._bytes_waiting += sum(len(row.payload) for row in rows)
        self._kick.set()
        return await done

    async def owner(self, sandbox_id: str) -> Owner:
        """Whose sandbox it is: remembered for ever once known, asked again after a second when not."""
        if self._owner_of is None:
            return None, None
        moment = asyncio.get_running_loop().time()
        known = self._owners.get(sandbox_id)
        if known and known[0] > moment:
            return known[1]
        found = self._owner_of(sandbox_id)
        owner = await found if inspect.isawaitable(found) else found
        if len(self._owners) > 10_000:
            self._owners.clear()
        self._owners[sandbox_id] = (moment + 1.0, (None, None)) if owner is None else (float("inf"), owner)
        return self._owners[sandbox_id][1]

    async def _run(self) -> None:
        while self._task is not None or self._waiting:
            if not self._waiting:
                self._kick.clear()
                await self._kick.wait()
                continue
            batches = [self._waiting.popleft()]
            rows = len(batches[0][0])
            while self._waiting and rows + len(self._waiting[0][0]) <= ROWS_A_COMMIT:
                batches.append(self._waiting.popleft())
                rows += len(batches[-1][0])
            self._rows_waiting -= rows
            self._bytes_waiting -= sum(len(row.payload) for batch, _ in batches for row in batch)
            await self._commit(batches)

    async def _commit(self, batches: list[tuple[list[Row], asyncio.Future[int]]]) -> None:
        try:
            counts = await self._store.write([rows for rows, _ in batches])
        except Away as error:
            logger.warning("event_commit_failed", batches=len(batches), error=str(error))
            for _, done in batches:
                _fail(done, IngestUnavailable(f"events cannot be stored right now: {error}"))
        except Exception as error:
            if len(batches) > 1:  # one of them is bad: find it, so that the others are stored
                for batch in batches:
                    await self._commit([batch])
                return
            logger.exception("event_batch_refused", rows=len(batches[0][0]))
            _fail(batches[0][1], EventMalformed(f"the database refuses this batch: {type(error).__name__}"))
        else:
            self.commits += 1
            for (_, done), count in zip(batches, counts, strict=True):
                if not done.done():
                    done.set_result(count)
            if self._stored and any(counts):
                self._stored()


def _fail(done: asyncio.Future[int], error: Exception) -> None:
    if not done.done():
        done.set_exception(error)
