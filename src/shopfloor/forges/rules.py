"""The law of repositories and branches: URLs, names, phases told by commits, what may leave a sandbox. Pure."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from posixpath import normpath
from urllib.parse import quote, unquote, urlsplit

from shopfloor.kit.errors import Malformed
from shopfloor.kit.machine import Machine

BRANCH = re.compile(r"[a-z0-9][a-z0-9._/-]{0,99}")
COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
GITHUB_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9_-])?"
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,253}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]")
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class BadRepositoryUrl(Malformed):
    """That is not the address of a repository."""

    hint = "Give https://host/owner/name, owner/name for GitHub, or the full path of a local repository."


class CredentialsInUrl(BadRepositoryUrl):
    """The address holds credentials."""

    hint = "Leave user name, password and token out of the address; credentials are configured apart from it."


class BadBranchName(Malformed):
    """That is not a branch name we use."""

    hint = "Lower case letters, digits, dots, dashes and slashes, at most 100."


class Kind(StrEnum):
    """How a repository is reached."""

    HTTPS = "https"
    HTTP = "http"
    SSH = "ssh"
    FILE = "file"


@dataclass(frozen=True)
class Address:
    """A repository's address, taken apart."""

    url: str
    """The one way we write it."""
    kind: Kind
    host: str
    owner: str
    name: str

    @property
    def origin(self) -> str:
        """`https://host[:port]/`, for credentials that belong to one host."""
        return "/".join(self.url.split("/")[:3]) + "/" if self.kind != Kind.FILE else ""


def repository_url(text: str) -> str:
    """The one way we write a repository's address; raises BadRepositoryUrl."""
    return address(text).url


def address(text: str) -> Address:
    """Take an address apart: GitHub shorthand, https, ssh, `file://` or an absolute path."""
    text = text.strip()
    shown = repr(text.rpartition("@")[2][:100])
    if not text or len(text) > 2000 or UNPRINTABLE.search(text) or text.startswith("-"):
        raise BadRepositoryUrl(f"{shown} is not the address of a repository")
    if text.startswith("/"):
        return _local(text)
    if re.match(r"[A-Za-z0-9+.-]+::", text):
        raise BadRepositoryUrl("remote helpers (ext::, fd::) are not allowed")
    if "://" in text:
        return _with_scheme(text)
    if match := re.fullmatch(r"(?:([\w.-]+)@)?([\w.-]+):(?!/)(.+)", text):
        return _ssh(match[1] or "git", match[2], None, match[3])
    if re.fullmatch(rf"{GITHUB_NAME}/{GITHUB_NAME}", text):
        return _remote(Kind.HTTPS, "github.com", f"/{text}")
    if text.startswith((".", "~")):
        raise BadRepositoryUrl(f"{shown} is a relative path", hint="Give the full path; the CLI does it for you.")
    raise BadRepositoryUrl(f"{shown} is not the address of a repository")


