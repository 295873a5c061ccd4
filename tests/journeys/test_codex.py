"""The real Codex in the `local` sandbox, against a scripted model on the host's loopback."""

from collections.abc import Iterator

import pytest

from tests.support.model_server import ModelServer
from tests.support.platform import Platform
from tests.support.real_agents import Job, RealAgent, a_job, crew, program

SETTINGS = """
[agents.codex]
program = ["PROGRAM"]
model = "scripted"

[agents.careful-codex]
like = "codex"
program = ["PROGRAM"]
model = "scripted"
deny_tools = ["shell"]
"""


@pytest.fixture(scope="module")
def house() -> Iterator[tuple[Platform, ModelServer]]:
    with crew(SETTINGS.replace("PROGRAM", program("codex"))) as running:
        yield running


@pytest.fixture
def job(house: tuple[Platform, ModelServer]) -> Iterator[Job]:
    with a_job(*house, "codex") as made:
        yield made


class TestCodex(RealAgent):
    mark = b"app-server"
    denied = "shell"
