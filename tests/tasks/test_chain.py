"""From a task made by API to a delivered branch, on the real platform (ORC-02, ORC-04, RES-01)."""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
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


def test_a_chain_of_tasks_runs_in_its_order(house: Platform, project: str) -> None:
    first = make(house, project)
    second = make(house, project, depends_on=[first])
    last = make(house, project, depends_on=[first, second])
    tasks = [reached(house, task_id, *ENDS) for task_id in (first, second, last)]
    assert [task["status"] for task in tasks] == ["completed"] * 3
    assert all(one["ended_at"] <= two["started_at"] for one, two in pairwise(tasks))


def test_a_failing_task_is_tried_again_with_its_reason_and_then_fails(house: Platform, project: str) -> None:
    """W12; the reason reaches the next try and the task."""
    task_id = make(
        house, project, [{"write": {"path": "half.txt", "content": "h\n"}}, {"fail": "no way"}], max_retries=1
    )
    task = reached(house, task_id, "failed")
    order = house.show(task["work_order_id"])
    assert (task["retries"], order["attempts"], "no way" in task["reason"]) == (1, 2, True)
    assert told(house, task_id) == ["running", "pending", "running", "failed"]


def test_a_try_that_succeeds_after_a_failure_keeps_what_was_there(house: Platform, project: str, origin: Path) -> None:
    script = [{"write": {"path": "done.txt", "content": "yes\n"}}, {"fail": "not yet", "if_attempt": 1}]
    task = reached(house, make(house, project, script), *ENDS)
    assert (task["status"], task["retries"]) == ("completed", 1), task["reason"]


def test_cancelling_reaches_the_agent(house: Platform, project: str) -> None:
    """TSK-08"""
    task = spoken(house, make(house, project, WAIT))
    house.post(f"/tasks/{task['task_id']}/cancel", {"reason": "not wanted any more"})
    ended = reached(house, task["task_id"], *ENDS)
    assert (ended["status"], ended["reason"]) == ("cancelled", "not wanted any more")
    assert house.get(f"/sandboxes/{task['sandbox_id']}")["state"] == "TERMINATED"


def test_a_task_whose_time_is_up_fails_without_anybody_asking(house: Platform, project: str) -> None:
    """W12, TSK-15: no call is needed."""
    task = spoken(house, make(house, project, WAIT))
    house.post(f"/tasks/{task['task_id']}/set-timeout", {"timeout_seconds": 1})
    ended = reached(house, task["task_id"], *ENDS)
    assert (ended["status"], "longer than" in ended["reason"]) == ("failed", True)


def test_the_sandbox_of_a_task_says_so_and_reports_by_its_own_token(house: Platform, project: str) -> None:
    """RES-01, EVT-10, LIF-05: through the door that is meant for sandboxes and by the token in its job."""
    task = spoken(house, make(house, project, WAIT))
    job = json.loads((house.data / "inboxes" / task["sandbox_id"] / "job.json").read_text())
    headers = {"Authorization": f"Bearer {job['api']['token']}"}
    body = {"status": "completed", "summary": "done", "files_changed": []}
    path = f"http://door/api/v1/sandbox/task/{task['task_id']}/results"
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(house.data / "door.sock"))) as door:
        answer = door.post(path, json=body, headers=headers)
        assert (answer.status_code, answer.json()["result"]) == (200, body), answer.text
        assert (
            door.post(path.replace(task["task_id"], make(house, project)), json=body, headers=headers).status_code
            == 403
        )
        assert door.post(path, json=body).status_code == 401
        assert door.get(f"http://door/api/v1/tasks/{task['task_id']}", headers=headers).status_code == 403
    assert house.get(f"/sandboxes/{task['sandbox_id']}/task")["task_id"] == task["task_id"]
    house.post(f"/tasks/{task['task_id']}/cancel")
    reached(house, task["task_id"], *ENDS)


def test_a_killed_server_neither_loses_nor_repeats_a_task(origin: Path) -> None:
    """W08: after kill -9 the task is completed by the one order it has."""
    with platform(heartbeat_seconds=1) as fresh:
        project = make_project(fresh, origin, autonomy=True)
        slow = [{"say": "working"}, {"delay": 3}, *WRITE]
        task_id = make(fresh, project, slow)
        after = make(fresh, project, depends_on=[task_id])
        before = spoken(fresh, task_id)
        fresh.kill()
        fresh.start()
        ended = reached(fresh, task_id, *ENDS)
        assert (ended["status"], ended["work_order_id"]) == ("completed", before["work_order_id"])
        assert reached(fresh, after, *ENDS)["status"] == "completed"
        assert told(fresh, task_id) == ["running", "completed"]


def test_a_project_without_autonomy_starts_nothing_by_itself(house: Platform, origin: Path) -> None:
    project = make_project(house, origin)
    waits, forced = make(house, project), make(house, project, force=True)
    assert reached(house, forced, *ENDS)["status"] == "completed"
    assert show(house, waits)["status"] == "pending"
    answer = house.client.patch(f"/api/v1/projects/{project}", json={"autonomy": True})
    assert answer.status_code == 200
    assert reached(house, waits, *ENDS)["status"] == "completed"
