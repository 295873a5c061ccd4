"""The threads between worker and server: one carries the outbox out, one brings messages in."""

import contextlib
import json
import os
import threading
import time
from typing import Any, Callable
from urllib.parse import quote

from shopfloor_worker.api import Api, Away, Refused, Unwanted
from shopfloor_worker.outbox import Outbox

POLL_SECONDS = 25


class Courier:
    """Carries both ways until the server says stop or is away too long; then tells `end` why."""

    def __init__(self, api: Api, outbox: Outbox, end: "Callable[[str, str], None]") -> None:
        self._api, self._outbox, self._tell_end = api, outbox, end
        self.ended = ""
        """unwanted, away or broken, once a thread has given up."""

    def start(self, hear: "Callable[[dict[str, Any]], None]") -> None:
        """Begin; messages go to `hear`."""
        for work in (self._carry, lambda: self._poll(hear)):
            threading.Thread(target=self._guarded, args=(work,), daemon=True).start()

    def _guarded(self, work: "Callable[[], None]") -> None:
        try:
            work()
        except (Unwanted, Refused) as error:
            self._end("unwanted", str(error))
        except Away as error:
            self._end("away", str(error))
        except Exception as error:  # nobody would hear of a thread that just dies
            self._end("broken", f"{type(error).__name__}: {error}")

    def _end(self, why: str, detail: str) -> None:
        self.ended = self.ended or why
        self._tell_end(why, detail)

    def _carry(self) -> None:
        while True:
            entries, mark = self._outbox.next()
            if entries[0]["kind"] == "event":
                self._post([entry["event"] for entry in entries])
            else:
                getattr(self, f"_{entries[0]['kind']}")(entries[0])
            self._outbox.acknowledge(mark)
            if entries[0]["kind"] == "upload":
                with contextlib.suppress(OSError):
                    os.unlink(entries[0]["file"])

    def _post(self, events: "list[dict[str, Any]]") -> None:
        body = json.dumps({"events": events}).encode()
        try:
            self._api.call("POST", "/events", body)
        except Refused as refusal:
            if refusal.status in (404, 409):
                raise
            if len(events) > 1:  # one of them is bad: the others must arrive
                for event in events:
                    self._post([event])
            elif events[0]["event_type"] != "worker.event_refused":
                note = {"refused": events[0]["event_type"], "status": refusal.status}
                self._post([{**events[0], "event_type": "worker.event_refused", "event_data": note}])

    def _receipt(self, entry: "dict[str, Any]") -> None:
        body = json.dumps({"state": entry["state"], "detail": entry["detail"]}).encode()
        with contextlib.suppress(Refused):  # it expired meanwhile: nothing left to acknowledge
            self._api.call("POST", f"/messages/{quote(entry['message_id'])}/receipts", body)

    def _upload(self, entry: "dict[str, Any]") -> None:
        try:
            with open(entry["file"], "rb") as file:
                content = file.read()
        except OSError as error:
            self._outbox.event("artifact.refused", {"name": entry["name"], "detail": str(error)})
            return
        headers = {"Content-Type": "application/octet-stream"}
        if entry["head"]:
            headers["X-Head-Sha"] = entry["head"]
        try:
            self._api.call("PUT", f"/artifacts/{quote(entry['name'])}", content, headers=headers)
        except Refused as refusal:
            if refusal.status in (404, 409):
                raise
            self._outbox.event("artifact.refused", {"name": entry["name"], "detail": str(refusal)})

    def _result(self, entry: "dict[str, Any]") -> None:
        body = entry["body"]
        try:
            self._api.call("POST", "/results", json.dumps(body).encode())
        except Refused as refusal:
            if refusal.status in (404, 409):
                raise
            plain = {key: body[key] for key in ("fencing", "status", "head_sha", "cost_usd")}
            reason = f"{body['reason'][:500]} (the full result was refused: {refusal})"
            self._api.call("POST", "/results", json.dumps({**plain, "reason": reason}).encode())

    def _poll(self, hear: "Callable[[dict[str, Any]], None]") -> None:
        while True:
            asked = time.monotonic()
            answer = self._api.call("GET", f"/messages/next?wait={POLL_SECONDS}")
            for message in answer["messages"]:
                hear(message)
            if not answer["messages"] and time.monotonic() - asked < 1:
                time.sleep(0.5)  # the server does not wait: do not run hot
