"""What the host's repositories tell: progress, commands, diffs, conflicts. Read from objects, never from a work tree."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from shopfloor.forges.mirrors.bundles import is_ancestor, require
from shopfloor.forges.mirrors.mirror import has
from shopfloor.forges.mirrors.places import Place
from shopfloor.forges.port import Comparison, Mergeable
from shopfloor.forges.rules import SYMLINK, Changed, Commit, PhaseSpan, phase_history
from shopfloor.kit import git

MAX_COMMITS = 5000
MAX_MESSAGE = 2000
MAX_COMMAND = 64 << 10
MAX_COMMANDS = 100
MAX_DIFF = 4 << 20
MAX_TEXT = 1 << 20
FILES = frozenset({"100644", "100755"})
COMMANDS = ".claude/commands"
COMMAND_FILE = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]{0,63})\.md")
DIFF = ("--no-ext-diff", "--no-textconv", "--no-color")


@dataclass(frozen=True)
class GitProgress:
    """How far a branch has come, computed by git (AWM-10)."""

    git_commit_count: int = 0
    git_files_changed: int = 0
    git_lines_added: int = 0
    git_lines_removed: int = 0
    latest_commit_sha: str | None = None
    latest_commit_message: str | None = None
    phase_history: tuple[PhaseSpan, ...] = ()


@dataclass(frozen=True)
class Diff:
    """What a branch changed, as text."""

    text: str
    truncated: bool


async def progress(place: Place, head: str, base: str) -> GitProgress:
    """Count and tell what lies between two commits."""
    await require(place, head, base)
    commits = await _commits(place, head, base)
    counted = await git.run("rev-list", "--count", f"{base}..{head}", git_dir=place.orders)
    numbers = await git.run("diff", *DIFF, "--numstat", "--no-renames", "-z", base, head, git_dir=place.orders)
    added = removed = files = 0
    for line in filter(None, numbers.split(b"\0")):
        plus, minus, _ = line.split(b"\t", 2)
        files += 1
        added += int(plus) if plus != b"-" else 0
        removed += int(minus) if minus != b"-" else 0
    latest = commits[-1] if commits else None
    return GitProgress(
        git_commit_count=int(counted),
        git_files_changed=files,
        git_lines_added=added,
        git_lines_removed=removed,
        latest_commit_sha=latest.sha if latest else None,
        latest_commit_message=latest.message if latest else None,
        phase_history=tuple(phase_history(commits)),
    )


async def _commits(place: Place, head: str, base: str) -> list[Commit]:
    """The newest commits between two, oldest first."""
    said = await git.run(
        *("log", "-z", "--topo-order", f"--max-count={MAX_COMMITS}", "--format=%H%n%ct%n%B", f"{base}..{head}"),
        git_dir=place.orders,
    )
    found = []
    for record in filter(None, said.decode(errors="replace").split("\0")):
        sha, seconds, message = (*record.split("\n", 2), "", "")[:3]
        tail = (
            message
            if len(message) <= MAX_MESSAGE
            else f"{message[: MAX_MESSAGE // 2]}\n\n{message[-MAX_MESSAGE // 2 :]}"
        )
        found.append(Commit(sha, _instant(seconds), git.clean(tail.encode())))
    return found[::-1]


def _instant(seconds: str) -> datetime:
    """A commit's own time, which may be any nonsense."""
    try:
        return datetime.fromtimestamp(min(max(int(seconds), 0), 253402300799), UTC)
    except ValueError:
        return datetime.fromtimestamp(0, UTC)


async def commands(place: Place, commit: str) -> dict[str, str]:
    """The repository's own command files at a commit, by name."""
    await require(place, commit)
    said = await git.run("ls-tree", "-z", "-l", commit, "--", f"{COMMANDS}/", git_dir=place.orders)
    found: dict[str, str] = {}
    for entry in filter(None, said.decode(errors="replace").split("\0")):
        facts, _, path = entry.partition("\t")
        mode, _, blob, size = facts.split()
        name = COMMAND_FILE.fullmatch(path.rpartition("/")[2])
        if name and mode in {"100644", "100755"} and int(size) <= MAX_COMMAND and len(found) < MAX_COMMANDS:
            found[name[1]] = (await git.run("cat-file", "blob", blob, git_dir=place.orders)).decode(errors="replace")
    return found


