"""Origins over HTTP: tokens, their end, servers that die, redirections that want the token."""

from pathlib import Path

import pytest

from shopfloor.forges.mirrors import mirror
from shopfloor.forges.mirrors.mirror import AccessDenied, RepositoryNotFound, RepositoryNotReached
from shopfloor.forges.mirrors.pushing import PushFailed, WriteDenied, refusal
from shopfloor.forges.rules import Address
from shopfloor.forges.service import Repositories
from shopfloor.kit import git as git_kit
from shopfloor.kit.git import Credential, GitFailed
from tests.forges.conftest import PROTOCOLS
from tests.forges.support import Sandbox
from tests.support import git_http
from tests.support.platform import git


@pytest.fixture
def keyed(place: Path, server: git_http.GitServer) -> Repositories:
    """A house that holds a token for this server, and for no other."""

    async def credentials(address: Address) -> Credential | None:
        mine = address.origin == f"http://{server.host}/"
        return Credential(address.origin, "token-1") if mine else None

    server.rights = {"token-1": "rw"}
    return Repositories(place / "repositories", protocols=PROTOCOLS, credentials=credentials)


async def worked(house: Repositories, url: str, place: Path) -> tuple[Sandbox, str]:
    base = await house.resolve(url)
    box = Sandbox(await house.golden(url, base.commit), place / "sandbox")
    head = box.commit()
    await house.import_bundle(url, box.bundle(), **box.request())
    return box, head


async def test_a_repository_over_http_is_cloned_and_pushed_to(
    keyed: Repositories, server: git_http.GitServer, place: Path, origin: Path
) -> None:
    box, head = await worked(keyed, server.url("origin.git"), place)
    await keyed.push(server.url("origin.git"), head, box.branch)
    assert git("rev-parse", box.branch, cwd=origin) == head


async def test_without_a_token_access_is_denied(house: Repositories, server: git_http.GitServer) -> None:
    server.rights = {"token-1": "rw"}
    with pytest.raises(AccessDenied):
        await house.resolve(server.url("origin.git"))


async def test_an_expired_token_is_told_apart_from_a_dead_server(
    keyed: Repositories, server: git_http.GitServer
) -> None:
    server.rights["token-1"] = "expired"
    with pytest.raises(AccessDenied):
        await keyed.resolve(server.url("origin.git"))


async def test_a_missing_repository_is_not_found(keyed: Repositories, server: git_http.GitServer) -> None:
    with pytest.raises(RepositoryNotFound):
        await keyed.resolve(server.url("nothing.git"))


async def test_a_server_that_is_gone_is_not_reached(keyed: Repositories, server: git_http.GitServer) -> None:
    server.close()
    with pytest.raises(RepositoryNotReached):
        await keyed.resolve(server.url("origin.git"))


async def test_a_read_only_token_may_not_push(keyed: Repositories, server: git_http.GitServer, place: Path) -> None:
    box, head = await worked(keyed, server.url("origin.git"), place)
    server.rights["token-1"] = "ro"
    with pytest.raises(WriteDenied):
        await keyed.push(server.url("origin.git"), head, box.branch)


@pytest.mark.parametrize(("right", "can"), [("rw", True), ("ro", False)])
async def test_write_access_is_tried_without_writing(
    keyed: Repositories, server: git_http.GitServer, origin: Path, right: str, can: bool
) -> None:
    server.rights["token-1"] = right
    before = git("for-each-ref", cwd=origin)
    assert await keyed.can_write(server.url("origin.git")) is can
    assert git("for-each-ref", cwd=origin) == before


async def test_a_token_that_expires_before_the_push_loses_no_work(
    keyed: Repositories, server: git_http.GitServer, place: Path, origin: Path
) -> None:
    box, head = await worked(keyed, server.url("origin.git"), place)
    server.rights["token-1"] = "expired"
    with pytest.raises(AccessDenied):
        await keyed.push(server.url("origin.git"), head, box.branch)
    server.rights["token-1"] = "rw"
    await keyed.push(server.url("origin.git"), head, box.branch)
    assert git("rev-parse", box.branch, cwd=origin) == head


