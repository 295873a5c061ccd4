"""The one hardened way to run git on the host: argv only, an environment from scratch, limits on time, output and files.

Never point it at a folder that an agent can write: no set of flags makes that safe.
"""

import asyncio
import base64
import contextlib
import os
import re
import signal
from asyncio.subprocess import PIPE
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from shopfloor.kit.errors import Misconfigured, Problem, TooLarge, Unavailable
from shopfloor.kit.log import redact

STDERR_CAP: Final = 8 * 1024
COLLECT_SECONDS: Final = 10
NOWHERE: Final = "/dev/null"
USERINFO: Final = re.compile(r"(?<=://)[^/@\s]+(?=@)")
CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

BASE_ENVIRONMENT: Final = {
    "HOME": "/nonexistent",
    "LC_ALL": "C.UTF-8",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": NOWHERE,
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "/bin/false",
    "SSH_ASKPASS": "/bin/false",
    "GIT_SSH_COMMAND": "/bin/false",
    "GIT_EDITOR": "/bin/false",
    "GIT_SEQUENCE_EDITOR": "/bin/false",
    "GIT_PAGER": "cat",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_LFS_SKIP_SMUDGE": "1",
    "GIT_CEILING_DIRECTORIES": "/",
}
PASSED_ON: Final = (
    "PATH",
    "TMPDIR",
    "GIT_SSL_CAINFO",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    *("https_proxy", "HTTPS_PROXY", "http_proxy", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"),
)
"""The operator's own: where programs, certificates and the way out are."""

CONFIG: Final = {
    "core.hooksPath": NOWHERE,
    "core.fsmonitor": "false",
    "core.attributesFile": NOWHERE,
    "core.excludesFile": NOWHERE,
    "core.protectHFS": "true",
    "core.protectNTFS": "true",
    "core.fsync": "committed,reference",
    "core.alternateRefsCommand": "true",
    "core.pager": "cat",
    "credential.helper": "",
    "commit.gpgSign": "false",
    "tag.gpgSign": "false",
    "push.gpgSign": "false",
    "log.showSignature": "false",
    "submodule.recurse": "false",
    "fetch.recurseSubmodules": "false",
    "push.recurseSubmodules": "no",
    "protocol.ext.allow": "never",
    "safe.bareRepository": "explicit",
    "transfer.fsckObjects": "true",
    "transfer.unpackLimit": "1",
    "http.followRedirects": "false",
    "http.lowSpeedLimit": "1000",
    "http.lowSpeedTime": "60",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "advice.detachedHead": "false",
}
SSH: Final = "ssh -oBatchMode=yes -oStrictHostKeyChecking=yes -oConnectTimeout=15 -oPermitLocalCommand=no"


class GitFailed(Problem):
    """git could not do it."""

    status = 502

    def __init__(self, message: str, *, hint: str = "", exit_code: int = -1, stderr: str = "") -> None:
        super().__init__(message, hint=hint, exit_code=exit_code, stderr=stderr)
        self.exit_code = exit_code
        self.stderr = stderr


class GitTimedOut(Unavailable):
    """git took too long and was ended."""

    hint = "The server may be slow or unreachable; try again."


class GitOutputTooLarge(TooLarge):
    """git answered more than is allowed."""


class GitFileTooLarge(TooLarge):
    """git tried to write a larger file than is allowed."""


class GitMissing(Misconfigured):
    """The program git is not installed."""

    hint = "Install git 2.38 or newer."


class GitTooOld(Misconfigured):
    """This git is too old."""

    hint = "Install git 2.38 or newer."


@dataclass(frozen=True)
class Credential:
    """What git shows to one host, and to no other; it is never in an argument list or a file."""

    base_url: str
    """`https://host/`: requests elsewhere carry nothing."""
    token: str = field(repr=False)
    username: str = "x-access-token"

    def config(self) -> dict[str, str]:
        """The git setting that sends it."""
        basic = base64.b64encode(f"{self.username}:{self.token}".encode()).decode()
        return {f"http.{self.base_url.rstrip('/')}/.extraHeader": f"Authorization: Basic {basic}"}


@dataclass(frozen=True)
class Result:
    """How a git program ended."""

    exit_code: int
    stdout: bytes
    stderr: str
    truncated: bool = False


def environment(
    *,
    protocols: Collection[str] = (),
    config: Mapping[str, str] | None = None,
    extra: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The whole environment of a git program; settings travel in it, so that no argument list shows them."""
    settings = {**CONFIG, **(config or {})}
    env = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    env |= {"PATH": env.get("PATH", os.defpath), **BASE_ENVIRONMENT, "GIT_ALLOW_PROTOCOL": ":".join(sorted(protocols))}
    if "ssh" in protocols:
        env["GIT_SSH_COMMAND"] = SSH
        env |= {"SSH_AUTH_SOCK": os.environ["SSH_AUTH_SOCK"]} if "SSH_AUTH_SOCK" in os.environ else {}
    env["GIT_CONFIG_COUNT"] = str(len(settings))
    for number, (key, value) in enumerate(settings.items()):
        env[f"GIT_CONFIG_KEY_{number}"], env[f"GIT_CONFIG_VALUE_{number}"] = key, value
    return env | dict(extra or {})


async def run(
    *args: str,
    git_dir: Path | None = None,
    cwd: Path | None = None,
    stdin: bytes | BinaryIO = b"",
    timeout: float = 60,
    env: Mapping[str, str] | None = None,
    config: Mapping[str, str] | None = None,
    protocols: Collection[str] = (),
    max_output: int = 32 << 20,
    max_file: int | None = None,
    keep_open: Collection[int] = (),
) -> bytes:
    """Run git and answer what it printed; anything but exit code 0 raises GitFailed."""
    result = await call(
        *args,
        git_dir=git_dir,
        cwd=cwd,
        stdin=stdin,
        timeout=timeout,
        env=env,
        config=config,
        protocols=protocols,
        max_output=max_output,
        max_file=max_file,
        keep_open=keep_open,
    )
    if result.exit_code != 0:
        raise failure(args, result)
    return result.stdout


async def call(
    *args: str,
    git_dir: Path | None = None,
    cwd: Path | None = None,
    stdin: bytes | BinaryIO = b"",
    timeout: float = 60,
    env: Mapping[str, str] | None = None,
    config: Mapping[str, str] | None = None,
    protocols: Collection[str] = (),
    max_output: int = 32 << 20,
    truncate: bool = False,
    max_file: int | None = None,
    keep_open: Collection[int] = (),
    into: BinaryIO | None = None,
) -> Result:
    """Run git to its end, whatever its exit code. At the timeout, and when the caller is cancelled, its process group is killed.

    `stdin` is bytes or an unbuffered file, read from where it stands. Beyond `max_output` the output is an error, or cut off with `truncate`. `max_file` limits
    every file it writes. `keep_open` are file descriptors it inherits: a lock so held outlives a killed caller until git ends.
    `into` is a file that takes the output instead.
    """
    try:
        process = await _spawn(
            *_argv(args, git_dir, max_file),
            cwd=cwd or "/",
            env=environment(protocols=protocols, config=config, extra=env),
            stdin=stdin if not isinstance(stdin, bytes) else PIPE if stdin else asyncio.subprocess.DEVNULL,
            stdout=into or PIPE,
            pass_fds=tuple(keep_open),
        )
    except FileNotFoundError as error:
        raise GitMissing from error
    try:
        async with asyncio.timeout(timeout):
            return await _finish(process, args, stdin if isinstance(stdin, bytes) else b"", max_output, truncate)
    except TimeoutError as error:
        raise GitTimedOut(f"git {args[0]} took longer than {timeout:.0f} s") from error
    finally:
        await _end(process)


async def _spawn(*argv: str, **options: Any) -> asyncio.subprocess.Process:
    """Start a program in a process group of its own; a caller cancelled meanwhile leaves none behind."""
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(*argv, stderr=PIPE, start_new_session=True, **options)
    )
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        await _end(await starting)
        raise


def _argv(args: tuple[str, ...], git_dir: Path | None, max_file: int | None) -> list[str]:
    argv = ["git", *([f"--git-dir={git_dir}"] if git_dir else []), *args]
    if max_file is None:
        return argv
    return ["/bin/sh", "-c", 'ulimit -f "$0" && exec "$@"', str(max(1, max_file // 512)), *argv]


async def _finish(
    process: asyncio.subprocess.Process, args: tuple[str, ...], stdin: bytes, max_output: int, truncate: bool
) -> Result:
    assert process.stderr
    feeding = asyncio.ensure_future(_feed(process, stdin))
    complaints = asyncio.ensure_future(_read(process.stderr, STDERR_CAP, drain=True))
    try:
        stdout, cut = await _read(process.stdout, max_output) if process.stdout else (b"", False)
        if cut and not truncate:
            raise GitOutputTooLarge(f"git {args[0]} printed more than {max_output} bytes")
        if cut:
            return Result(0, stdout, "", truncated=True)
        stderr = clean((await complaints)[0])
        await feeding
        code = await process.wait()
    finally:
        feeding.cancel()
        complaints.cancel()
        await asyncio.gather(feeding, complaints, return_exceptions=True)
    if code == -signal.SIGXFSZ or "File too large" in stderr:
        raise GitFileTooLarge(f"git {args[0]} tried to write a larger file than is allowed")
    return Result(code, stdout, stderr)


async def _feed(process: asyncio.subprocess.Process, data: bytes) -> None:
    if process.stdin is None:
        return
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(data)
        await process.stdin.drain()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.close()


async def _read(stream: asyncio.StreamReader, cap: int, *, drain: bool = False) -> tuple[bytes, bool]:
    """Read to the end, or up to `cap` bytes; with `drain` the rest is read and forgotten."""
    chunks, size = [], 0
    while chunk := await stream.read(1 << 18):
        if size < cap:
            chunks.append(chunk[: cap - size])
        size += len(chunk)
        if size > cap and not drain:
            break
    return b"".join(chunks), size > cap


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill what is left of the process group and collect the process, even if the caller is cancelled again."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await asyncio.shield(asyncio.ensure_future(_collect(process)))


async def _collect(process: asyncio.subprocess.Process) -> None:
    """Read what is left: asyncio tells of a process's end only when its pipes were read to theirs.

    Whoever left the process group may hold them open for ever, so patience has an end.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(COLLECT_SECONDS):
            for stream in (process.stdout, process.stderr):
                while stream and await stream.read(1 << 18):
                    pass
            await process.wait()


def clean(raw: bytes) -> str:
    """What a foreign program said, fit to be shown: no credentials, no control characters."""
    text = CONTROL.sub("", raw.decode(errors="replace").replace("\r", "\n"))
    return str(redact(USERINFO.sub("[hidden]", text))).strip()


def failure(args: tuple[str, ...], result: Result) -> GitFailed:
    """The error for a git program that ended badly."""
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("fatal:", "error:", "remote:", " ! "))] or lines
    said = "; ".join(line.strip() for line in telling[:4])[:600] or f"exit code {result.exit_code}"
    return GitFailed(
        f"git {args[0]}: {said}", hint=hint_for(result.stderr), exit_code=result.exit_code, stderr=result.stderr
    )


_HINTS: Final = (
    ("could not resolve host", "Check the host name and this machine's network."),
    ("transport '", "Only the configured protocols may be used (https, and local paths by default)."),
    ("no space left", "Free some disk space and try again."),
    ("unable to update url base from redirection", "The repository has moved: use its new URL."),
    ("returned error: 30", "The repository has moved: use its new URL."),
    ("certificate", "Make the server's certificate known: set SSL_CERT_FILE or GIT_SSL_CAINFO."),
)


def hint_for(stderr: str) -> str:
    """What to do about what git said; nothing, when we do not know."""
    low = stderr.lower()
    return next((hint for sign, hint in _HINTS if sign in low), "")


_version: list[tuple[int, int]] = []


async def version() -> tuple[int, int]:
    """The version of the installed git."""
    if not _version:
        match = re.search(rb"(\d+)\.(\d+)", await run("version"))
        _version.append((int(match[1]), int(match[2])) if match else (0, 0))
    return _version[0]


async def need(major: int, minor: int, what: str) -> None:
    """Raise GitTooOld unless git is at least this version."""
    if (found := await version()) < (major, minor):
        raise GitTooOld(f"{what} needs git {major}.{minor}, this is {found[0]}.{found[1]}")