async def first_file(place: Place, commit: str, paths: Sequence[str]) -> str | None:
    """The text of the first of these files that a commit has, whatever the case of its name; links and large files are none."""
    await require(place, commit)
    folders = sorted({path.rpartition("/")[0] for path in paths})
    said = b""
    for folder in folders:
        where = ("--", f"{folder}/") if folder else ()
        said += await git.run("ls-tree", "-z", "-l", commit, *where, git_dir=place.orders)
    blobs: dict[str, str] = {}
    for entry in filter(None, said.decode(errors="replace").split("\0")):
        facts, _, path = entry.partition("\t")
        mode, _, blob, size = facts.split()
        if mode in {"100644", "100755"} and int(size) <= MAX_COMMAND:
            blobs.setdefault(path.lower(), blob)
    for path in paths:
        if (found := blobs.get(path.lower())) is not None:
            return (await git.run("cat-file", "blob", found, git_dir=place.orders)).decode(errors="replace")
    return None


async def compare(place: Place, base: str, head: str) -> Comparison:
    """How far two commits are apart, and the files that `head` changed since it left `base`."""
    await require(place, base, head)
    counted = await git.run("rev-list", "--left-right", "--count", f"{base}...{head}", git_dir=place.orders)
    behind, ahead = (int(number) for number in counted.split())
    names = await git.run("diff", *DIFF, "--name-only", "-z", f"{base}...{head}", git_dir=place.orders)
    files = tuple(filter(None, names.decode(errors="replace").split("\0")))[:MAX_COMMITS]
    return Comparison(base_commit=base, head_commit=head, ahead=ahead, behind=behind, files=files)


async def diff(place: Place, base: str, head: str, max_bytes: int = MAX_DIFF) -> Diff:
    """What `head` changed since it left `base`."""
    await require(place, base, head)
    shown = await git.call(
        *("diff", *DIFF, "-M", f"{base}...{head}"), git_dir=place.orders, max_output=max_bytes, truncate=True
    )
    if shown.exit_code != 0:
        raise git.failure(("diff",), shown)
    return Diff(shown.stdout.decode(errors="replace"), shown.truncated)


async def mergeable(place: Place, base: str, head: str) -> Mergeable:
    """Merge two commits in memory: the tree, or the files in conflict."""
    await git.need(2, 38, "merging without a work tree")
    await require(place, base, head)
    merged = await git.call(
        *("merge-tree", "--write-tree", "--name-only", "--no-messages", "-z", base, head), git_dir=place.orders
    )
    if "unrelated histories" in merged.stderr:
        return Mergeable(clean=False, tree="")
    if merged.exit_code not in {0, 1} or not merged.stdout:
        raise git.failure(("merge-tree",), merged)
    tree, *names = merged.stdout.decode(errors="replace").rstrip("\0").split("\0")
    before = (await git.run("rev-parse", f"{base}^{{tree}}", git_dir=place.orders)).decode().strip()
    return Mergeable(merged.exit_code == 0, tree, list(dict.fromkeys(names)), adds=tree != before)


async def commit_merge(place: Place, tree: str, parents: tuple[str, ...], message: str, *, date: str = "") -> str:
    """Write a commit of a merged tree, in our name. With a `date` the same merge is the same commit."""
    who = {f"GIT_{role}_NAME": "Shopfloor" for role in ("AUTHOR", "COMMITTER")}
    who |= {f"GIT_{role}_EMAIL": "agent@shopfloor.invalid" for role in ("AUTHOR", "COMMITTER")}
    who |= {f"GIT_{role}_DATE": date for role in ("AUTHOR", "COMMITTER") if date}
    given = [word for parent in parents for word in ("-p", parent)]
    text = git.clean(message.encode()).encode()
    made = await git.run("commit-tree", tree, *given, git_dir=place.orders, env=who, stdin=text)
    return made.decode().strip()


