"""From a task made by API to a delivered branch, on the real platform (ORC-02, ORC-04, RES-01)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.platform import Platform, folder, git, platform, sample_repository, until

WRITE = [{"say": "writing"}, {"write": {"path": "done.txt", "content": "yes\n"}}]
WAIT = [{"say": "waiting"}, {"wait_for_message": {"timeout": 600}}]
ENDS = {"completed", "failed", "cancelled"}


@pytest.fixture(scope="module")
def house() -> Iterator[Platform]:
    with platform(scheduling={"retry_seconds": 0.2}) as running:
        yield running


@pytest.fixture
def origin() -> Iterator[Path]:
    with folder() as place:
        yield sample_repository(place)


@pytest.fixture
def project(house: Platform, origin: Path) -> str:
    return make_project(house, origin, autonomy=True)


def make_project(house: Platform, origin: Path, **fields: Any) -> str:
    body = {"name": f"p-{origin.parent.name}", "repository_url": str(origin), "agent": "script", **fields}
    made: str = house.post("/projects", body, expect=201)["project_id"]
    return made


def make(house: Platform, project: str, script: Any = WRITE, **fields: Any) -> str:
    body = {"project": project, "description": "Do it.", "agent_options": {"script": script}, **fields}
    made: str = house.post("/tasks", body, expect=201)["task_id"]
    return made


def show(house: Platform, task_id: str) -> dict[str, Any]:
    task: dict[str, Any] = house.get(f"/tasks/{task_id}")
    return task


def reached(house: Platform, task_id: str, *statuses: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        task = show(house, task_id)
        return task if task["status"] in statuses else None

    try:
        return until(look, what=f"{task_id} to become {statuses}")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{show(house, task_id)}\n{house.log.read_text()[-6000:]}") from None


def told(house: Platform, task_id: str) -> list[str]:
    """What the log tells of a task's statuses, in order."""
    page = house.get("/events", entity_types="task", entity_ids=task_id, limit=100)
    return [e["payload"]["after"] for e in page["events"] if e["event_type"] == "task.status_changed"]


def spoken(house: Platform, task_id: str) -> dict[str, Any]:
    """Wait until the task's agent has begun to work."""
    order = reached(house, task_id, "running")["work_order_id"]
    until(lambda: any(e["event"] == "agent.message" for e in house.events(order)), what="the agent to speak")
    return show(house, task_id)


def test_a_pending_task_made_by_api_is_done_without_anybody(house: Platform, project: str, origin: Path) -> None:
    """ORC-02, ORC-04: picked up, sandbox, result, completed, told."""
    task = reached(house, make(house, project), *ENDS)
    order = house.show(task["work_order_id"])
    assert (task["status"], order["status"]) == ("completed", "completed"), task["reason"]
    assert git("show", f"{order['git_branch_name']}:done.txt", cwd=origin) == "yes"
    assert task["sandbox_id"] == order["sandbox_identifier"]
    assert told(house, task["task_id"]) == ["running", "completed"]
