"""Take in what a sandbox's worker wrote down to report and did not come to: by the ordinary doors, from a hostile folder, each thing once."""

import asyncio
import io
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from shopfloor.kit import trees
from shopfloor.kit.errors import Malformed, TooLarge
from shopfloor.workorders import queries, service
from shopfloor.workorders.models import Attempt
from shopfloor.workorders.rules import OrderStatus
from shopfloor.workorders.steps import Tools
from shopfloor.workorders.steps.receive import import_commits

OUTBOX, OFFSET = b"outbox.jsonl", b"outbox.offset"
MOST = 64 << 20
MOST_LINE = 2 << 20
BATCH_EVENTS, BATCH_BYTES = 200, 512 << 10
MOST_UPLOADS = 50
NAME = re.compile(r"[a-z][a-z0-9._-]{0,99}")


@dataclass
class Drained:
    """What came of it."""

    events: int = 0
    uploads: int = 0
    left: list[str] = field(default_factory=list)
    """What stays in the spool, and why."""
    waiting: list[dict[str, Any]] = field(default_factory=list)
    size: int = 0


async def drain(tools: Tools, spool: Path, sandbox_id: str, attempt: Attempt | None) -> Drained:
    """Take in the unsent end of a spool, in its order. Idempotent: events by their number, uploads by their content."""
    done = Drained()
    entries = iter(await asyncio.to_thread(lambda: list(_unsent(spool, done))))
    for entry in entries:
        kind = entry.get("kind")
        if kind == "event" and isinstance(entry.get("event"), dict):
            await _event(tools, sandbox_id, done, entry["event"])
            continue
        await _flush(tools, sandbox_id, done)
        if kind == "upload":
            if why := await _upload(tools, spool, done, entry, attempt):
                done.left.append(f"the upload {str(entry.get('name'))[:100]!r} and what comes after it: {why}")
                break  # a step's report must not arrive without its commits
        elif kind == "result":
            done.left.append("the worker's result, which came too late")
        elif kind != "receipt":
            done.left.append("a line of no known kind")
    await _flush(tools, sandbox_id, done)
    return done


def _unsent(spool: Path, done: Drained) -> Iterator[dict[str, Any]]:
    """The whole lines after the last that was acknowledged. What says how far that was is the worker's own word, and only it loses by a lie."""
    try:
        with trees.opened(spool, OUTBOX) as file:
            file.seek(_offset(spool, file.seek(0, io.SEEK_END)))
            data = trees.exactly(file, MOST)
    except OSError:
        return
    if len(data) == MOST:
        done.left.append(f"what comes after {MOST} bytes of unsent reports")
    whole = data[: data.rfind(b"\n") + 1]
    for line in whole.split(b"\n"):
        try:
            entry = orjson.loads(line) if line and len(line) <= MOST_LINE else {} if line else None
        except orjson.JSONDecodeError:
            entry = {}
        if entry is not None:
            yield entry if isinstance(entry, dict) else {}


def _offset(spool: Path, size: int) -> int:
    try:
        told = orjson.loads(trees.read(spool, OFFSET, 4096) or b"{}")
        offset = told.get("offset", 0)
    except (orjson.JSONDecodeError, AttributeError):
        return 0
    return offset if type(offset) is int and 0 <= offset <= size else 0


async def _event(tools: Tools, sandbox_id: str, done: Drained, event: dict[str, Any]) -> None:
    size = len(orjson.dumps(event))
    if len(done.waiting) >= BATCH_EVENTS or done.size + size > BATCH_BYTES:
        await _flush(tools, sandbox_id, done)
    done.waiting.append(event)
    done.size += size


async def _flush(tools: Tools, sandbox_id: str, done: Drained) -> None:
    """Post what waits; when one event is refused, the others must arrive."""
    batch, done.waiting, done.size = done.waiting, [], 0
    if not batch:
        return
    try:
        done.events += (await tools.ingest.post(sandbox_id, orjson.dumps({"events": batch}))).accepted
    except (Malformed, TooLarge):
        for event in batch:
            try:
                done.events += (await tools.ingest.post(sandbox_id, orjson.dumps({"events": [event]}))).accepted
            except (Malformed, TooLarge) as refusal:
                done.left.append(f"an event that is not accepted: {refusal.message}"[:300])


async def _upload(tools: Tools, spool: Path, done: Drained, entry: dict[str, Any], attempt: Attempt | None) -> str:
    """Take in a file; answers why not, if not."""
    name, head, file = entry.get("name"), entry.get("head"), entry.get("file")
    if not isinstance(name, str) or not NAME.fullmatch(name) or not isinstance(file, str):
        return "it has no proper name"
    if head is not None and not (isinstance(head, str) and re.fullmatch(r"[0-9a-f]{40,64}", head)):
        return "its commit is none"
    if attempt is None or done.uploads >= MOST_UPLOADS or not await _current(tools, attempt):
        return "the order has gone on without it"
    try:
        with trees.opened(spool, file.rpartition("/")[2].encode("utf-8", "replace")) as source:
            sha256, size = await tools.blobs.put(_chunks(source), limit=tools.settings.max_upload_bytes)
    except (OSError, ValueError, TooLarge) as error:
        return str(error)[:200]
    async with tools.database.transaction() as session:
        if await queries.same_artifact(session, attempt.attempt_id, name, sha256):
            return ""
        artifact = await service.add_artifact(
            session, attempt.sandbox_id, name=name, sha256=sha256, size=size, head_commit=head
        )
    done.uploads += 1
    if name in queries.BUNDLES:
        await import_commits(tools, artifact)
    return ""


async def _current(tools: Tools, attempt: Attempt) -> bool:
    """Whether nothing newer could be overtaken by what this attempt hands in late."""
    async with tools.database.reading() as session:
        order = await queries.get(session, attempt.work_order_id)
        row = await queries.attempt(session, attempt.attempt_id)
    return order.attempts == row.number and not row.concluded and order.status == OrderStatus.RUNNING


async def _chunks(file: io.FileIO) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(file.read, trees.CHUNK):
        yield chunk
