"""What calls cost, asked for by task, ticket and spec, on the real platform."""

from pathlib import Path

import pytest

from tests.gateway.test_usage_limit import SCRIPT
from tests.gateway.upstream import Upstream, whole
from tests.support.platform import Platform, until


@pytest.fixture
def project(house: Platform, origin: Path) -> str:
    body = {"name": f"p-{origin.parent.name}", "repository_url": str(origin), "autonomy": True, "agent": "script"}
    made: str = house.post("/projects", body, expect=201)["project_id"]
    return made


def test_costs_are_told_by_task_ticket_and_spec(house: Platform, upstream: Upstream, project: str) -> None:
    """Results, 2: cost per attempt, order, task, spec, project."""
    upstream.answer = lambda seen: whole(seen.path)
    work = {"title": "Ask", "phase": "building", "agent": "caller-anthropic", "agent_options": {"script": SCRIPT}}
    asked = {"project": project, "title": "Ask the model", "spec_id": "spec-7", "tasks": [work, work]}
    asked["criteria"] = [{"text": "It was asked", "check": {"kind": "file", "path": "answer.txt", "exists": True}}]
    ticket = house.post("/tickets", asked, expect=201)["ticket_id"]

    def rows(by: str) -> dict[str, int] | None:
        found = house.get("/costs", by=by, ticket=ticket)["spending"]
        told = {one["key"]: one["calls"] for one in found if one["cost_usd"] > 0}
        return told if sum(told.values()) == 2 else None

    by_ticket = until(lambda: rows("ticket"), what="both calls to be counted")
    assert (by_ticket, rows("spec"), rows("project")) == ({ticket: 2}, {"spec-7": 2}, {project: 2})
    tasks = [one["task_id"] for one in house.get("/tasks", ticket=ticket, phase_id="building")["tasks"]]
    assert rows("task") == dict.fromkeys(tasks, 1)