def _with_scheme(text: str) -> Address:
    try:
        parts = urlsplit(text)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        raise BadRepositoryUrl("the host or port of the address is malformed") from None
    scheme, host = parts.scheme.lower(), (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    if scheme == "file":
        if host not in {"", "localhost"} or parts.query or parts.fragment:
            raise BadRepositoryUrl("a file:// address names no host", hint="Write file:///full/path.")
        return _local(unquote(parts.path))
    if parts.password is not None or (parts.username is not None and scheme != "ssh"):
        raise CredentialsInUrl("the address holds credentials")
    if parts.query or parts.fragment or not HOST.fullmatch(host):
        raise BadRepositoryUrl("the address of a repository has a host, a path and nothing else")
    if scheme == "ssh":
        return _ssh(parts.username or "git", host, port, parts.path.lstrip("/"), absolute=True)
    if scheme not in {"https", "http"}:
        raise BadRepositoryUrl(f"{scheme}:// is not supported", hint="Use https://, or a local path.")
    return _remote(Kind(scheme), host + port, parts.path)


def _remote(kind: Kind, host: str, path: str) -> Address:
    path = re.sub(r"/+", "/", path).rstrip("/")
    pieces = path.strip("/").split("/")
    if UNPRINTABLE.search(unquote(path)):
        raise BadRepositoryUrl("the path of a repository holds no control characters")
    if not path.strip("/") or any(p in {".", ".."} or p.startswith("-") for p in map(unquote, pieces)):
        raise BadRepositoryUrl(f"{kind}://{host} lacks the path of a repository")
    name = pieces[-1].removesuffix(".git")
    if host in {"github.com", "www.github.com"}:
        host = "github.com"
        if len(pieces) != 2 or not re.fullmatch(rf"{GITHUB_NAME}/{GITHUB_NAME}", f"{pieces[0]}/{name}"):
            raise BadRepositoryUrl(
                f"{path!r} is not a repository of GitHub", hint="Write https://github.com/owner/name."
            )
        path = f"/{pieces[0]}/{name}"
    return Address(f"{kind}://{host}{path}", kind, host, "/".join(pieces[:-1]), unquote(name))


def _ssh(user: str, host: str, port: str | None, path: str, *, absolute: bool = False) -> Address:
    if user.startswith("-") or not re.fullmatch(r"[\w.-]+", user) or not HOST.fullmatch(host):
        raise BadRepositoryUrl("an ssh address names a user and a host")
    found = _remote(Kind.SSH, f"{user}@{host}{port or ''}", f"/{path}")
    name = found.url if absolute or host != "github.com" else found.url.removesuffix(".git")
    return Address(name, Kind.SSH, host, found.owner, found.name)


def _local(path: str) -> Address:
    if not path.startswith("/") or UNPRINTABLE.search(path):
        raise BadRepositoryUrl("a local repository is named by its full path")
    path = normpath("/" + path.lstrip("/"))
    if path == "/":
        raise BadRepositoryUrl("/ is not a repository")
    name = path.rsplit("/", 1)[1]
    return Address(path, Kind.FILE, "", "local", name.removesuffix(".git") or name)


def spellings(repository: Address) -> list[str]:
    """Every way, in small letters, to write the address of a forge's repository: by https and ssh, with `.git` and without."""
    host, path = re.sub(r":\d+$", "", repository.host), f"{repository.owner}/{repository.name}"
    starts = (f"https://{repository.host}", f"http://{repository.host}", f"ssh://git@{host}")
    return [f"{start}/{path}{end}".lower() for start in starts for end in ("", ".git")]


def file_url(path: str) -> str:
    """A local path as git takes it without guessing."""
    return "file://" + quote(path)


def branch_name(order_id: str, *, issue: int | None = None) -> str:
    """The branch of a work order: `feat-wo-4k9x2m7q`, `feat-issue-12-wo-4k9x2m7q`."""
    return our_branch(f"feat-{order_id}" if issue is None else f"feat-issue-{issue}-{order_id}")


def our_branch(name: str) -> str:
    """The name, if we may create a branch of it; raises BadBranchName."""
    if not BRANCH.fullmatch(name) or not is_branch(name):
        raise BadBranchName(f"{name[:100]!r} is not a branch name we use")
    return name


def is_branch(name: str) -> bool:
    """Whether git takes it as a branch and no tool as anything else; foreign branches may have capitals and letters of any language."""
    if (
        not 0 < len(name) <= 250
        or name == "@"
        or UNPRINTABLE.search(name)
        or re.search(r"[ ~^:?*\[\\]|\.\.|//|@\{", name)
    ):
        return False
    return (
        not name.startswith(("-", "/"))
        and not name.endswith(("/", "."))
        and not any(piece.startswith(".") or piece.endswith(".lock") for piece in name.split("/"))
    )


class Phase(StrEnum):
    """What a commit was made in."""

    PLANNING = "planning"
    IMPLEMENTING = "implementing"
    TESTING = "testing"


TRAILER = re.compile(r"(?mi)^Shopfloor-Phase:[ \t]*(planning|implementing|testing)[ \t]*$")
MARKERS = (
    (Phase.TESTING, re.compile(r"(?i)^(test|tests|testing|validate)\b[^\w\s]")),
    (Phase.IMPLEMENTING, re.compile(r"(?i)^(implement|implementing|implementation|build)\b[^\w\s]")),
    (Phase.PLANNING, re.compile(r"(?i)^(plan|planning)\b[^\w\s]")),
)


@dataclass(frozen=True)
class Commit:
    """A commit as the branch tells it."""

    sha: str
    at: datetime
    message: str


@dataclass(frozen=True)
class PhaseSpan:
    """One phase of a branch's history."""

    phase: str
    started_at: datetime | None
    completed_at: datetime | None
    """When its last commit was made; None while nothing follows it."""
    commits: int


def phase_of(message: str) -> Phase | None:
    """The phase a commit says it belongs to: by its trailer, else by the first word of its subject (AWX-04)."""
    last = message.strip().rsplit("\n\n", 1)[-1]
    if found := TRAILER.findall(last):
        return Phase(found[-1].lower())
    subject = message.strip().partition("\n")[0]
    return next((phase for phase, sign in MARKERS if sign.match(subject)), None)


def phase_history(commits: Iterable[Commit]) -> list[PhaseSpan]:
    """The phases of a branch, oldest first. A commit that says nothing belongs to the phase it stands in, at first planning (C15)."""
    spans: list[tuple[Phase, list[Commit]]] = []
    for commit in commits:
        phase = phase_of(commit.message) or (spans[-1][0] if spans else Phase.PLANNING)
        if spans and spans[-1][0] == phase:
            spans[-1][1].append(commit)
        else:
            spans.append((phase, [commit]))
    history = []
    for number, (phase, made) in enumerate(spans):
        started = spans[number - 1][1][-1].at if number else made[0].at
        ended = made[-1].at if number + 1 < len(spans) else None
        history.append(PhaseSpan(str(phase), started, ended, len(made)))
    return history


class ChangeState(StrEnum):
    """Where a change stands."""

    OPEN = "open"
    MERGED = "merged"
    CLOSED = "closed"


CHANGE = Machine(
    {
        ChangeState.OPEN: {ChangeState.MERGED, ChangeState.CLOSED},
        ChangeState.MERGED: set(),
        ChangeState.CLOSED: set(),
    }
)

MAX_BLOB = 50 << 20
MAX_TOTAL = 512 << 20
SYMLINK, GITLINK = "120000", "160000"
IGNORED_BY_HFS = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]")


