"""A git server over HTTP for tests: git's own `http-backend` behind tokens, with the bad days real servers have."""

import base64
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

SERVICES = ("/info/refs", "/git-upload-pack", "/git-receive-pack")
SETTINGS = {"http.receivepack": "true", "core.fsync": "none"}


@dataclass
class Said:
    """An answer; status 0 drops the connection."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class GitServer:
    """Serves the bare repositories below a folder on loopback."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rights: dict[str, str] = {}
        """Token -> `rw`, `ro` or `expired`. Without any token everybody may do everything."""
        self.requests: list[str] = []
        self.tokens_seen: list[str] = []
        self.dies = ""
        """`before` or `after`: drop the connection of every push before or after it took effect."""
        self.after_push: Callable[[], None] | None = None
        """Called when a push took effect, before it is answered."""
        self.redirect = ""
        """Send every request on to this address."""
        handler = type("Handler", (_Handler,), {"house": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_port}"

    def other(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Said | None:
        """What is no git: a forge's API. None leaves it to git."""
        del method, target, headers, body
        return None

    def right(self, token: str, path: str) -> str:
        """What a token may do: `rw`, `ro`, `none` or `expired`."""
        del path
        return self.rights.get(token, "none") if self.rights else "rw"

    def path(self, asked: str) -> str:
        """Where below the folder an address leads."""
        return asked

    def url(self, name: str) -> str:
        """The address of a repository."""
        return f"http://{self.host}/{name}"

    def start(self) -> None:
        """Serve in a thread."""
        threading.Thread(target=self._server.serve_forever, daemon=True, kwargs={"poll_interval": 0.02}).start()

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def serving(root: Path) -> Iterator[GitServer]:
    """A server that runs."""
    server = GitServer(root)
    server.start()
    try:
        yield server
    finally:
        server.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    house: ClassVar[GitServer]

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Silence: headers hold tokens."""

    def do_GET(self) -> None:
        self._handle()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - the base class looks for these names

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        self.house.requests.append(f"{self.command} {self.path}")
        body = self._body()
        if (said := self.house.other(self.command, self.path, dict(self.headers.items()), body)) is not None:
            return self._drop() if said.status == 0 else self._answer(said.status, said.headers, said.body)
        token = self._token()
        self.house.tokens_seen += [token] if token else []
        if self.house.redirect:
            return self._answer(302, {"Location": self.house.redirect + self.path})
        pushing = "git-receive-pack" in self.path
        right = self.house.right(token, parts.path)
        if right in {"none", "expired"}:
            return self._answer(401, {"WWW-Authenticate": 'Basic realm="test"'})
        if pushing and right == "ro":
            return self._answer(403, {}, b"Write access to repository not granted.\n")
        if not parts.path.endswith(SERVICES):
            return self._answer(404, {})
        dying = self.house.dies if pushing and self.command == "POST" else ""
        if dying == "before":
            return self._drop()
        status, headers, answer = self._backend(self.house.path(parts.path), parts.query, body)
        if pushing and self.command == "POST" and self.house.after_push:
            self.house.after_push()
        return self._drop() if dying else self._answer(status, headers, answer)

    def _drop(self) -> None:
        self.close_connection = True

    def _token(self) -> str:
        kind, _, value = (self.headers.get("Authorization") or "").partition(" ")
        return base64.b64decode(value).decode().partition(":")[2] if kind.lower() == "basic" else ""

    def _body(self) -> bytes:
        if "chunked" not in (self.headers.get("Transfer-Encoding") or ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def _backend(self, path: str, query: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_COUNT": str(len(SETTINGS)),
            "GIT_PROJECT_ROOT": str(self.house.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REMOTE_USER": "test",
            "REMOTE_ADDR": "127.0.0.1",
        }
        for number, (key, value) in enumerate(SETTINGS.items()):
            environment |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        done = subprocess.run(["git", "http-backend"], input=body, capture_output=True, env=environment, check=False)
        head, _, answer = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode("latin1").split("\r\n") if ": " in line)
        return int(headers.pop("Status", "200").split()[0]), headers, answer

    def _answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
