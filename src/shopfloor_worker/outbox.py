"""The spool: everything that must reach the server, in order, on disk before it is sent and until it is acknowledged."""

import contextlib
import json
import os
import threading
import time
from datetime import datetime, timezone
from typing import Any, Optional

LINGER_SECONDS = 0.1
MOST_EVENTS = 50
MOST_BYTES = 1 << 20
COMPACT_BYTES = 8 << 20
MOST_DATA = 90_000
"""The server takes at most 100 KiB of event data."""
URGENT = frozenset(
    {
        *(
            "agent.started",
            "agent.session",
            "agent.steered",
            "agent.restarted_in_place",
            "agent.turn_end",
            "agent.completed",
        ),
        *("workflow.phase_started", "workflow.phase_completed", "git.commit_created"),
    }
)
"""Events that do not wait for company."""

Entry = "dict[str, Any]"


class Outbox:
    """An append-only file of entries and a small file saying how far they are acknowledged."""

    def __init__(self, folder: str) -> None:
        os.makedirs(folder, exist_ok=True)
        self._folder = folder
        self._file = os.open(self._path("outbox.jsonl"), os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._news = threading.Condition()
        self._offset, self._seq = self._load()
        self._size = os.fstat(self._file).st_size
        self._overflow: list[dict[str, Any]] = []
        self._waiting = 1 if self._size > self._offset else 0
        self._urgent, self._first_at = True, time.monotonic()

    def event(self, event_type: str, data: "dict[str, Any]", *, source: str = "worker", at: float = 0) -> None:
        """Report something."""
        moment = datetime.fromtimestamp(at or time.time(), timezone.utc)
        event = {
            "event_type": event_type,
            "event_data": fit(data),
            "source": source,
            "occurred_at": moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        with self._news:
            self._seq += 1
            self._append({"kind": "event", "event": {"seq": self._seq, **event}}, urgent=event_type in URGENT)

    def receipt(self, message_id: str, state: str, detail: str = "") -> None:
        """Say how far a message has come."""
        with self._news:
            self._append({"kind": "receipt", "message_id": message_id, "state": state, "detail": detail[:2000]})

    def upload(self, name: str, file: str, head: Optional[str]) -> None:
        """Hand out a file (kept in the spool until then)."""
        with self._news:
            self._append({"kind": "upload", "name": name, "file": file, "head": head})

    def result(self, body: "dict[str, Any]") -> None:
        """Submit how it ended."""
        with self._news:
            self._append({"kind": "result", "body": body})

    def next(self) -> "tuple[list[dict[str, Any]], int]":
        """Wait for what is to be sent next: events, or one entry of another kind; and the mark to acknowledge it by."""
        with self._news:
            while not self._waiting:
                self._news.wait()
            while not self._urgent and self._waiting < MOST_EVENTS:
                left = self._first_at + LINGER_SECONDS - time.monotonic()
                if left <= 0:
                    break
                self._news.wait(left)
            return self._batch()

    def acknowledge(self, mark: int) -> None:
        """Forget what was sent."""
        with self._news:
            if mark > self._size:
                del self._overflow[: mark - self._size]
            self._offset = min(mark, self._size)
            if self._offset == self._size and not self._overflow:
                self._waiting, self._urgent = 0, False
                if self._size > COMPACT_BYTES:
                    os.ftruncate(self._file, 0)
                    self._offset = self._size = 0
            self._save()
            self._news.notify_all()

    def drained(self, seconds: float) -> bool:
        """Whether everything is acknowledged within so many seconds."""
        until = time.monotonic() + seconds
        with self._news:
            while self._waiting:
                left = until - time.monotonic()
                if left <= 0:
                    return False
                self._news.wait(left)
        return True

    def _append(self, entry: "dict[str, Any]", *, urgent: bool = True) -> None:
        line = json.dumps(entry, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        try:
            if self._overflow:
                raise OSError("the spool's disk was full")
            if os.write(self._file, line) != len(line):
                raise OSError("short write")
            self._size += len(line)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)
            self._overflow.append(json.loads(line))
        if not self._waiting:
            self._first_at = time.monotonic()
        self._waiting += 1
        self._urgent = self._urgent or urgent
        self._news.notify_all()

    def _batch(self) -> "tuple[list[dict[str, Any]], int]":
        entries: list[dict[str, Any]] = []
        if self._offset == self._size:
            return self._overflow[:1], self._size + 1
        mark = self._offset
        for line in self._lines():
            entry = json.loads(line)
            if entries and (entry["kind"] != "event" or len(entries) >= MOST_EVENTS):
                break
            entries.append(entry)
            mark += len(line)
            if entry["kind"] != "event":
                break
        return entries, mark

    def _lines(self) -> "list[bytes]":
        size = MOST_BYTES
        while True:
            found = os.pread(self._file, min(size, self._size - self._offset), self._offset)
            whole = found[: found.rfind(b"\n") + 1]
            if whole or size > 64 * MOST_BYTES:
                return whole.splitlines(keepends=True)
            size *= 4

    def _load(self) -> "tuple[int, int]":
        known = {"offset": 0, "seq": 0}
        with contextlib.suppress(OSError, ValueError), open(self._path("outbox.offset"), encoding="utf-8") as file:
            known = json.load(file)
        size = os.fstat(self._file).st_size
        offset, seq = (known["offset"] if known["offset"] <= size else 0), known["seq"]
        with open(self._path("outbox.jsonl"), "rb") as file:
            file.seek(offset)
            whole = offset
            for line in file:
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                entry = json.loads(line)
                if entry["kind"] == "event":
                    seq = max(seq, entry["event"]["seq"])
        if whole < size:
            os.ftruncate(self._file, whole)
        return offset, seq

    def _save(self) -> None:
        part = self._path("outbox.offset.part")
        with contextlib.suppress(OSError):
            with open(part, "w", encoding="utf-8") as file:
                json.dump({"offset": self._offset, "seq": self._seq}, file)
            os.replace(part, self._path("outbox.offset"))

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name)


def fit(data: "dict[str, Any]") -> "dict[str, Any]":
    """The data, cut down to what the server takes."""
    for most in (0, 8000, 1000, 100):
        cut = shorten(data, most) if most else data
        if len(json.dumps(cut)) <= MOST_DATA:
            return dict(cut)
    return {"note": "too large to report", "keys": sorted(data)[:50]}


def shorten(value: Any, most: int) -> Any:
    """The same value with long texts cut and long lists shortened."""
    if isinstance(value, str):
        return value if len(value) <= most else value[:most] + f" … [{len(value) - most} more characters]"
    if isinstance(value, dict):
        return {key: shorten(item, most) for key, item in list(value.items())[:200]}
    if isinstance(value, list):
        return [shorten(item, most) for item in value[:200]]
    return value