async def test_a_server_that_dies_before_the_push_took_effect_is_retried(
    keyed: Repositories, server: git_http.GitServer, place: Path, origin: Path
) -> None:
    box, head = await worked(keyed, server.url("origin.git"), place)
    server.dies = "before"
    with pytest.raises(PushFailed):
        await keyed.push(server.url("origin.git"), head, box.branch)
    server.dies = ""
    await keyed.push(server.url("origin.git"), head, box.branch)
    assert git("rev-parse", box.branch, cwd=origin) == head


async def test_a_push_that_took_effect_counts_although_the_answer_was_lost(
    keyed: Repositories, server: git_http.GitServer, place: Path
) -> None:
    box, head = await worked(keyed, server.url("origin.git"), place)
    server.dies = "after"
    assert (await keyed.push(server.url("origin.git"), head, box.branch)).commit == head


async def test_a_redirection_gets_neither_obedience_nor_the_token(
    keyed: Repositories, server: git_http.GitServer, place: Path
) -> None:
    with git_http.serving(place) as evil:
        server.redirect = f"http://{evil.host}"
        with pytest.raises(RepositoryNotReached) as caught:
            await keyed.resolve(server.url("origin.git"))
        assert (evil.requests, evil.tokens_seen) == ([], [])
    assert "new URL" in caught.value.hint


async def test_a_token_is_shown_to_its_own_host_only(
    keyed: Repositories, server: git_http.GitServer, place: Path
) -> None:
    with git_http.serving(place) as other:
        other.rights = {"x": "rw"}
        with pytest.raises(AccessDenied):
            await keyed.resolve(other.url("origin.git"))
        assert other.tokens_seen == []


async def test_a_submodule_elsewhere_is_never_asked(
    keyed: Repositories, server: git_http.GitServer, work: Path, place: Path
) -> None:
    with git_http.serving(place) as evil:
        modules = f'[submodule "s"]\n\tpath = s\n\turl = {evil.url("s.git")}\n'
        (work / ".gitmodules").write_text(modules)
        git("update-index", "--add", "--cacheinfo", f"160000,{git('rev-parse', 'HEAD', cwd=work)},s", cwd=work)
        git("add", ".gitmodules", cwd=work)
        git("commit", "-qm", "submodule", cwd=work)
        git("push", "-q", str(place / "origin.git"), "main", cwd=work)
        url = server.url("origin.git")
        await keyed.golden(url, (await keyed.resolve(url)).commit)
        assert evil.requests == []


async def test_the_token_is_written_to_no_file(keyed: Repositories, server: git_http.GitServer, place: Path) -> None:
    box, head = await worked(keyed, server.url("origin.git"), place)
    await keyed.push(server.url("origin.git"), head, box.branch)
    written = [p for p in (place / "repositories").rglob("*") if p.is_file()]
    needles = (b"token-1", b"eC1hY2Nlc3MtdG9rZW46dG9rZW4tMQ==")
    assert not [p for p in written if any(needle in p.read_bytes() for needle in needles)]


async def test_the_servers_reason_for_refusing_a_branch_is_told(
    keyed: Repositories, server: git_http.GitServer, origin: Path, place: Path
) -> None:
    """Git tells it apart from what the server says otherwise."""
    box, head = await worked(keyed, server.url("origin.git"), place)
    git("config", "receive.hideRefs", f"refs/heads/{box.branch}", cwd=origin)
    with pytest.raises(PushFailed, match="deny updating a hidden ref"):
        await keyed.push(server.url("origin.git"), head, box.branch)


REFUSALS = {
    "workflow": " ! [remote rejected] f -> f (refusing to allow a Personal Access Token to create or update workflow "
    "`.github/workflows/ci.yml` without `workflow` scope)",
    "archived": "remote: This repository was archived so it is read-only.\n"
    "fatal: unable to access 'https://github.com/a/b/': The requested URL returned error: 403",
}


@pytest.mark.parametrize(("word", "said"), REFUSALS.items(), ids=REFUSALS)
def test_a_refused_push_says_what_to_do(word: str, said: str) -> None:
    problem = refusal(GitFailed("git push: no", stderr=said), "f")
    assert isinstance(problem, WriteDenied)
    assert word in problem.hint


@pytest.mark.parametrize("port", [40103, 40303, 14041])
def test_a_number_in_an_address_is_no_status(port: int) -> None:
    said = f"fatal: unable to access 'http://127.0.0.1:{port}/x/': Failed to connect"
    assert isinstance(mirror.unreachable(git_kit.GitFailed("git fetch: x", stderr=said)), RepositoryNotReached)