@dataclass(frozen=True)
class Changed:
    """A path that differs between base and head."""

    path: str
    mode: str
    """Its mode in head, six digits; 000000 when it is gone."""
    old_mode: str = "000000"
    target: str | None = None
    """Where it points, when it is a symbolic link."""
    size: int = 0


@dataclass(frozen=True)
class Finding:
    """Something the policy has to say about a change."""

    rule: str
    path: str
    detail: str
    refused: bool = True


def findings(
    changes: Iterable[Changed], blobs: Iterable[int] = (), *, max_blob: int = MAX_BLOB, max_total: int = MAX_TOTAL
) -> list[Finding]:
    """What must not (`refused`), or should not unseen, leave a sandbox. `blobs` are the sizes of everything new."""
    there = [change for change in changes if change.mode != "000000"]
    found = [finding for change in there for finding in _about(change)]
    sizes = list(blobs)
    if (largest := max(sizes, default=0)) > max_blob:
        found.append(Finding("file_too_large", "", f"a file of {largest} bytes; at most {max_blob} are allowed"))
    # What is checked out counts once for each name: one blob may have any number of them.
    if (total := max(sum(sizes), sum(change.size for change in there))) > max_total:
        found.append(Finding("too_much", "", f"{total} bytes in all; at most {max_total} are allowed"))
    return found


def _about(change: Changed) -> Iterable[Finding]:
    path = change.path
    if UNPRINTABLE.search(path) or "\ufffd" in path:
        yield Finding("unprintable_path", repr(path)[:200], "the name holds control characters or is no UTF-8")
    if any(looks_like_git(piece) for piece in re.split(r"[/\\]", path)):
        yield Finding("git_folder", path, "some systems take this name for .git")
    if change.mode == GITLINK:
        yield Finding("submodule", path, "submodules are not added by agents")
    if change.mode == SYMLINK and escapes(path, change.target or ""):
        yield Finding("symlink_outside", path, f"points to {(change.target or '')[:200]!r}, outside the repository")
    low = path.lower()
    if low.startswith(".github/workflows/"):
        yield Finding(
            "workflow_file", path, "runs with the repository's rights; look at it before merging", refused=False
        )
    if low == ".gitmodules":
        yield Finding("submodule_settings", path, "look at the addresses before merging", refused=False)


def looks_like_git(name: str) -> bool:
    """Whether some file system takes a path's piece for `.git`."""
    seen = IGNORED_BY_HFS.sub("", unicodedata.normalize("NFKC", name)).casefold()
    seen = seen.partition(":")[0].rstrip(". ")
    return seen == ".git" or re.fullmatch(r"git~\d+", seen) is not None


def escapes(path: str, target: str) -> bool:
    """Whether a symbolic link at `path` leads out of the tree; `..` after a name counts, as that name may be a link itself."""
    if not target or target.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", target) or "\x00" in target:
        return True
    pieces = [piece for piece in re.split(r"[/\\]", target) if piece not in {"", "."}]
    up = next((number for number, piece in enumerate(pieces) if piece != ".."), len(pieces))
    return up > path.count("/") or ".." in pieces[up:]
