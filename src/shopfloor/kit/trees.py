"""Reading a folder that an agent could write: nothing is followed, opened by chance, waited for or believed.

Every name is opened below the handle of its own folder and never through a link, so no byte from elsewhere can be read.
"""

import contextlib
import gzip
import hashlib
import io
import os
import stat
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

LOOK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
DEEPEST = 200
MOST_NOTES = 200
CHUNK = 1 << 20
OPAQUE = ("user.overlay.opaque", "trusted.overlay.opaque")
KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


@dataclass(frozen=True, slots=True)
class Entry:
    """Something found, as it was when it was looked at."""

    path: bytes
    """Below the root, without a slash at its beginning."""
    kind: str
    """file, link, folder, or gone (an overlay's whiteout)."""
    mode: int = 0
    size: int = 0
    mtime: int = 0
    target: bytes = b""
    identity: tuple[int, int] = (0, 0)
    names: int = 1
    """How many names the file has, wherever."""
    opaque: bool = False
    """An overlay's folder that hides everything of its name below it."""

    @property
    def shown(self) -> str:
        """The path as text that can be written down anywhere."""
        return shown(self.path)


@dataclass
class Survey:
    """What a folder holds, and what of it cannot be taken."""

    root: Path
    entries: list[Entry] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What was found and is not in `entries`, and why."""
    unsaid: int = 0
    """Notes beyond the most that are kept."""
    most: int = 1_000_000
    skip: bytes = b""
    leave: Callable[[bytes], bool] | None = None

    def note(self, text: str) -> None:
        """Write down what cannot be taken."""
        if len(self.notes) < MOST_NOTES:
            self.notes.append(text)
        else:
            self.unsaid += 1

    def told(self) -> list[str]:
        """All notes, with a line for those that are too many."""
        return [*self.notes, f"and {self.unsaid} more of this kind"] if self.unsaid else list(self.notes)

    def files(self) -> Iterator[Entry]:
        """The files whose every name is in this tree: the bytes of any other belong to somebody else, too."""
        inside = Counter(entry.identity for entry in self.entries if entry.kind == "file")
        for entry in self.entries:
            if entry.kind == "file":
                if entry.names > inside[entry.identity]:
                    self.note(f"{entry.shown}: has another name outside of this folder, so it is not taken")
                else:
                    yield entry


def shown(path: bytes) -> str:
    """A path as text: what is not UTF-8, and control characters, are escaped."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def survey(
    root: Path, *, most: int = 1_000_000, skip: bytes = b"", leave: Callable[[bytes], bool] | None = None
) -> Survey:
    """Look at everything below a folder, but not at the top entry `skip`, and not into folders that `leave` says yes to. Blocks.

    A root that is no folder is empty, with a note.
    """
    found = Survey(root, most=most, skip=skip, leave=leave)
    try:
        handle = os.open(root, LOOK | os.O_DIRECTORY)
    except FileNotFoundError:
        return found
    except OSError as error:
        found.note(f"the folder itself cannot be read: {error.strerror}")
        return found
    try:
        _walk(found, handle, b"", os.fstat(handle).st_dev)
    finally:
        os.close(handle)
    found.entries.sort(key=lambda entry: entry.path)
    return found


def _walk(found: Survey, handle: int, path: bytes, device: int) -> None:
    for name in os.listdir(handle):
        raw = os.fsencode(name)
        if not path and raw == found.skip:
            continue
        if len(found.entries) >= found.most:
            found.note(f"more than {found.most} names; the rest is not looked at")
            return
        here = path + b"/" + raw if path else raw
        try:
            _look(found, handle, raw, here, device)
        except OSError as error:  # it changes while it is read, or the disk is bad
            found.note(f"{shown(here)}: {error.strerror}")


def _look(found: Survey, handle: int, name: bytes, path: bytes, device: int) -> None:
    state = os.lstat(name, dir_fd=handle)
    kind = stat.S_IFMT(state.st_mode)
    if state.st_dev != device and kind in {stat.S_IFREG, stat.S_IFDIR}:
        found.note(f"{shown(path)}: lies on another file system")
    elif kind == stat.S_IFREG:
        identity = (state.st_dev, state.st_ino)
        mode, names = stat.S_IMODE(state.st_mode), state.st_nlink
        found.entries.append(Entry(path, "file", mode, state.st_size, state.st_mtime_ns, b"", identity, names))
    elif kind == stat.S_IFLNK:
        found.entries.append(Entry(path, "link", 0o777, target=os.readlink(name, dir_fd=handle)))
    elif kind == stat.S_IFCHR and state.st_rdev == 0:
        found.entries.append(Entry(path, "gone"))
    elif kind == stat.S_IFDIR:
        _enter(found, handle, name, path, state)
    else:
        found.note(f"{shown(path)}: is {KINDS.get(kind, 'of no known kind')}")


def _enter(found: Survey, handle: int, name: bytes, path: bytes, state: os.stat_result) -> None:
    if path.count(b"/") >= DEEPEST:
        found.note(f"{shown(path)}: lies deeper than {DEEPEST} folders")
        return
    if found.leave and found.leave(path):
        found.note(f"{shown(path)}: is left out by the setting retention.leave")
        return
    inner = _open(name, os.O_DIRECTORY, handle)
    try:
        mode, opaque = stat.S_IMODE(state.st_mode), any(_marked(inner, key) for key in OPAQUE)
        found.entries.append(Entry(path, "folder", mode, mtime=state.st_mtime_ns, opaque=opaque))
        _walk(found, inner, path, state.st_dev)
    finally:
        os.close(inner)


def _marked(handle: int, key: str) -> bool:
    try:
        return os.getxattr(handle, key) == b"y"
    except OSError:
        return False


