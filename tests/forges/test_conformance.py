"""The conformance suite over every forge: plain git, GitHub and Forgejo, the last two held to the forges' own documents by Prism."""

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shopfloor.forges.service import Repositories
from tests.forges.conformance import *  # noqa: F403 - its tests run here
from tests.forges.conftest import PROTOCOLS
from tests.forges.support import bare, repository
from tests.forges.worlds import VARIABLES, World, hosted
from tests.support import prism
from tests.support.forgejo_server import FORGEJO, ForgejoServer
from tests.support.github_server import GitHubServer
from tests.support.hub_state import GITHUB

NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def github(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[GitHubServer, str]]:
    """The fake GitHub, with GitHub's own document between it and us."""
    folder = tmp_path_factory.mktemp("github")
    server = GitHubServer(folder)
    server.start()
    with prism.between(GITHUB, f"http://{server.host}", folder) as address:
        yield server, address
    server.close()


@pytest.fixture(scope="session")
def forgejo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[GitHubServer, str]]:
    """The fake Forgejo, behind Forgejo's own document."""
    folder = tmp_path_factory.mktemp("forgejo")
    server = ForgejoServer(folder)
    server.start()
    with prism.between(FORGEJO, f"http://{server.host}", folder) as address:
        yield server, address
    server.close()


@pytest.fixture(params=["plain_git", "github", "forgejo"])
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    if request.param == "plain_git":
        origin = bare(repository(tmp_path / "work"), tmp_path / "origin.git")
        house = Repositories(tmp_path / "repositories", protocols=PROTOCOLS)
        return World("plain_git", house, str(origin), origin)
    server, address = request.getfixturevalue(request.param)
    return hosted(tmp_path, server, address, f"acme/demo{next(NUMBERS)}")


async def test_what_polling_asks_and_hears_is_in_githubs_document(
    github: tuple[GitHubServer, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    server, address = github
    world = hosted(tmp_path, server, address, f"acme/demo{next(NUMBERS)}")
    number = server.add_issue(world.repo)
    server.put_label(world.repo, number, "shopfloor", by="maintainer")
    server.say(world.repo, number, "maintainer", "please")
    forge = world.house.adapter(world.url)
    assert (await forge.labeled(world.url, number, "shopfloor"))[0] == "maintainer"
    assert [one.body for one in await forge.comments_since(world.url, datetime(2019, 1, 1, tzinfo=UTC))] == ["please"]
