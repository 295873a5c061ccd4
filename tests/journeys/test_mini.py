"""The real mini-swe-agent in the `local` sandbox, against a scripted model on the host's loopback."""

from collections.abc import Iterator

import pytest

from tests.support.model_server import ModelServer
from tests.support.platform import Platform
from tests.support.real_agents import Job, RealAgent, a_job, crew, program

pytestmark = pytest.mark.extra_agents
SETTINGS = """
[agents.mini]
program = ["PROGRAM"]
model = "scripted"
"""


@pytest.fixture(scope="module")
def house() -> Iterator[tuple[Platform, ModelServer]]:
    with crew(SETTINGS.replace("PROGRAM", program("mini"))) as running:
        yield running


@pytest.fixture
def job(house: tuple[Platform, ModelServer]) -> Iterator[Job]:
    with a_job(*house, "mini") as made:
        yield made


class TestMini(RealAgent):
    mark = b"--runner"
    permissions = False
    remembers = False
