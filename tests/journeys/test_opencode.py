"""The real OpenCode in the `local` sandbox, against a scripted model on the host's loopback."""

from collections.abc import Iterator

import pytest

from tests.support.model_server import ModelServer
from tests.support.platform import Platform
from tests.support.real_agents import Job, RealAgent, a_job, crew, program

SETTINGS = """
[agents.opencode]
program = ["PROGRAM", "acp", "--pure"]
model = "scripted"

[agents.careful-opencode]
like = "opencode"
program = ["PROGRAM", "acp", "--pure"]
model = "scripted"
deny_tools = ["edit"]
"""


@pytest.fixture(scope="module")
def house() -> Iterator[tuple[Platform, ModelServer]]:
    with crew(SETTINGS.replace("PROGRAM", program("opencode"))) as running:
        yield running


@pytest.fixture
def job(house: tuple[Platform, ModelServer]) -> Iterator[Job]:
    with a_job(*house, "opencode") as made:
        yield made


class TestOpenCode(RealAgent):
    mark = b"--pure"
    denied = "write"
    error = "scripted error"
