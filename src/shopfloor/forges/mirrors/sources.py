"""Where a repository comes from, made safe to talk to. A local path is read by upload-pack only, after a look at what git would follow."""

import os
import shlex
import shutil
import stat
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from shopfloor.forges.rules import Address, Kind, file_url
from shopfloor.kit.errors import Malformed, Misconfigured, NotFound
from shopfloor.kit.git import Credential

Credentials = Callable[[Address], Awaitable[Credential | None]]
"""Who knows what to show to a host when we read from it."""
LOCAL_SETTINGS = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.alternateRefsCommand": "true",
    "core.useReplaceRefs": "false",
    "uploadpack.allowFilter": "false",
    "receive.denyCurrentBranch": "refuse",
    "receive.denyDeletes": "false",
    "receive.autogc": "false",
    "receive.fsckObjects": "true",
    "gc.auto": "0",
}
"""Set for the program that serves a local repository: the repository's own settings do not count."""


class LocalRepositoryNotFound(NotFound):
    """There is no repository at this path."""

    status = 422
    hint = "Give the full path of a repository on the server's machine: a folder with .git in it, or a bare repository."


class RedirectedRepository(Malformed):
    """The repository at this path leads elsewhere."""

    hint = "Give the path of the repository it leads to, or clone it (git clone --no-local) and give that path."


class ShallowRepository(Malformed):
    """The repository at this path is a shallow clone."""

    hint = "Run 'git fetch --unshallow' in it, or give the address it was cloned from."


class ProtocolNotAllowed(Malformed):
    """This kind of address is not enabled here."""

    hint = "Use another address, or let the operator add the protocol to origin_protocols (SHOPFLOOR_ORIGIN_PROTOCOLS)."


class TokenMissing(Misconfigured):
    """The variable that should hold this origin's token is not set."""

    hint = "Set the variable that origin_tokens names where the server runs, or take the origin out of origin_tokens."


def tokens(variables: Mapping[str, str]) -> Credentials:
    """Credentials for origins `https://host[:port]` from the named variables of the environment; raises TokenMissing when one is asked for.

    They are read when they are used: no setting, file or message holds a token, nor the variable's name, as that may be one by mistake.
    """
    by_origin = {f"{origin.rstrip('/').lower()}/": variable for origin, variable in variables.items()}

    async def credentials(address: Address) -> Credential | None:
        if (variable := by_origin.get(address.origin)) is None:
            return None
        if not (token := os.environ.get(variable)):
            raise TokenMissing(f"the variable that origin_tokens names for {address.origin} is not set")
        return Credential(address.origin, token)

    return credentials


@dataclass(frozen=True)
class Source:
    """What to tell git so that it talks to a repository, and only to that one."""

    url: str
    protocols: frozenset[str]
    serve: str | None = None
    """Shell words before `upload-pack` or `receive-pack`, for a local repository."""
    config: dict[str, str] | None = None
    """Settings with the credential, if there is one."""

    @property
    def reading(self) -> list[str]:
        """Arguments for fetch and ls-remote."""
        return [f"--upload-pack={self.serve} upload-pack --strict"] if self.serve else []

    @property
    def writing(self) -> list[str]:
        """Arguments for push."""
        return [f"--receive-pack={self.serve} receive-pack"] if self.serve else []


def source(address: Address, allowed: frozenset[str], credential: Credential | None = None) -> Source:
    """How to reach a repository; raises what is wrong with it. Blocks when it is a local path."""
    if str(address.kind) not in allowed:
        other = (
            f"Use https://{address.host}/{address.owner}/{address.name}, or let" if address.kind == Kind.SSH else "Let"
        )
        raise ProtocolNotAllowed(
            f"{address.kind}:// is not enabled: origin_protocols has {', '.join(sorted(allowed))}",
            hint=f"{other} the operator add {str(address.kind)!r} to origin_protocols (SHOPFLOOR_ORIGIN_PROTOCOLS).",
        )
    protocols = frozenset({str(address.kind)})
    if address.kind == Kind.FILE:
        try:
            git_dir = local_git_dir(address.url)
            return Source(file_url(str(git_dir)), protocols, _server(git_dir))
        except OSError as error:
            raise LocalRepositoryNotFound(f"{address.url[:300]} cannot be read: {error.strerror}") from error
    return Source(address.url, protocols, config=credential.config() if credential else None)


