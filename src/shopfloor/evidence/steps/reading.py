"""What checks read from commits, with git and without a work tree: conditions of files, and what was touched on the way."""

import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree as ET

from shopfloor.evidence import harness, rules
from shopfloor.evidence.queries import Finding
from shopfloor.evidence.rules import Ground, Touched, Verdict
from shopfloor.forges.mirrors import reading
from shopfloor.forges.mirrors.bundles import require
from shopfloor.forges.mirrors.mirror import has
from shopfloor.forges.mirrors.places import Place
from shopfloor.forges.rules import SYMLINK
from shopfloor.forges.service import Repositories
from shopfloor.kit import git

MOST_BYTES = 4 << 20
"""Of a file that is looked into."""
MOST_PARTS = 256 << 10
"""Of a file whose parts are compared: beyond it, it counts as changed."""
MOST_SCRIPTS = 50
NOTHING = "000000"
FILES = frozenset({"100644", "100755"})
type Parts = tuple[str, ...] | re.Pattern[str]


async def at_hand(repositories: Repositories, url: str, *commits: str) -> Place:
    """The place of a repository, fetched if it does not have one of these commits. Raises CommitNotFound."""
    place = repositories.place(url)
    for commit in commits:
        if not (await has(place.mirror, commit) or await has(place.orders, commit)):
            await repositories.sync(url)
            break
    await require(place, *commits)
    return place


async def touched(place: Place, base: str, commit: str) -> list[Touched]:
    """Every file that differs between two commits."""
    changes, _ = await reading.changed(place, base, commit)
    ground = Ground(await reading.files(place, base))
    found = []
    for one in changes:
        parts = harness.PARTS.get(one.path.rpartition("/")[2])
        existed, link = one.old_mode != NOTHING, one.mode not in {*FILES, NOTHING}
        empty = one.size == 0 and not link
        found.append(
            Touched(
                path=one.path,
                existed=existed,
                remains=one.mode != NOTHING,
                same_parts=await _same_parts(place, base, commit, one.path, parts) if parts else None,
                link=link,
                new_ground=ground.has_nothing_beside(one.path),
                instead_of=() if existed else ground.behind(one.path, empty=empty, link=link),
            )
        )
    return found


async def called(place: Place, base: str, line: str) -> list[str]:
    """The scripts that a line runs by way of the base's own files: those that a build file names, and that they name in turn."""
    read = [name for runs, names in harness.READS.items() if re.search(runs, line) for name in names]
    found: list[str] = []
    todo = [*read, *rules.named(line)]
    while todo and len(found) < MOST_SCRIPTS:
        path = todo.pop()
        mode, size, blob = await _entry(place, base, path)
        if mode not in FILES or size > MOST_PARTS or path in found:
            continue
        found.append(path)
        if path in read or rules.matches(path, harness.CALLED):
            text = await git.run("cat-file", "blob", blob, git_dir=place.orders)
            todo += rules.calls(text.decode(errors="replace"))
    return [path for path in found if path not in read]


async def _same_parts(place: Place, base: str, commit: str, path: str, parts: Parts) -> bool:
    before, after = [await _parts(place, one, path, parts) for one in (base, commit)]
    if before is None or after is None:
        return False
    return all(
        _grown(before[part], after[part]) if part.endswith("+") else before[part] == after[part] for part in before
    )


def _grown(before: Any, after: Any) -> bool:
    """Whether a list is as it was, or has more in it that takes nothing away."""
    if before == after:
        return True
    if not isinstance(before or [], list) or not isinstance(after, list):
        return False
    new = [one for one in after if one not in (before or [])]
    return all(one in after for one in before or []) and not any(str(one).startswith("!") for one in new)


async def _parts(place: Place, commit: str, path: str, parts: Parts) -> dict[str, Any] | None:
    """The parts of a file that steer tests; None when it cannot be read, which is as good as changed."""
    mode, size, blob = await _entry(place, commit, path)
    if mode not in {*FILES, NOTHING} or size > MOST_PARTS:
        return None
    raw = b"" if mode == NOTHING else await git.run("cat-file", "blob", blob, git_dir=place.orders)
    try:
        text = raw.decode()
        if isinstance(parts, re.Pattern):
            return _lines(text, parts)
        said = _read(path, text)
        return {part: _part(said, part.removesuffix("+")) for part in parts}
    except (ValueError, RecursionError, ET.ParseError):
        return None


