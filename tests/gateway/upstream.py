"""A provider's server on loopback: real HTTP, answers as the test says, every request kept."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

INPUT, OUTPUT = 1200, 300
"""Tokens that every whole answer tells of."""


@dataclass
class Seen:
    """A request as it arrived."""

    at: float
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Reply:
    """What to answer: pieces go out one by one, `gate` is waited for before each but the first."""

    pieces: Sequence[bytes]
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "text/event-stream"})
    gate: Callable[[], Any] | None = None
    cut: bool = False
    """Close the connection in the middle instead of ending the answer."""


class Upstream:
    """Serves while entered; `answer` makes the reply to each request."""

    def __init__(self) -> None:
        self.answer: Callable[[Seen], Reply] = lambda seen: whole(seen.path)
        self.seen: list[Seen] = []
        self.hung_up = threading.Event()
        """Set when a client left before its answer had ended."""
        self._http = _Server(("127.0.0.1", 0), _Handler)
        self._http.upstream = self

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    upstream: Upstream

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left is no error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        seen = Seen(time.time(), self.command, self.path, headers, body)
        self.server.upstream.seen.append(seen)
        reply = self.server.upstream.answer(seen)
        self.send_response(reply.status)
        for name, value in {**reply.headers, "transfer-encoding": "chunked"}.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self._pieces(reply)
        except OSError:
            self.server.upstream.hung_up.set()

    def _pieces(self, reply: Reply) -> None:
        for number, piece in enumerate(reply.pieces):
            if number and reply.gate:
                reply.gate()
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.flush()
        if reply.cut:
            self.close_connection = True
            self.connection.close()
        else:
            self.wfile.write(b"0\r\n\r\n")


def data(**document: Any) -> bytes:
    """One server-sent event."""
    kind = f"event: {document['type']}\n" if "type" in document else ""
    return f"{kind}data: {json.dumps(document)}\n\n".encode()


def anthropic(model: str = "claude-opus-4-5", text: str = "Hello.") -> Iterator[bytes]:
    """A streamed message."""
    usage = {"input_tokens": INPUT, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 1}
    yield data(type="message_start", message={"type": "message", "model": model, "content": [], "usage": usage})
    yield data(type="content_block_delta", index=0, delta={"type": "text_delta", "text": text})
    yield data(type="message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": OUTPUT})
    yield data(type="message_stop")


def responses(model: str = "gpt-5", text: str = "Hello.") -> Iterator[bytes]:
    """A streamed response."""
    yield data(type="response.created", response={"model": model, "status": "in_progress", "usage": None})
    yield data(type="response.output_text.delta", delta=text)
    usage = {"input_tokens": INPUT, "output_tokens": OUTPUT, "total_tokens": INPUT + OUTPUT}
    yield data(type="response.completed", response={"model": model, "status": "completed", "usage": usage})


def chat(model: str = "gpt-5", text: str = "Hello.") -> Iterator[bytes]:
    """A streamed chat completion, told to include usage."""
    yield data(model=model, choices=[{"index": 0, "delta": {"content": text}}], usage=None)
    usage = {"prompt_tokens": INPUT, "completion_tokens": OUTPUT, "total_tokens": INPUT + OUTPUT}
    yield data(model=model, choices=[], usage=usage)
    yield b"data: [DONE]\n\n"


def gemini(model: str = "gemini-2.5-pro", text: str = "Hello.") -> Iterator[bytes]:
    """A streamed generation."""
    known = {"promptTokenCount": INPUT, "candidatesTokenCount": 2, "totalTokenCount": INPUT + 2}
    part = {"content": {"parts": [{"text": text}]}}
    yield data(modelVersion=model, candidates=[part], usageMetadata=known)
    known = {"promptTokenCount": INPUT, "candidatesTokenCount": OUTPUT, "totalTokenCount": INPUT + OUTPUT}
    yield data(modelVersion=model, candidates=[{**part, "finishReason": "STOP"}], usageMetadata=known)


STREAMS = {"/v1/messages": anthropic, "/v1/responses": responses, "/v1/chat/completions": chat}


def whole(path: str, **given: Any) -> Reply:
    """A whole answer of the API that the path belongs to."""
    return Reply(list(STREAMS.get(path.partition("?")[0], gemini)(**given)))


def limited(seconds: float) -> Reply:
    """A usage limit that ends after so many seconds."""
    body = {"type": "error", "error": {"type": "rate_limit_error", "message": "You have used it all."}}
    headers = {"content-type": "application/json", "retry-after": f"{seconds:g}"}
    return Reply([json.dumps(body).encode()], 429, headers)
