"""PostgreSQL, two hosts that dispatch from one queue while one of them is killed (W08, W09)."""

import signal
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from os import kill

import psycopg
import pytest

from tests.support import postgres
from tests.support.platform import Platform, folder, sample_repository, until

SCRIPT = [{"say": "working"}, {"delay": 1}, {"write": {"path": "done.txt", "content": "yes\n"}}]
TASKS, CAP = 9, 3


@pytest.fixture
def hosts(postgres_folder: str) -> Iterator[tuple[Platform, Platform]]:
    url = postgres.new_database(postgres_folder, f"t{uuid.uuid4().hex}")
    with folder() as first, folder() as second:
        houses = tuple(
            Platform(place, database_url=url, engine_lease_seconds=2, max_sandboxes=2, heartbeat_seconds=1)
            for place in (first, second)
        )
        try:
            for house in houses:
                house.start()
            yield houses[0], houses[1]
        finally:
            for house in houses:
                house.close()


@pytest.mark.slow
def test_two_hosts_run_each_task_once_under_one_cap_though_one_dies(hosts: tuple[Platform, Platform]) -> None:
    dying, staying = hosts
    origin = str(sample_repository(staying.folder))
    body = {"name": "both", "repository_url": origin, "agent": "script", "max_running_tasks": CAP, "autonomy": True}
    project = staying.post("/projects", body, expect=201)["project_id"]
    wish = {"project": project, "title": "Do it", "agent_options": {"script": SCRIPT}}
    made = [staying.post("/tasks", wish, expect=201)["task_id"] for _ in range(TASKS)]
    until(lambda: staying.get("/tasks", status="completed")["total_count"] >= 2, what="some to be done")
    victims = dying.keepers() + dying.inside(b"")
    dying.kill()
    for pid in victims:
        with suppress(ProcessLookupError):
            kill(pid, signal.SIGKILL)
    until(lambda: staying.get("/tasks/cancellable")["total_count"] == 0, limit=240, what="the queue to drain")
    assert Counter(task["status"] for task in staying.get("/tasks")["tasks"]) == {"completed": TASKS}
    with psycopg.connect(str(staying.settings["database_url"])) as connection:
        orders = connection.execute("SELECT task_id, status FROM work_orders").fetchall()
        hosted = connection.execute("SELECT DISTINCT host_id FROM sandboxes").fetchall()
    assert sorted(orders) == sorted((task_id, "completed") for task_id in made)
    assert len(hosted) == 2
    assert most_at_once(staying) <= CAP


def most_at_once(house: Platform) -> int:
    """How many tasks ran at once at most, as the log tells it."""
    running, most = set(), 0
    for event in house.get("/events", event_types="task.status_changed", after="0", limit=500)["events"]:
        if event["payload"]["after"] == "running":
            running.add(event["entity_id"])
        else:
            running.discard(event["entity_id"])
        most = max(most, len(running))
    return most
