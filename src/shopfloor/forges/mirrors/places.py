"""The folder of one repository: where things lie, how they are locked, how something new appears whole or not at all."""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from shopfloor.forges.rules import Address
from shopfloor.kit import git
from shopfloor.kit.errors import Unavailable

LOCK_SECONDS = 900.0
FOLDER = re.compile(r"[0-9a-f]{32}")


class RepositoryBusy(Unavailable):
    """Other work on this repository takes very long."""

    hint = "Try again later; a large fetch may be running."


class Place:
    """What this host keeps of one repository."""

    def __init__(self, root: Path, address: Address) -> None:
        self.address = address
        self.folder = root / hashlib.sha256(address.url.encode()).hexdigest()[:32]
        self.mirror = self.folder / "mirror.git"
        """What the origin has: branches and tags."""
        self.orders = self.folder / "orders.git"
        """What sandboxes handed out, under refs/shopfloor/; borrows the mirror's objects and lends none, so that no order's work reaches another sandbox."""
        self.goldens = self.folder / "goldens"
        self.pins = self.folder / "pins"
        self.temporary = self.folder / "tmp"
        self.seen = self.folder / "seen.json"
        """The origin's references as of the last complete fetch."""
        self._turns: dict[str, asyncio.Lock] = {}

    def make(self) -> None:
        """Create the folder; sandboxes' users may walk through it but not look around."""
        for folder in (self.folder.parent, self.folder, self.goldens):
            folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        for folder in (self.pins, self.temporary):
            folder.mkdir(mode=0o700, exist_ok=True)
        if not (label := self.folder / "url").exists():
            write(label, self.address.url.encode())

    @contextlib.asynccontextmanager
    async def locked(self, name: str = "mirror", *, patience: float = LOCK_SECONDS) -> AsyncIterator[int]:
        """Hold one of this repository's locks, against tasks and processes; answers a file descriptor that holds it, for git to inherit.

        Raises RepositoryBusy after `patience` seconds; with 0 it is tried once.
        """
        self.make()
        until = time.monotonic() + patience
        turn = self._turns.setdefault(name, asyncio.Lock())
        await _turn(turn, patience)
        file = -1
        try:
            file = os.open(self._lock(name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            await _acquire(file, until)
            yield file
        finally:
            if file >= 0:
                os.close(file)
            turn.release()

    def forget(self, name: str) -> None:
        """Remove a lock that nobody needs any more. Who still waits for it must find nothing left to do: it no longer keeps anyone out."""
        self._turns.pop(name, None)
        self._lock(name).unlink(missing_ok=True)

    def _lock(self, name: str) -> Path:
        return self.folder / f"{name}.lock"

    @contextlib.asynccontextmanager
    async def scratch(self) -> AsyncIterator[Path]:
        """A folder of one's own, removed afterwards; what a killed process leaves is swept."""
        self.make()
        while True:
            folder = Path(tempfile.mkdtemp(dir=self.temporary))
            file = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(file, fcntl.LOCK_EX)
            if folder.exists():
                break
            os.close(file)  # a sweep was faster
        try:
            yield folder
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            os.close(file)

    def sweep(self) -> None:
        """Remove what killed processes left in the temporary folder. Blocks."""
        for folder in self.temporary.iterdir() if self.temporary.exists() else ():
            try:
                file = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            os.close(file)


async def _turn(turn: asyncio.Lock, patience: float) -> None:
    """Queue among the tasks of this process."""
    try:
        async with asyncio.timeout(patience):
            await turn.acquire()
    except TimeoutError:
        raise RepositoryBusy from None


async def _acquire(file: int, until: float) -> None:
    """Queue among processes, until a moment of the monotonic clock."""
    pause = 0.002
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise RepositoryBusy from None
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.1)
        else:
            return


def folders(root: Path) -> list[Path]:
    """The folders of all repositories that this host keeps something of. Blocks."""
    return sorted(path for path in root.glob("*") if FOLDER.fullmatch(path.name) and path.is_dir())


def label(folder: Path) -> str:
    """The address of the repository that a folder belongs to; raises FileNotFoundError when a killed process did not come to write it."""
    return (folder / "url").read_text()


def write(path: Path, data: bytes) -> None:
    """Write a small file, whole or not at all, durably."""
    handle, part = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    Path(part).rename(path)
    sync_folder(path.parent)


def publish(made: Path, place: Path) -> None:
    """Let a finished folder appear under its name, durably."""
    made.rename(place)
    sync_folder(place.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


async def init(folder: Path, commit: str = "", *, borrow: str = "") -> None:
    """Make an empty bare repository fit for commits like `commit`; it may borrow objects from a folder (relative to its own objects)."""
    kind = "sha256" if len(commit) == 64 else "sha1"
    await git.run("init", "-q", "--bare", "--template=", f"--object-format={kind}", "-b", "main", str(folder))
    if borrow:
        (folder / "objects" / "info").mkdir(exist_ok=True)
        (folder / "objects" / "info" / "alternates").write_text(f"{borrow}\n")