def _open(name: bytes, kind: int, folder: int) -> int:
    """Open something below a folder; what its owner closed to itself is opened up, if it is ours."""
    try:
        return os.open(name, LOOK | kind, dir_fd=folder)
    except PermissionError:
        held = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC | kind, dir_fd=folder)
        try:
            if not stat.S_ISLNK(mode := os.fstat(held).st_mode):
                os.chmod(f"/proc/self/fd/{held}", stat.S_IMODE(mode) | (0o700 if kind else 0o400))
        finally:
            os.close(held)
        return os.open(name, LOOK | kind, dir_fd=folder)


@contextlib.contextmanager
def opened(root: Path, path: bytes) -> Iterator[io.FileIO]:
    """A regular file below a folder, reached through no link. Raises OSError."""
    *folders, name = path.split(b"/")
    if any(part in {b"", b".", b".."} for part in (*folders, name)):
        raise FileNotFoundError(2, "not a path below the folder")
    handle = os.open(root, LOOK | os.O_DIRECTORY)
    try:
        for part in folders:
            inner = _open(part, os.O_DIRECTORY, handle)
            os.close(handle)
            handle = inner
        if not stat.S_ISREG(os.lstat(name, dir_fd=handle).st_mode):
            raise FileNotFoundError(2, "not a file")
        inner = _open(name, 0, handle)
    finally:
        os.close(handle)
    with os.fdopen(inner, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(inner).st_mode):
            raise FileNotFoundError(2, "not a file")
        yield file


def read(root: Path, path: bytes, most: int) -> bytes:
    """The beginning of a file below a folder; empty when there is none that can be read."""
    with contextlib.suppress(OSError), opened(root, path) as file:
        return exactly(file, most)
    return b""


def exactly(file: io.FileIO, most: int) -> bytes:
    """So many bytes of a file, or all there are."""
    chunks = []
    while most > 0 and (chunk := file.read(min(most, CHUNK))):
        chunks.append(chunk)
        most -= len(chunk)
    return b"".join(chunks)


def blob_id(root: Path, entry: Entry, kind: str) -> str:
    """The name git would give a file's or a link's content, without any filter; `kind` is sha1 or sha256. Empty when it cannot be read whole."""
    if entry.kind == "link":
        return hashlib.new(kind, b"blob %d\0" % len(entry.target) + entry.target, usedforsecurity=False).hexdigest()
    digest, left = hashlib.new(kind, b"blob %d\0" % entry.size, usedforsecurity=False), entry.size
    with contextlib.suppress(OSError), opened(root, entry.path) as file:
        while left > 0 and (chunk := file.read(min(left, CHUNK))):
            digest.update(chunk)
            left -= len(chunk)
        if not left and not file.read(1):
            return digest.hexdigest()
    return ""


class Tarball:
    """A compressed archive whose bytes depend on nothing but what it holds."""

    def __init__(self, place: Path) -> None:
        self._file = place.open("wb")
        self._zip = gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=self._file, mtime=0)
        how: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape", "format": tarfile.GNU_FORMAT}
        self._tar = tarfile.open(fileobj=self._zip, mode="w", **how)  # noqa: SIM115 - closed with the archive
        self.notes: list[str] = []
        self.held = 0
        """Files, links and folders in it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tar.close()
        self._zip.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def add(self, root: Path, entries: Iterable[Entry], below: str) -> None:
        """Put what was surveyed in `root` into a folder of the archive; what cannot be read any more is noted."""
        for entry in entries:
            name = f"{below}/{os.fsdecode(entry.path)}"
            info = tarfile.TarInfo(name)
            info.mode, info.mtime = entry.mode, entry.mtime // 10**9
            if entry.kind == "file":
                self._add_file(root, entry, info)
                continue
            info.type = tarfile.SYMTYPE if entry.kind == "link" else tarfile.DIRTYPE
            info.linkname = os.fsdecode(entry.target)
            self._tar.addfile(info)
            self.held += 1

    def add_bytes(self, name: str, data: bytes) -> None:
        """Put a file of our own into the archive."""
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o644
        self._tar.addfile(info, io.BytesIO(data))

    def _add_file(self, root: Path, entry: Entry, info: tarfile.TarInfo) -> None:
        try:
            with opened(root, entry.path) as file:
                state = os.fstat(file.fileno())
                if (state.st_dev, state.st_ino) != entry.identity or state.st_nlink != entry.names:
                    self.notes.append(f"{entry.shown}: was exchanged while it was read, so it is not taken")
                    return
                info.size = entry.size
                steady = _Steady(file, entry.size)
                self._tar.addfile(info, steady)
                self.held += 1
                if steady.short or state.st_size != entry.size:
                    self.notes.append(f"{entry.shown}: changed while it was read")
        except OSError as error:
            self.notes.append(f"{entry.shown}: cannot be read: {error.strerror}")


class _Steady(io.RawIOBase):
    """A file of exactly the size that was announced, whatever happens to it meanwhile; what is missing reads as zeros."""

    def __init__(self, file: io.FileIO, size: int) -> None:
        self._file, self._left = file, size
        self.short = False

    def read(self, size: int = -1) -> bytes:
        """The next bytes, all that were asked for."""
        wanted = self._left if size < 0 else min(size, self._left)
        try:
            data = exactly(self._file, wanted)
        except OSError:
            data = b""
        self._left -= wanted
        self.short = self.short or len(data) < wanted
        return data + bytes(wanted - len(data))


def folders(paths: Iterable[bytes]) -> set[bytes]:
    """Every folder on the way to some paths."""
    found: set[bytes] = set()
    for path in paths:
        while (path := path.rpartition(b"/")[0]) and path not in found:
            found.add(path)
    return found