async def contains(place: Place, newer: str, older: str) -> bool:
    """Whether `newer` contains `older`. We hold all that `newer` contains: what we do not hold, as another host made it, is not in it."""
    await require(place, newer)
    return await has(place.orders, older) and await is_ancestor(place.orders, older, newer)


async def fork(place: Place, base: str, head: str) -> str | None:
    """The newest commit that both contain; None when they have nothing in common."""
    await require(place, base, head)
    found = await git.call("merge-base", base, head, git_dir=place.orders)
    return found.stdout.decode().strip() or None


async def changed(place: Place, base: str, head: str) -> tuple[list[Changed], list[int]]:
    """What the policy looks at: every path that differs, and the size of every new object."""
    await require(place, base, head)
    said = await git.run("diff-tree", "-r", "-z", "--raw", "--no-renames", base, head, git_dir=place.orders)
    fields = said.split(b"\0")
    found = [
        (facts.decode().lstrip(":").split(), path) for facts, path in zip(fields[:-1:2], fields[1::2], strict=True)
    ]
    sizes = await _sizes(place, {facts[3] for facts, _ in found if facts[1] in FILES})
    changes = []
    for (old_mode, mode, _, blob, _), raw_path in found:
        target = await _link(place, blob) if mode == SYMLINK else None
        changes.append(Changed(raw_path.decode(errors="replace"), mode, old_mode, target, sizes.get(blob, 0)))
    return changes, await _new_sizes(place, base, head)


async def _sizes(place: Place, blobs: set[str]) -> dict[str, int]:
    asked = "".join(f"{blob}\n" for blob in sorted(blobs)).encode()
    told = await git.run("cat-file", "--batch-check=%(objectname) %(objectsize)", git_dir=place.orders, stdin=asked)
    return {name: int(size) for name, size in (line.split() for line in told.decode().splitlines())}


async def _link(place: Place, blob: str) -> str:
    found = await git.call("cat-file", "blob", blob, git_dir=place.orders, max_output=4096, truncate=True)
    return found.stdout.decode(errors="replace")


async def _new_sizes(place: Place, base: str, head: str) -> list[int]:
    listed = await git.run("rev-list", "--objects", "--no-object-names", head, f"^{base}", git_dir=place.orders)
    sizes = await git.run("cat-file", "--batch-check=%(objectsize)", git_dir=place.orders, stdin=listed)
    return [int(size) for size in sizes.split()]


async def files(place: Place, commit: str) -> dict[str, str]:
    """Every file of a commit, with its blob, as a name that is no UTF-8 finds nothing; links are none."""
    await require(place, commit)
    said = await git.run("ls-tree", "-r", "-z", commit, git_dir=place.orders)
    entries = (entry.partition("\t") for entry in filter(None, said.decode(errors="replace").split("\0")))
    return {path: facts.split()[2] for facts, _, path in entries if facts[:6] in FILES}


async def text(place: Place, commit: str, path: str, max_bytes: int = MAX_TEXT) -> str:
    """The text of a file of a commit, cut off after `max_bytes`."""
    await require(place, commit)
    return await blob_text(place, f"{commit}:{path}", max_bytes)


async def blob_text(place: Place, blob: str, max_bytes: int = MAX_TEXT) -> str:
    """The text of a blob, cut off after `max_bytes`."""
    shown = await git.call("cat-file", "blob", blob, git_dir=place.orders, max_output=max_bytes, truncate=True)
    if shown.exit_code != 0:
        raise git.failure(("cat-file",), shown)
    return shown.stdout.decode(errors="replace")


async def written(place: Place, base: str, head: str, path: str, max_bytes: int = MAX_TEXT) -> str | None:
    """The text of a file that `head` has and `base` has not, or otherwise, cut off; None when that is not so, or it is no plain file."""
    await require(place, base, head)
    said = await git.run("diff-tree", "-z", "--raw", "--no-renames", base, head, "--", path, git_dir=place.orders)
    facts, _, found = said.decode(errors="replace").rstrip("\0").partition("\0")
    if found != path or facts.split()[1] not in FILES:
        return None
    return await text(place, head, path, max_bytes)