def _read(path: str, text: str) -> Any:
    if path.endswith(".toml"):
        return tomllib.loads(text)
    return _pom(text) if path.endswith(".xml") else json.loads(bare(path, text) or "{}")


def _pom(text: str) -> dict[str, Any]:
    """What a pom.xml says at its top, without spaces and comments."""
    if re.search(r"<!(?!--)", text):
        raise ValueError("a pom has no entities of its own")
    said: dict[str, Any] = {}
    for one in ET.fromstring(text) if text else ():  # noqa: S314 -- small, and without entities
        name, *inner = _plain(one)
        said.setdefault(name, []).extend(inner)
    said["steering"] = [one for one in said.get("dependencies", []) if re.search(harness.STEERING_DEPENDENCY, str(one))]
    return said


def _plain(element: ET.Element) -> list[Any]:
    return [element.tag.rpartition("}")[2], (element.text or "").strip(), *map(_plain, element)]


def _lines(text: str, ordinary: re.Pattern[str]) -> dict[str, Any]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    found = [(line, ordinary.fullmatch(line)) for line in lines]
    growing = [line for line, match in found if match and match.groupdict().get("grows")]
    return {"rest": [line for line, match in found if not match], "lines+": growing}


def bare(path: str, text: str) -> str:
    """JSON without the comments and last commas that some programs allow in it."""
    if path.endswith(("package.json", "composer.json")):
        return text
    kept = r'("(?:\\[\s\S]|[^"\\])*(?:"|\\?\Z))'
    text = re.sub(kept + r"|//[^\n]*|/\*(?:[\s\S]*?\*/|[\s\S]*)", lambda found: found[1] or " ", text)
    return re.sub(kept + r"|,(?=\s*[}\]])", lambda found: found[1] or "", text)


def _part(said: Any, part: str) -> Any:
    for name in part.split("."):
        said = said.get(name) if isinstance(said, Mapping) else None
    return said


async def file_condition(place: Place, commit: str, check: Mapping[str, Any]) -> Finding:
    """Judge a file check."""
    path, text = str(check["path"]), check.get("contains")
    mode, size, blob = await _entry(place, commit, path)
    if check.get("absent"):
        there = mode != NOTHING
        return Finding(Verdict.FAILED, f"{path} is there") if there else Finding(Verdict.PASSED)
    if mode == NOTHING:
        return Finding(Verdict.FAILED, f"the commit has no {path}")
    if text is None:
        return Finding(Verdict.PASSED)
    if mode not in FILES:
        what = "a symbolic link, which is not followed" if mode == SYMLINK else "no file"
        return Finding(Verdict.FAILED, f"{path} is {what}")
    if size > MOST_BYTES:
        return Finding(Verdict.ERROR, f"{path} has {size} bytes; at most {MOST_BYTES} are searched")
    found = text.encode() in await git.run("cat-file", "blob", blob, git_dir=place.orders)
    return Finding(Verdict.PASSED) if found else Finding(Verdict.FAILED, f"{path} does not contain {text[:100]!r}")


async def has_file(place: Place, commit: str, path: str) -> bool:
    """Whether a commit has something at a path."""
    return (await _entry(place, commit, path))[0] != NOTHING


async def _entry(place: Place, commit: str, path: str) -> tuple[str, int, str]:
    """(mode, size, hash) of what lies at a path; NOTHING as mode when nothing does."""
    said = await git.run("ls-tree", "-z", "-l", commit, "--", path, git_dir=place.orders)
    first = said.split(b"\0")[0].decode(errors="replace")
    if not first:
        return NOTHING, 0, ""
    mode, _, blob, size = first.partition("\t")[0].split()
    return mode, int(size) if size.isdigit() else 0, blob
