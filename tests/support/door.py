"""The server's sandbox door as docs/worker-protocol.md describes it, for tests of the worker: real HTTP, state in memory."""

import json
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

RANK = ("accepted", "delivered", "seen", "done", "failed")


@dataclass
class Said:
    """A message with its lease and receipts."""

    message_id: str
    message_type: str
    content: str
    state: str = "accepted"
    leased_until: float = 0
    leases: int = 0
    receipts: list[str] = field(default_factory=list)


class Door:
    """One sandbox's side of the server. `close()` and `open()` take it away and bring it back on the same port."""

    def __init__(self, sandbox_id: str = "sb-1", token: str = "sfs_test", lease_seconds: float = 30) -> None:
        self.sandbox_id, self.token, self.lease_seconds, self.fencing = sandbox_id, token, lease_seconds, 1
        self.events: dict[int, dict[str, Any]] = {}
        self.duplicates = 0
        self.order: list[str] = []
        self.messages: list[Said] = []
        self.artifacts: dict[str, list[tuple[bytes, str | None]]] = {}
        self.results: list[dict[str, Any]] = []
        self.answer_status = 0
        """Answer everything with this status instead."""
        self.lose_answers = 0
        """Store so many posts of events without answering them."""
        self.posts = 0
        self.news = threading.Condition()
        self.port = 0
        self._http: _Server | None = None

    @property
    def url(self) -> str:
        """For job.api.url."""
        return f"http://127.0.0.1:{self.port}"

    def open(self) -> Self:
        """Listen."""
        self._http = _Server(("127.0.0.1", self.port), _Handler)
        self._http.door = self
        self.port = self._http.server_port
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def close(self) -> None:
        """Go away: connections are refused, kept ones are cut."""
        if self._http:
            self._http.shutdown()
            self._http.server_close()
            self._http.cut()
            self._http = None

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- for tests
    def say(self, content: str, kind: str = "user_message") -> Said:
        """Queue a message for the worker."""
        with self.news:
            said = Said(f"msg-{len(self.messages) + 1}", kind, content)
            self.messages.append(said)
            self.news.notify_all()
        return said

    def wait[T](self, wanted: Callable[[], T], what: str, timeout: float = 60) -> T:
        """Wait until `wanted()` holds; it is asked again whenever something arrives."""
        until = time.monotonic() + timeout
        with self.news:
            while not (found := wanted()):
                left = until - time.monotonic()
                if left <= 0:
                    raise AssertionError(f"waited {timeout} s for {what}; last events: {self.types()[-15:]}")
                self.news.wait(min(left, 1))
        return found

    def wait_event(self, event_type: str, number: int = 1, **data: Any) -> dict[str, Any]:
        """The N-th event of a type whose data holds these values, now or later."""
        found = self.wait(lambda: len(self.of(event_type, **data)) >= number, f"{event_type} {data}")
        assert found
        return self.of(event_type, **data)[number - 1]

    def of(self, event_type: str, **data: Any) -> list[dict[str, Any]]:
        """The data of the events of a type, in order, that hold these values."""
        every = [e["event_data"] for _, e in sorted(self.events.items()) if e["event_type"] == event_type]
        return [found for found in every if data.items() <= found.items()]

    def types(self) -> list[str]:
        """The types of all events, in order."""
        return [event["event_type"] for _, event in sorted(self.events.items())]

    # ---- the protocol
    def post_events(self, events: Iterable[dict[str, Any]]) -> tuple[int, Any]:
        """Store each seq once."""
        new = 0
        for event in events:
            if set(event) != {"seq", "event_type", "event_data", "source", "occurred_at"}:
                return 422, {"detail": f"unknown or missing fields: {sorted(event)}"}
            if event["seq"] in self.events:
                self.duplicates += 1
                continue
            self.events[event["seq"]] = event
            self.order.append(event["event_type"])
            new += 1
        return 200, {"accepted": new, "duplicates": len(list(events)) - new, "last_seq": max(self.events, default=None)}

    def lease(self, wait: float) -> tuple[int, Any]:
        """Messages nobody has acknowledged and nobody holds."""
        until = time.monotonic() + wait
        while True:
            moment = time.monotonic()
            free = [m for m in self.messages if m.state == "accepted" and m.leased_until <= moment]
            if free or moment >= until or self._http is None:
                break
            self.news.wait(min(until - moment, 0.2))
        for message in free:
            message.leased_until = time.monotonic() + self.lease_seconds
            message.leases += 1
        names = ("message_id", "message_type", "content")
        told = [{**{n: getattr(m, n) for n in names}, "lease_seconds": self.lease_seconds} for m in free]
        return 200, {"messages": told}

    def receipt(self, message_id: str, state: str) -> tuple[int, Any]:
        """Never backwards; a message that has ended moves no more."""
        message = next((m for m in self.messages if m.message_id == message_id), None)
        if message is None:
            return 404, {"detail": "there is no such message"}
        message.receipts.append(state)
        self.order.append(f"receipt:{state}")
        if message.state == "expired":
            return 409, {"detail": "expired cannot become anything"}
        if RANK.index(state) > RANK.index(message.state) and message.state != "done":
            message.state = state
        return 200, {"message_id": message_id, "state": message.state}

    def result(self, body: dict[str, Any]) -> tuple[int, Any]:
        """Only from the newest attempt."""
        if body["fencing"] != self.fencing:
            return 409, {"detail": "stale fencing number"}
        if not self.results:
            self.results.append(body)
            self.order.append("result")
        return 200, {"recorded": True}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    door: Door

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.open_sockets: set[Any] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open_sockets.add(request)
        super().process_request(request, client_address)

    def cut(self) -> None:
        """Break the connections that are still open."""
        for connection in list(self.open_sockets):
            try:
                connection.shutdown(2)
            except OSError:
                continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A worker that was killed is no error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_GET  # noqa: N815 - the base class's names

    def _serve(self) -> None:
        door, body = self.server.door, self.rfile.read(int(self.headers.get("content-length") or 0))
        prefix = f"/api/v1/sandboxes/{door.sandbox_id}/"
        if door.answer_status:
            self._answer(door.answer_status, {"detail": "as the test wishes"})
        elif self.headers.get("authorization") != f"Bearer {door.token}":
            self._answer(401, {"detail": "wrong token"})
        elif not self.path.startswith(prefix):
            self._answer(403, {"detail": "this door does not lead there"})
        else:
            with door.news:
                status, answer = self._route(door, self.path.removeprefix(prefix), body)
                door.news.notify_all()
            if status:
                self._answer(status, answer)
            else:
                self.close_connection = True

    def _route(self, door: Door, path: str, body: bytes) -> tuple[int, Any]:
        name, _, query = path.partition("?")
        if name == "events":
            door.posts += 1
            status, answer = door.post_events(json.loads(body)["events"])
            if door.lose_answers:
                door.lose_answers -= 1
                return 0, None
            return status, answer
        if name == "messages/next":
            return door.lease(float(query.removeprefix("wait=")))
        if name.startswith("messages/") and name.endswith("/receipts"):
            return door.receipt(name.split("/")[1], json.loads(body)["state"])
        if name.startswith("artifacts/"):
            door.artifacts.setdefault(name.split("/")[1], []).append((body, self.headers.get("x-head-sha")))
            door.order.append(f"artifact:{name.split('/')[1]}")
            return 200, {"sha256": "", "size": len(body)}
        if name == "results":
            return door.result(json.loads(body))
        return 404, {"detail": f"no route {path}"}

    def _answer(self, status: int, document: Any) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
