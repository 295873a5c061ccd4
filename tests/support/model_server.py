"""A scripted model server on loopback that answers from a list of steps, in the API it is asked by: Anthropic Messages,
OpenAI Responses and Chat Completions, Gemini.

A step is a dict: `text`, `tool: [name, input]`, `write: [path, content]`, `bash: command`, `delay` seconds before the answer,
`slow` seconds between words, `error: status` (answered `times` times, for ever by default). `write` and `bash` take whatever tool
the request advertises. The step is chosen by the number of the model's turns in the request, so the server keeps no state of a
conversation: retries, restarts and resumes just work. A request without tools (a title, a summary) is answered "ok".

    python -m tests.support.model_server --port 0 --script steps.json --log requests.jsonl
"""

import argparse
import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support import model_speech
from tests.support.model_speech import Step, turns

__all__ = ["ModelServer", "Step"]


class ModelServer:
    """Serves in threads while entered; `script` may be changed at any time."""

    def __init__(self, script: Sequence[Step], *, port: int = 0, log: Path | None = None) -> None:
        self.script, self.log = list(script), log
        self.requests: list[dict[str, Any]] = []
        self.refused: dict[int, int] = {}
        self._news = threading.Condition()
        self._http = _Server(("127.0.0.1", port), _Handler)
        self._http.model = self
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """Without a version at its end."""
        return f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()

    def serve_forever(self) -> None:
        """Serve until killed."""
        self._http.serve_forever()

    def note(self, path: str, body: dict[str, Any], headers: Mapping[str, str]) -> None:
        """Keep a request for the test to look at."""
        entry = {"at": time.time(), "path": path, "body": body, "headers": dict(headers)}
        with self._news:
            self.requests.append(entry)
            if self.log:
                with self.log.open("a") as file:
                    file.write(json.dumps(entry) + "\n")
            self._news.notify_all()

    def wait_for(self, wanted: Callable[[dict[str, Any]], bool], timeout: float = 60) -> dict[str, Any]:
        """The first request for which `wanted(body)` holds, now or later."""
        until = time.monotonic() + timeout
        with self._news:
            while True:
                for entry in self.requests:
                    if wanted(entry["body"]):
                        body: dict[str, Any] = entry["body"]
                        return body
                left = until - time.monotonic()
                if left <= 0:
                    raise AssertionError(f"no such request among {len(self.requests)}")
                self._news.wait(left)

    def said(self, text: str) -> bool:
        """Whether a text reached the model."""
        return any(text in json.dumps(entry["body"], ensure_ascii=False) for entry in self.requests)

    def step(self, body: dict[str, Any]) -> Step:
        """What to answer to a request."""
        if not model_speech.tools(body):
            return {"text": "ok"}
        number = turns(body)
        step: Step = self.script[number] if number < len(self.script) else {"text": "Nothing is left in the script."}
        if "error" in step:
            with self._news:
                self.refused[number] = self.refused.get(number, 0) + 1
                if self.refused[number] > step.get("times", 10**9):
                    return {key: value for key, value in step.items() if key != "error"}
        return step


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    model: ModelServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""

    def do_GET(self) -> None:
        self._answer({"data": [{"id": "scripted", "type": "model"}]})

    do_HEAD = do_GET  # noqa: N815 - the base class's names

    def do_POST(self) -> None:
        body = self._body()
        path = self.path.split("?")[0]
        if path.endswith(("/count_tokens", ":countTokens")):
            self._answer({"input_tokens": 100, "totalTokens": 100})
            return
        self.server.model.note(path, body, dict(self.headers))
        api = model_speech.speaks(path)
        if api is None:
            self._answer({"type": "error", "error": {"type": "not_found_error", "message": path}}, 404)
            return
        step = self.server.model.step(body)
        time.sleep(step.get("delay", 0))
        if "error" in step:
            self._answer(model_speech.refusal(api, step["error"]), step["error"])
            return
        document = model_speech.answer(api, body, step)
        if body.get("stream") or "streamGenerateContent" in path:
            self._stream(model_speech.stream(api, document, slow=bool(step.get("slow"))), step.get("slow", 0))
        else:
            self._answer(document)

    def _body(self) -> dict[str, Any]:
        if "chunked" in self.headers.get("transfer-encoding", ""):
            raw = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                raw += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.headers.get("content-encoding") == "gzip":
            raw = gzip.decompress(raw)
        parsed: dict[str, Any] = json.loads(raw or b"{}")
        return parsed

    def _answer(self, document: Any, status: int = 200) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _stream(self, pieces: Iterator[model_speech.Piece], slow: float) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        for name, data in pieces:
            line = f"event: {name}\n" if name else ""
            text = data if isinstance(data, str) else json.dumps(data)
            self.wfile.write(f"{line}data: {text}\n\n".encode())
            self.wfile.flush()
            time.sleep(slow)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--script", type=Path, required=True)
    parser.add_argument("--log", type=Path)
    given = parser.parse_args()
    server = ModelServer(json.loads(given.script.read_text()), port=given.port, log=given.log)
    print(server.url, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
