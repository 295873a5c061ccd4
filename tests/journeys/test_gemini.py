"""The real Gemini in the `local` sandbox, against a scripted model on the host's loopback."""

from collections.abc import Iterator

import pytest

from tests.support.model_server import ModelServer
from tests.support.platform import Platform
from tests.support.real_agents import Job, RealAgent, a_job, crew, program

pytestmark = pytest.mark.extra_agents
SETTINGS = """
[agents.gemini]
program = ["PROGRAM", "--acp"]
model = "gemini-2.5-pro"

[agents.careful-gemini]
like = "gemini"
program = ["PROGRAM", "--acp"]
model = "gemini-2.5-pro"
deny_tools = ["edit"]
"""


@pytest.fixture(scope="module")
def house() -> Iterator[tuple[Platform, ModelServer]]:
    with crew(SETTINGS.replace("PROGRAM", program("gemini"))) as running:
        yield running


@pytest.fixture
def job(house: tuple[Platform, ModelServer]) -> Iterator[Job]:
    with a_job(*house, "gemini") as made:
        yield made


class TestGemini(RealAgent):
    mark = b"gemini"
    denied = "write_file"
    remembers_a_cut_turn = keeps_a_killed_turn = False