def local_git_dir(path: str) -> Path:
    """The git folder of a local repository, once nothing in it leads elsewhere. Blocks."""
    here = Path(os.path.realpath(path))
    inner = here / ".git"
    if inner.is_symlink() or inner.is_file():
        raise RedirectedRepository(f"{inner} leads to another place (a worktree or a submodule?)")
    found = inner if inner.is_dir() else here
    if not all(os.path.lexists(found / name) for name in ("HEAD", "objects", "refs")):
        raise LocalRepositoryNotFound(f"there is no git repository at {path}")
    if os.path.lexists(found / ".git") or os.path.lexists(found / "commondir"):
        raise RedirectedRepository(f"{found} leads to another repository")
    if os.path.lexists(found / "shallow"):
        raise ShallowRepository(f"{path} is a shallow clone")
    for link in _links(found):
        if not Path(os.path.realpath(link)).is_relative_to(found):
            raise RedirectedRepository(f"{link} is a symbolic link out of the repository")
    _check_alternates(found, found / "objects")
    return found


def _links(git_dir: Path) -> Iterator[str]:
    """Every symbolic link that git would follow when it serves the repository. The folders say what is a link: nothing is asked twice."""
    waiting = [git_dir]
    while waiting:
        folder = waiting.pop()
        try:
            entries = list(os.scandir(folder))
        except FileNotFoundError:  # a push of somebody else came and went
            continue
        for entry in entries:
            if entry.is_symlink():
                yield entry.path
            elif entry.is_dir(follow_symlinks=False) and (folder != git_dir or entry.name in {"objects", "refs"}):
                waiting.append(Path(entry.path))


def _check_alternates(git_dir: Path, objects: Path, depth: int = 0) -> None:
    listed = objects / "info" / "alternates"
    if not listed.exists():
        return
    for line in listed.read_text(errors="replace").splitlines():
        other = Path(os.path.realpath(objects / line.strip()))
        if depth or not other.is_relative_to(git_dir) or line.startswith('"'):
            raise RedirectedRepository(
                f"{listed} borrows objects from {line[:200]!r}",
                hint="Run 'git repack -a -d' in it and remove that file, or clone it and give the clone's path.",
            )
        if line.strip():
            _check_alternates(git_dir, other, depth + 1)


def _server(git_dir: Path) -> str:
    """The command that serves a local repository: as its owner when we are root, and deaf to its settings."""
    owner = git_dir.stat()
    settings = dict(LOCAL_SETTINGS)
    words: list[str] = []
    if owner.st_uid != os.geteuid():
        if os.geteuid() == 0 and _reachable(git_dir, owner) and (setpriv := shutil.which("setpriv")):
            words = [setpriv, f"--reuid={owner.st_uid}", f"--regid={owner.st_gid}", "--clear-groups", "--no-new-privs"]
        else:
            settings["safe.directory"] = str(git_dir)
    words.append("git")
    for key, value in settings.items():
        words += ["-c", f"{key}={value}"]
    return shlex.join(words)


def _reachable(path: Path, owner: os.stat_result) -> bool:
    """Whether the owner can walk to their repository; what lies below root's own folders they cannot."""
    for folder in path.parents:
        found = folder.stat()
        mine = (
            stat.S_IXUSR
            if found.st_uid == owner.st_uid
            else stat.S_IXGRP
            if found.st_gid == owner.st_gid
            else stat.S_IXOTH
        )
        if not found.st_mode & mine:
            return False
    return True
