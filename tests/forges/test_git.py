"""The hardened way to run git."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from shopfloor.kit import git

SLOW = "#!/bin/sh\nsleep 1000 &\necho $! > '{pid}'\necho started >&2\nwait\n"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that runs in git's place."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder / "git"


def install(program: Path, script: str) -> None:
    program.write_text(script)
    program.chmod(0o755)


async def test_a_failure_tells_what_git_said() -> None:
    with pytest.raises(git.GitFailed, match="not a git repository"):
        await git.run("rev-parse", "HEAD", git_dir=Path("/nonexistent"))


async def test_nothing_of_our_environment_reaches_git(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(program, "#!/bin/sh\nenv\n")
    for name in ("SHOPFLOOR_API_KEY", "GITHUB_TOKEN", "GIT_DIR", "GIT_SSH_COMMAND", "HOME", "LD_PRELOAD_X"):
        monkeypatch.setenv(name, "planted")
    assert b"planted" not in await git.run("version")


async def test_the_time_limit_ends_children_too(program: Path, tmp_path: Path) -> None:
    install(program, SLOW.format(pid=tmp_path / "pid"))
    with pytest.raises(git.GitTimedOut):
        await git.run("fetch", timeout=1)
    assert gone(int((tmp_path / "pid").read_text()))


async def test_a_cancelled_caller_leaves_nothing_running(program: Path, tmp_path: Path) -> None:
    install(program, SLOW.format(pid=tmp_path / "pid"))
    os.mkfifo(tmp_path / "pid")
    task = asyncio.create_task(git.run("fetch"))
    pid = await asyncio.to_thread((tmp_path / "pid").read_text)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with asyncio.timeout(30):  # killed it is; the kernel may take a moment to bury it
        while not gone(int(pid)):  # noqa: ASYNC110 - a death in another process sets no event
            await asyncio.sleep(0.01)


def gone(pid: int) -> bool:
    """Whether the process has ended; a zombie nobody collected counts as ended."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (ProcessLookupError, FileNotFoundError):
        return True


async def test_endless_output_is_an_error(program: Path) -> None:
    install(program, "#!/bin/sh\nexec yes\n")
    with pytest.raises(git.GitOutputTooLarge):
        await git.run("log", max_output=100_000, timeout=30)


async def test_endless_output_may_be_cut(program: Path) -> None:
    install(program, "#!/bin/sh\nexec yes\n")
    result = await git.call("log", max_output=1000, truncate=True, timeout=30)
    assert (len(result.stdout), result.truncated) == (1000, True)


async def test_endless_complaints_are_cut(program: Path) -> None:
    install(program, "#!/bin/sh\nhead -c 5000000 /dev/zero | tr '\\0' x >&2\nexit 1\n")
    with pytest.raises(git.GitFailed) as caught:
        await git.run("log")
    assert len(caught.value.stderr) <= git.STDERR_CAP


async def test_a_file_beyond_the_limit_is_not_written(tmp_path: Path) -> None:
    folder = tmp_path / "x.git"
    await git.run("init", "-q", "--bare", "--template=", str(folder))
    with pytest.raises(git.GitFileTooLarge):
        await git.run("hash-object", "-w", "--stdin", git_dir=folder, stdin=os.urandom(3_000_000), max_file=1_000_000)


@pytest.mark.parametrize(
    "said",
    [
        "fatal: unable to access 'https://user:sekret123@example.org/x/'",
        "fatal: https://sekret123@example.org",
        "remote: token ghp_sekret123456789012 expired",
        "Authorization: Bearer sekret123sekret123",
    ],
)
async def test_credentials_in_complaints_are_hidden(program: Path, said: str) -> None:
    install(program, f'#!/bin/sh\necho "{said}" >&2\nexit 128\n')
    with pytest.raises(git.GitFailed) as caught:
        await git.run("fetch")
    assert "sekret123" not in str(caught.value.document())


async def test_control_characters_in_complaints_are_taken_out(program: Path) -> None:
    install(program, "#!/bin/sh\nprintf 'remote: \\033[2Jcleared\\007' >&2\nexit 1\n")
    with pytest.raises(git.GitFailed) as caught:
        await git.run("fetch")
    assert "\x1b" not in caught.value.message


def test_a_credential_shows_in_no_representation() -> None:
    assert "sekret123" not in repr(git.Credential("https://example.org/", "sekret123"))


async def test_a_credential_is_in_no_argument_list(program: Path) -> None:
    install(program, '#!/bin/sh\ntr "\\0" " " < /proc/$$/cmdline\n')
    credential = git.Credential("https://example.org/", "sekret123")
    seen = await git.run("ls-remote", config=credential.config())
    assert b"Authorization" not in seen


async def test_without_a_protocol_nothing_is_reached(tmp_path: Path) -> None:
    with pytest.raises(git.GitFailed, match="not allowed"):
        await git.run("ls-remote", f"file://{tmp_path}")


async def test_ext_is_refused_even_if_somebody_lets_it_in(tmp_path: Path) -> None:
    with pytest.raises(git.GitFailed):
        await git.run("ls-remote", f"ext::touch {tmp_path}/FIRED", protocols={"https"})
    assert not (tmp_path / "FIRED").exists()


async def test_git_that_is_not_there_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(git.GitMissing):
        await git.run("version")


async def test_git_that_is_too_old_says_so() -> None:
    with pytest.raises(git.GitTooOld):
        await git.need(99, 0, "time travel")


async def test_a_signal_is_a_failure(program: Path) -> None:
    install(program, f"#!/bin/sh\nkill -{int(signal.SIGTERM)} $$\n")
    with pytest.raises(git.GitFailed):
        await git.run("log")
