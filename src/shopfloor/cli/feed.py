"""A work order's events: all that is known, then live, each once and in order, across lost connections and new sandboxes."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx

from shopfloor.cli.client import API, Client
from shopfloor.cli.exits import OUTCOMES, ServerUnreachable
from shopfloor.cli.render import note

FINISHED = "work_order.finished"
PAGE = 300
SILENCE_SECONDS = 50.0
"""The server says something every 20 s; a connection silent for longer is dead."""
PATIENCE_SECONDS = 120.0
"""For how long a lost server is looked for."""

Event = dict[str, Any]


class Feed:
    """The events of one work order, from a position on."""

    def __init__(self, client: Client, order_id: str, after: str = "0") -> None:
        self.client, self.order_id, self.position = client, order_id, after
        self._entities = ""

    def history(self) -> Iterator[Event]:
        """What is known now."""
        self._look()
        more = True
        while more:
            page = self.client.get(
                f"{API}/events", entity_ids=self._entities, after=self.position, limit=PAGE, order="asc"
            )
            more = page["has_more"]
            for event in page["events"]:
                yield self._seen(event)
                if self._announces_sandbox(event) and self._look():
                    more = True
                    break

    def follow(self) -> Iterator[Event]:
        """What is known, then what happens, until the order is finished."""
        lost_since, pause = None, 0.2
        while True:
            try:
                finished = self.client.order(self.order_id)["status"] in OUTCOMES
                ended = False
                for event in self.history():
                    ended |= event["event_type"] == FINISHED
                    yield event
                if finished:
                    return
                lost_since, pause = None, 0.2
                if not ended:  # else it may have finished after we asked: ask again
                    yield from self._live()
            except ServerUnreachable as problem:
                if lost_since is None:
                    lost_since = time.monotonic()
                    note("connection lost; trying again")
                if time.monotonic() - lost_since > PATIENCE_SECONDS:
                    raise ServerUnreachable(problem.message, hint=problem.hint) from problem
                time.sleep(pause)
                pause = min(pause * 2, 5)

    def _live(self) -> Iterator[Event]:
        """Events as they happen, until the order ends, gets a new sandbox, or the connection does."""
        query = {"entity_ids": self._entities, "after": self.position}
        timeout = httpx.Timeout(30, read=SILENCE_SECONDS)
        try:
            with self.client.http.stream("GET", f"{API}/events/stream", params=query, timeout=timeout) as answer:
                if not answer.is_success:
                    answer.read()
                    raise self.client.refusal(answer)
                for line in answer.iter_lines():
                    if not line.startswith("data: "):
                        continue
                    event = json.loads(line.removeprefix("data: "))
                    if event.get("type") == "gap":
                        return
                    yield self._seen(event)
                    if event["event_type"] == FINISHED:
                        return
                    if self._announces_sandbox(event) and self._look():
                        return
        except httpx.HTTPError as error:
            raise self.client.unreachable(error) from error

    def _seen(self, event: Event) -> Event:
        self.position = event["position"]
        return event

    def _announces_sandbox(self, event: Event) -> bool:
        started: bool = (
            event["event_type"] == "work_order.status_changed" and event["payload"].get("after") == "running"
        )
        return started

    def _look(self) -> bool:
        """Find the order's sandboxes; answers whether there is a new one."""
        found = self.client.get(f"{API}/sandboxes", work_order_id=self.order_id, limit=150)["sandboxes"]
        entities = ",".join(sorted([self.order_id, *(sandbox["sandbox_id"] for sandbox in found)]))
        new, self._entities = entities != self._entities, entities
        return new
