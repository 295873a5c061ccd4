"""A retry with another agent or model: the new one gets what the old one did."""

import json
from collections.abc import Iterator

import pytest

from tests.journeys.test_codex import SETTINGS
from tests.support.model_server import ModelServer
from tests.support.platform import Platform
from tests.support.real_agents import Job, a_job, crew, program

OTHER = """
[agents.other-codex]
like = "codex"
program = ["PROGRAM"]
model = "scripted"
"""


@pytest.fixture(scope="module")
def house() -> Iterator[tuple[Platform, ModelServer]]:
    with crew((SETTINGS + OTHER).replace("PROGRAM", program("codex"))) as running:
        yield running


@pytest.fixture
def job(house: tuple[Platform, ModelServer]) -> Iterator[Job]:
    with a_job(*house, "codex") as made:
        yield made


def test_another_agent_goes_on_where_the_first_one_stopped(job: Job) -> None:
    first = {"text": "I prefer heliotrope.", "bash": "echo half > half.txt"}
    job.start(first, {"error": 400})
    job.end("failed")
    job.model.script = [{"bash": "cat half.txt > whole.txt"}, {"text": "Done."}]
    job.model.requests.clear()
    job.house.post(f"/agent-work-orders/{job.order_id}/retry", {"agent": "other-codex", "prompt": "Go on."})
    job.end()
    told = json.dumps(job.model.requests[0]["body"]["input"])
    assert "Another agent (codex) worked on this before you" in told
    assert "I prefer heliotrope." in told
    assert "Go on." in told
    assert job.file("whole.txt") == "half"
