"""A scripted model: an Anthropic Messages server on loopback that answers from a list of steps.

A step is a dict: `text`, `tool: [name, input]`, `write: [path, content]`, `bash: command`, `delay` seconds before the answer,
`slow` seconds between words, `error: status` (answered `times` times, for ever by default). The step is chosen by the number of
assistant turns in the request, so the server keeps no state of a conversation: retries, restarts and resumes just work.

    python -m tests.support.model_server --port 0 --script steps.json --log requests.jsonl
"""

import argparse
import gzip
import json
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

Step = dict[str, Any]
KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}
RESUME_FILLER = "No response requested."


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
        """For ANTHROPIC_BASE_URL."""
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

    def note(self, path: str, body: dict[str, Any]) -> None:
        """Keep a request for the test to look at."""
        entry = {"at": time.time(), "path": path, "body": body}
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
        if not body.get("tools"):
            return {"text": "ok"}
        number = turns(body)
        step: Step = self.script[number] if number < len(self.script) else {"text": "Nothing is left in the script."}
        if "error" in step:
            with self._news:
                self.refused[number] = self.refused.get(number, 0) + 1
                if self.refused[number] > step.get("times", 10**9):
                    return {key: value for key, value in step.items() if key != "error"}
        return step


def turns(body: dict[str, Any]) -> int:
    """How many turns of the model a request holds, not counting those the program adds itself on resume."""
    return sum(
        message.get("role") == "assistant" and RESUME_FILLER not in json.dumps(message.get("content"))
        for message in body.get("messages", [])
    )


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
        if path.endswith("/count_tokens"):
            self._answer({"input_tokens": 100})
            return
        self.server.model.note(path, body)
        if not path.endswith("/messages"):
            self._answer({"type": "error", "error": {"type": "not_found_error", "message": path}}, 404)
            return
        step = self.server.model.step(body)
        time.sleep(step.get("delay", 0))
        if "error" in step:
            kind = KINDS.get(step["error"], "api_error")
            self._answer({"type": "error", "error": {"type": kind, "message": "scripted error"}}, step["error"])
            return
        message = compose(step, str(body.get("model")))
        if body.get("stream"):
            self._stream(message, step.get("slow", 0))
        else:
            self._answer(message)

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

    def _stream(self, message: dict[str, Any], slow: float) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        opening = {**message, "content": [], "stop_reason": None}
        self._event("message_start", message=opening)
        for index, block in enumerate(message["content"]):
            self._block(index, block, slow)
        ending = {"stop_reason": message["stop_reason"], "stop_sequence": None}
        self._event("message_delta", delta=ending, usage={"output_tokens": message["usage"]["output_tokens"]})
        self._event("message_stop")

    def _block(self, index: int, block: dict[str, Any], slow: float) -> None:
        if block["type"] == "text":
            self._event("content_block_start", index=index, content_block={"type": "text", "text": ""})
            words = block["text"].split(" ") if slow else [block["text"]]
            for number, word in enumerate(words):
                piece = f" {word}" if number else word
                self._event("content_block_delta", index=index, delta={"type": "text_delta", "text": piece})
                time.sleep(slow)
        else:
            self._event("content_block_start", index=index, content_block={**block, "input": {}})
            asked = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
            self._event("content_block_delta", index=index, delta=asked)
        self._event("content_block_stop", index=index)

    def _event(self, kind: str, **fields: Any) -> None:
        self.wfile.write(f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode())
        self.wfile.flush()


def compose(step: Step, model: str) -> dict[str, Any]:
    """The model's message for a step."""
    content: list[dict[str, Any]] = [{"type": "text", "text": step["text"]}] if step.get("text") else []
    if call := _call(step):
        content.append({"type": "tool_use", "id": f"toolu_{uuid.uuid4().hex[:20]}", "name": call[0], "input": call[1]})
    return {
        "id": f"msg_{uuid.uuid4().hex[:20]}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": "tool_use" if call else "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 1000,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 25,
        },
    }


def _call(step: Step) -> tuple[str, dict[str, Any]] | None:
    if "tool" in step:
        return step["tool"][0], step["tool"][1]
    if "write" in step:
        return "Write", {"file_path": step["write"][0], "content": step["write"][1]}
    if "bash" in step:
        return "Bash", {"command": step["bash"], "description": "run"}
    return None


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
