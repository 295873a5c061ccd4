"""Agents that are asked something: whether a criterion holds, what a task is called. Their answer is a file, and nothing of it reaches the origin."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.platform import Platform, folder, git, platform, sample_repository, until

WORK = [{"write": {"path": "done.txt", "content": "yes\n"}}]


def answering(text: str) -> str:
    """The script of an agent that answers whatever it is asked with the same words."""
    return json.dumps([{"write": {"path": "SHOPFLOOR-ANSWER.txt", "content": text}}])


@pytest.fixture(scope="module")
def house() -> Iterator[Platform]:
    with platform(scheduling={"retry_seconds": 0.2}, board={"sweep_seconds": 1}) as running:
        yield running


@pytest.fixture
def place() -> Iterator[Path]:
    with folder() as made:
        yield made


def project_of(house: Platform, place: Path, answer: str) -> tuple[str, Path]:
    origin = sample_repository(place, {"README.md": "# x\n", ".shopfloor/script.json": answering(answer)})
    body = {"name": f"p-{place.name}", "repository_url": str(origin), "agent": "script", "autonomy": True}
    return str(house.post("/projects", body, expect=201)["project_id"]), origin


def reviewed(house: Platform, project: str) -> dict[str, Any]:
    """A ticket whose one criterion an agent judges, once it is done or waits for a person."""
    body = {
        "project": project,
        "title": "Say yes",
        "criteria": [{"text": "it reads well", "check": {"kind": "review", "by": "agent"}}],
        "tasks": [{"title": "Say it", "agent_options": {"script": WORK}}],
    }
    ticket = house.post("/tickets", body, expect=201)["ticket_id"]

    def look() -> dict[str, Any] | None:
        shown: dict[str, Any] = house.get(f"/tickets/{ticket}")
        return shown if shown["status"] == "done" or shown["is_blocked"] else None

    return until(look, what=f"{ticket} to settle")


def test_what_a_reviewer_passes_is_proven_by_its_order(house: Platform, place: Path) -> None:
    project, origin = project_of(house, place, '{"verdict": "passed", "reason": "short and clear"}')
    shown = reviewed(house, project)
    assert shown["status"] == "done"
    (standing,) = house.get(f"/evidence/{shown['ticket_id']}", commit=shown["head_commit"])["standings"]
    assert standing["evidence"]["said_by"].startswith("agent:wo-")
    assert standing["evidence"]["reason"] == "short and clear"
    branches = git("branch", "--format=%(refname:short)", cwd=origin).splitlines()
    files = {name for branch in branches for name in git("ls-tree", "--name-only", branch, cwd=origin).splitlines()}
    assert "SHOPFLOOR-ANSWER.txt" not in files


@pytest.mark.parametrize("answer", ['{"verdict": "failed", "reason": "too short"}', "looks good to me!", "[]"])
def test_anything_but_a_clear_yes_is_no_proof(house: Platform, place: Path, answer: str) -> None:
    project, _ = project_of(house, place, answer)
    assert reviewed(house, project)["status"] != "done"


def test_an_agent_names_a_task(house: Platform, place: Path) -> None:
    """TSK-11"""
    project, _ = project_of(house, place, "Say yes in a file\n")
    house.client.patch(f"/api/v1/projects/{project}", json={"autonomy": False})
    task = house.post("/tasks", {"project": project, "description": "write done.txt, please"}, expect=201)["task_id"]
    asked = house.post(f"/tasks/{task}/generate-title", {"agent": "script"})
    assert asked["by"] == "agent"
    again = house.post(f"/tasks/{task}/generate-title", {"agent": "script"})
    assert again["work_order_id"] == asked["work_order_id"]
    until(lambda: house.get(f"/tasks/{task}")["title"] == "Say yes in a file", what="the title")
