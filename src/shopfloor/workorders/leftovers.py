"""What a work tree holds that no commit of ours does: found by comparing, packed into one archive, read back from it."""

import functools
import io
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import orjson

from shopfloor.kit import trees
from shopfloor.kit.trees import Entry, Survey

Blob = tuple[str, str]
LINK, FOLDER_OF_GIT = "120000", b".git"
FILES, GIT, SPOOL, HOME = "files", "git", "spool", "home"
"""The folders of the archives."""
MANIFEST = "manifest.json"
MOST_LISTED = 1000
MOST_MANIFEST = 64 << 20


@dataclass(frozen=True)
class Ground:
    """The commit that a work tree is compared with. An empty one has no files: everything is kept."""

    tip: str = ""
    base: str = ""
    files: dict[bytes, Blob] = field(default_factory=dict)
    other: dict[bytes, Blob | None] = field(default_factory=dict)
    """What the base has otherwise."""

    @property
    def hash(self) -> str:
        """The hash that its objects are named by."""
        return "sha256" if len(self.tip) == 64 else "sha1"

    @functools.cached_property
    def folders(self) -> set[bytes]:
        """Every folder the commit has something in."""
        return trees.folders(self.files)


@dataclass
class Left:
    """What differs."""

    store: list[Entry] = field(default_factory=list)
    gone: list[bytes] = field(default_factory=list)
    back: dict[bytes, Blob] = field(default_factory=dict)
    """Files that stand as in the base, not as in the tip."""
    out: list[str] = field(default_factory=list)
    """What is left out, by policy or because it cannot be taken."""

    @property
    def size(self) -> int:
        """Bytes to keep."""
        return sum(entry.size for entry in self.store)

    def __bool__(self) -> bool:
        return bool(self.store or self.gone or self.back or self.out)


def compare(found: Survey, ground: Ground, *, layered: bool) -> Left:
    """What of a surveyed work tree the commit does not have. `layered`: only what differs from the base was surveyed. Blocks."""
    left = Left()
    taken = {entry.path for entry in found.entries if entry.kind in {"file", "link"}}
    files = {entry.path for entry in found.files()}
    busy = trees.folders(entry.path for entry in found.entries)
    for entry in found.entries:
        if entry.kind == "folder":
            if entry.path not in busy and entry.path not in ground.folders:
                left.store.append(entry)
        elif (entry.kind == "link" or entry.path in files) and not _same(found.root, entry, ground):
            left.store.append(entry)
    hidden = _hider(found.entries) if layered else lambda _path: True
    for path in ground.files.keys() - taken:
        if hidden(path):
            if ground.files[path][0] != "160000":
                left.gone.append(path)
        elif path in ground.other:
            _stands_as_in_base(left, path, ground.other[path])
    if layered:
        for path in ground.other.keys() - ground.files.keys() - taken:
            if (blob := ground.other[path]) and not hidden(path):
                left.back[path] = blob
    left.gone.sort()
    left.out = found.told()
    return left


def _stands_as_in_base(left: Left, path: bytes, blob: Blob | None) -> None:
    if blob is None:
        left.gone.append(path)
    else:
        left.back[path] = blob


def _same(root: Path, entry: Entry, ground: Ground) -> bool:
    mode, blob = ground.files.get(entry.path, ("", ""))
    if entry.kind == "link":
        return mode == LINK and trees.blob_id(root, entry, ground.hash) == blob
    executable = "100755" if entry.mode & 0o100 else "100644"
    return mode == executable and trees.blob_id(root, entry, ground.hash) == blob


def _hider(entries: Iterable[Entry]) -> Callable[[bytes], bool]:
    """Whether an overlay's upper layer hides a path of the lower one that it does not have itself."""
    walls = {entry.path for entry in entries if entry.kind != "folder" or entry.opaque}
    folders = {entry.path for entry in entries if entry.kind == "folder"}
    known: dict[bytes, bool] = {b"": False}

    def walled(path: bytes) -> bool:
        if path not in known:
            known[path] = path in walls or walled(path.rpartition(b"/")[0])
        return known[path]

    return lambda path: path in folders or walled(path)


def within(left: Left, most: int) -> Left:
    """Leave out the largest files until the rest fits; what is left out is listed."""
    room = most
    kept: list[Entry] = []
    cut: list[Entry] = []
    for entry in sorted(left.store, key=lambda entry: entry.size):
        room -= entry.size
        (kept if room >= 0 else cut).append(entry)
    for entry in cut[:MOST_LISTED]:
        left.out.append(f"{entry.shown}: {entry.size} bytes are more than the {most} that one pin may hold")
    if len(cut) > MOST_LISTED:
        left.out.append(f"and {len(cut) - MOST_LISTED} more files for the same reason")
    left.store = sorted(kept, key=lambda entry: entry.path)
    return left


def pack(place: Path, parts: Iterable[tuple[str, Path, Iterable[Entry]]], facts: dict[str, Any]) -> list[str]:
    """Write the archive: `facts`, then folders of what was surveyed; answers what could not be read. Blocks."""
    with trees.Tarball(place) as archive:
        archive.add_bytes(MANIFEST, orjson.dumps(_plain(facts), option=orjson.OPT_SORT_KEYS))
        for below, root, entries in parts:
            archive.add(root, entries, below)
    return archive.notes


def _plain(value: Any) -> Any:
    """The same without bytes: paths as text that is not UTF-8 become their hexadecimal form."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"hex": value.hex()}
    if isinstance(value, dict):
        return (
            [[_plain(key), _plain(item)] for key, item in value.items()]
            if _by_path(value)
            else {key: _plain(item) for key, item in value.items()}
        )
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _by_path(value: dict[Any, Any]) -> bool:
    return any(isinstance(key, bytes) for key in value)


def path_of(value: Any) -> bytes:
    """A path as the manifest holds it."""
    return bytes.fromhex(value["hex"]) if isinstance(value, dict) else os.fsencode(value)


@dataclass(frozen=True)
class Member:
    """A file or link in an archive."""

    path: bytes
    mode: str
    size: int
    content: IO[bytes]


class Archive:
    """An archive read back, in one pass for each question."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def _open(self) -> tarfile.TarFile:
        return tarfile.open(self._place, "r:gz", encoding="utf-8", errors="surrogateescape")

    def facts(self) -> dict[str, Any]:
        """What was written down beside the files."""
        with self._open() as archive:
            first = archive.next()
            told = archive.extractfile(first) if first and first.name == MANIFEST else None
            return cast("dict[str, Any]", orjson.loads(told.read(MOST_MANIFEST))) if told else {}

    def members(self, below: str = FILES) -> Iterator[Member]:
        """The files and links of one folder, as git would list them."""
        with self._open() as archive:
            for info in archive:
                path = os.fsencode(info.name)
                if not path.startswith(f"{below}/".encode()):
                    continue
                if info.issym():
                    target = os.fsencode(info.linkname)
                    yield Member(path[len(below) + 1 :], LINK, len(target), io.BytesIO(target))
                elif info.isfile() and (content := archive.extractfile(info)):
                    mode = "100755" if info.mode & 0o100 else "100644"
                    yield Member(path[len(below) + 1 :], mode, info.size, content)
