"""Requests to the server's sandbox door: retried for ever, until it answers, says we are not wanted, or has been away too long."""

import contextlib
import http.client
import json
import threading
import time
from typing import Any, Optional
from urllib.parse import quote, urlsplit

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0


class Unwanted(Exception):
    """The server says this worker has no business any more."""


class Refused(Exception):
    """The server will never take this request."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status


class Away(Exception):
    """No answer for longer than the worker may wait."""


class Api:
    """The server as the worker's threads share it."""

    def __init__(self, job: "dict[str, Any]") -> None:
        where = urlsplit(job["api"]["url"])
        self._host, self._tls = where.netloc, where.scheme == "https"
        self._base = f"{where.path.rstrip('/')}/api/v1/sandboxes/{quote(job['sandbox_id'])}"
        self._token = job["api"]["token"]
        self._away_seconds = float(job.get("server_away_seconds") or 900)
        self._heard = time.monotonic()
        self._lines = threading.local()

    def call(
        self, method: str, path: str, body: Optional[bytes] = None, *, headers: "Optional[dict[str, str]]" = None
    ) -> Any:
        """The answer to a request. Raises Refused, Unwanted (401, 403, 404, 409) or Away."""
        pause = FIRST_PAUSE
        while True:
            status, answer = self._try(method, path, body, headers or {})
            if status and status < 500:
                self._heard = time.monotonic()
            if 200 <= status < 300:
                return json.loads(answer) if answer else None
            if 300 <= status < 500 and status not in (408, 425, 429):
                detail = answer[:300].decode("utf-8", "replace")
                if status in (401, 403):
                    raise Unwanted(f"{status} to {method} {path}: {detail}")
                raise Refused(status, detail)
            if time.monotonic() - self._heard > self._away_seconds:
                raise Away(f"no answer from the server for {self._away_seconds:.0f} s")
            time.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)

    def _try(self, method: str, path: str, body: Optional[bytes], headers: "dict[str, str]") -> "tuple[int, bytes]":
        """One try, and a second at once when a kept connection turned out to be dead; status 0: no answer."""
        sent = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json", **headers}
        for kept in (True, False):
            line = getattr(self._lines, "line", None) if kept else None
            if kept and line is None:
                continue
            try:
                line = line or self._dial()
                line.request(method, self._base + path, body, sent)
                answer = line.getresponse()
                return answer.status, answer.read()
            except (OSError, http.client.HTTPException, ValueError):
                self._hang_up()
        return 0, b""

    def _dial(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._tls else http.client.HTTPConnection
        line = kind(self._host, timeout=60)
        self._lines.line = line
        return line

    def _hang_up(self) -> None:
        line = getattr(self._lines, "line", None)
        self._lines.line = None
        if line:
            with contextlib.suppress(OSError):
                line.close()
