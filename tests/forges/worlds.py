"""One world for each forge: a house, a repository there, and the fake's own view of what happened."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shopfloor.forges.connections import Connections
from shopfloor.forges.port import Draft
from shopfloor.forges.service import Repositories
from shopfloor.kit.config import ForgeSettings
from tests.forges.conftest import PROTOCOLS
from tests.forges.support import Sandbox, bare, repository
from tests.support.github_server import GitHubServer
from tests.support.hub_state import Repo, Token

TOKEN, READER = "ghp_test0000000000000001", "ghp_test0000000000000002"
VARIABLES = {"FORGE_WRITER": TOKEN, "FORGE_READER": READER}


@dataclass
class World:
    """Where a test happens."""

    kind: str
    house: Repositories
    url: str
    origin: Path
    name: str = ""
    server: GitHubServer | None = None
    api_url: str = ""

    @property
    def repo(self) -> Repo:
        """The fake's side of the repository."""
        assert self.server
        return self.server.repos[self.name]

    def another(self, root: Path, **settings: object) -> Repositories:
        """A second house for the same repository, connected in another way."""
        return house(root, self.server, self.kind, self.api_url, settings) if self.server else self.house


def house(
    root: Path, server: GitHubServer, kind: str, api_url: str, settings: Mapping[str, object] | None = None
) -> Repositories:
    """A house connected to a server."""
    chosen = {"kind": kind, "api_url": api_url, "token_env": "FORGE_WRITER", **(settings or {})}
    connected = Connections({f"http://{server.host}": ForgeSettings.model_validate(chosen)})
    return Repositories(root, protocols=PROTOCOLS, connections=connected)


def hosted(place: Path, server: GitHubServer, api_url: str, name: str) -> World:
    """A world on a server with an API."""
    origin = bare(repository(place / "work"), place / "origin.git")
    server.add(name, origin)
    for token, login, right in ((TOKEN, "shopfloor-bot", "write"), (READER, "reader", "read")):
        server.tokens.setdefault(token, Token(login)).rights[name] = right
        server.tokens[token].expired = False
    made = house(place / "repositories", server, server.kind, api_url)
    return World(server.kind, made, f"http://{server.host}/{name}", origin, name, server, api_url)


async def delivered(world: World, place: Path, order: str = "wo-1", files: dict[str, str] | None = None) -> Draft:
    """A sandbox's commit, pushed; not offered yet."""
    base = await world.house.resolve(world.url)
    box = Sandbox(await world.house.golden(world.url, base.commit), place / f"box-{order}", order)
    return await pushed(world, box, files or {f"{order}.txt": "new\n"})


async def pushed(world: World, box: Sandbox, files: dict[str, str]) -> Draft:
    """The sandbox's next commit, pushed."""
    head = box.commit("work", files)
    await world.house.import_bundle(world.url, box.bundle(), **box.request())
    await world.house.push(world.url, head, box.branch)
    return Draft(
        work_order_id=box.order_id,
        repository_url=world.url,
        base_branch="main",
        base_commit=box.base,
        head_branch=box.branch,
        head_commit=head,
        title="Do it",
        body="As asked.",
    )


async def allow(commit: str) -> None:
    """A plan nobody objects to."""
    del commit
