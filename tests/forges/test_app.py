"""A GitHub App: tokens made for each push, for one repository, with the least rights; nothing of it where an agent could see it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from shopfloor.forges import connections
from shopfloor.forges.connections import (
    AppKeyUnreadable,
    AppNotInstalled,
    AppRightMissing,
    ForgeTokenMissing,
    GhUnavailable,
)
from shopfloor.forges.service import Repositories
from shopfloor.kit.config import BadConfiguration, load
from tests.forges.worlds import VARIABLES, World, delivered, hosted
from tests.support.github_server import GitHubServer


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def github(tmp_path: Path, key: rsa.RSAPrivateKey) -> Iterator[GitHubServer]:
    folder = tmp_path / "served"
    folder.mkdir()
    server = GitHubServer(folder)
    form = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    server.app_keys["12345"] = key.public_key().public_bytes(*form).decode()
    server.start()
    yield server
    server.close()


@pytest.fixture
def pem(tmp_path: Path, key: rsa.RSAPrivateKey) -> Path:
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    (tmp_path / "app.pem").write_bytes(key.private_bytes(*form))
    return tmp_path / "app.pem"


@pytest.fixture
def world(tmp_path: Path, github: GitHubServer, monkeypatch: pytest.MonkeyPatch) -> World:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    return hosted(tmp_path, github, f"http://{github.host}", "acme/demo")


@pytest.fixture
def app(world: World, tmp_path: Path, pem: Path) -> Repositories:
    return world.another(tmp_path / "app house", token_env="", app_id="12345", app_key_file=pem)


async def test_a_push_gets_a_token_of_its_own_for_one_repository(
    world: World, app: Repositories, github: GitHubServer, tmp_path: Path
) -> None:
    world.house = app
    await delivered(world, tmp_path)
    read, write = github.minted[0], github.minted[-1]
    assert [one["repositories"] for one in github.minted] == [["demo"]] * len(github.minted)
    assert read["permissions"] == {"contents": "read", "metadata": "read"}
    assert "administration" not in write["permissions"]
    assert write["permissions"]["contents"] == "write"


async def test_each_push_is_made_with_a_fresh_token(
    world: World, app: Repositories, github: GitHubServer, tmp_path: Path
) -> None:
    world.house = app
    draft = await delivered(world, tmp_path)
    before = len(github.minted)
    await app.push(world.url, draft.base_commit, "feat-other")
    assert len(github.minted) == before + 1


async def test_reading_makes_no_token_twice(world: World, app: Repositories, github: GitHubServer) -> None:
    await app.resolve(world.url)
    await app.look(world.url)
    assert len(github.minted) == 1


async def test_an_app_offers_a_change_and_comments_under_its_own_name(
    world: World, app: Repositories, github: GitHubServer, tmp_path: Path
) -> None:
    world.house = app
    number = github.add_issue(world.repo)
    await app.adapter(world.url).open_change(await delivered(world, tmp_path))
    first = await app.adapter(world.url).comment(world.url, number, "one", marker="<!-- m -->")
    again = await app.adapter(world.url).comment(world.url, number, "two", marker="<!-- m -->")
    assert (again.comment_id, again.author) == (first.comment_id, "shopfloor-test[bot]")


async def test_an_app_that_is_not_installed_is_told(world: World, app: Repositories, github: GitHubServer) -> None:
    del github.repos["acme/demo"]
    with pytest.raises(AppNotInstalled):
        await app.look(world.url)


async def test_a_right_that_an_app_lacks_is_told_in_githubs_words(
    world: World, app: Repositories, github: GitHubServer
) -> None:
    github.broken["POST"] = [422]
    with pytest.raises(AppRightMissing, match="Server Error"):
        await app.look(world.url)


@pytest.mark.parametrize("content", [None, "no key"], ids=["missing", "not a key"])
async def test_a_bad_key_is_told_without_its_content(world: World, tmp_path: Path, content: str | None) -> None:
    place = tmp_path / "bad.pem"
    if content:
        place.write_text(content)
    house = world.another(tmp_path / "app house", token_env="", app_id="12345", app_key_file=place)
    with pytest.raises(AppKeyUnreadable) as refused:
        await house.look(world.url)
    assert "no key" not in str(refused.value)


async def test_a_missing_variable_is_told(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORGE_WRITER")
    with pytest.raises(ForgeTokenMissing):
        await world.another(tmp_path / "other").look(world.url)


async def test_a_gh_that_waits_for_a_person_is_ended_and_told(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may ask a keyring that nobody unlocks."""
    gh = tmp_path / "bin" / "gh"
    gh.parent.mkdir()
    gh.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 3600\n")
    gh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{gh.parent}:/usr/bin:/bin")
    monkeypatch.setattr(connections, "GH_ANSWER_SECONDS", 0.5)
    house = world.another(tmp_path / "other", token_env="", gh_login=True)
    with pytest.raises(GhUnavailable, match="does not answer"):
        await house.look(world.url)
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


async def test_a_machine_without_gh_is_told(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house = world.another(tmp_path / "other", token_env="", gh_login=True)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GhUnavailable):
        await house.look(world.url)


@pytest.mark.parametrize(
    "wrong",
    [
        'kind = "gitlab"',
        'kind = "github"\ntoken_env = "ghp_this-is-a-secret"',
        'kind = "github"\ntoken_env = "A"\ngh_login = true',
        'kind = "github"\napp_id = "1"',
    ],
)
def test_a_wrong_connection_names_the_setting_and_repeats_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    (tmp_path / "shopfloor.toml").write_text(f'[forges."https://github.com"]\n{wrong}\n')
    monkeypatch.setenv("SHOPFLOOR_CONFIG", str(tmp_path / "shopfloor.toml"))
    with pytest.raises(BadConfiguration) as refused:
        load()
    assert "forges" in str(refused.value)
    assert "this-is-a-secret" not in str(refused.value.document())
