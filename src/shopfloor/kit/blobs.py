"""Large outputs as files under their content hash. Rows hold the hash; a blob never changes."""

import asyncio
import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from shopfloor.kit.errors import NotFound, TooLarge

FORGOTTEN_SECONDS = 3600.0
"""An upload that has not grown for so long has lost its process."""


class BlobNotFound(NotFound):
    """There is no blob with that hash."""


class BlobTooLarge(TooLarge):
    """The upload is larger than allowed."""


class BlobStore:
    """Content-addressed files below one folder, fanned out by the first two hex digits."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, sha256: str) -> Path:
        """Where the blob lies; raises BlobNotFound when it does not exist."""
        found = self._place(sha256)
        if not found.exists():
            raise BlobNotFound(f"there is no blob {sha256}")
        return found

    def sweep(self) -> None:
        """Remove what killed processes had begun to take in."""
        for left in self.root.glob(".incoming-*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > FORGOTTEN_SECONDS:
                    left.unlink()

    def has(self, sha256: str) -> bool:
        """Whether the blob exists here."""
        return self._place(sha256).exists()

    async def put(self, chunks: AsyncIterator[bytes], *, limit: int) -> tuple[str, int]:
        """Store a stream durably; answers (sha256 hex, size in bytes). Raises BlobTooLarge beyond `limit` bytes."""
        self.root.mkdir(parents=True, exist_ok=True)
        digest, size = hashlib.sha256(), 0
        handle, name = tempfile.mkstemp(prefix=".incoming-", dir=self.root)
        try:
            with os.fdopen(handle, "wb") as file:
                async for chunk in chunks:
                    size += len(chunk)
                    if size > limit:
                        raise BlobTooLarge(f"the upload is larger than {limit} bytes")
                    digest.update(chunk)
                    file.write(chunk)
                file.flush()
                await asyncio.to_thread(os.fsync, file.fileno())
            await asyncio.to_thread(self._keep, Path(name), digest.hexdigest())
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        return digest.hexdigest(), size

    @contextlib.asynccontextmanager
    async def draft(self) -> AsyncIterator[Path]:
        """A place beside the blobs to write a file at that `keep` takes in; what is not taken is removed."""
        self.root.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".incoming-", dir=self.root)
        os.close(handle)
        try:
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)

    async def keep(self, draft: Path) -> tuple[str, int]:
        """Take in a finished file of ours, durably; answers (sha256 hex, size in bytes)."""
        return await asyncio.to_thread(self._take_in, draft)

    def _take_in(self, draft: Path) -> tuple[str, int]:
        with draft.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
            size = os.fstat(file.fileno()).st_size
        self._keep(draft, sha256)
        return sha256, size

    def remove(self, sha256: str) -> None:
        """Let a blob go that nothing names any more."""
        self._place(sha256).unlink(missing_ok=True)

    def _place(self, sha256: str) -> Path:
        if len(sha256) != 64 or not all(c in "0123456789abcdef" for c in sha256):
            raise BlobNotFound(f"{sha256!r} is not a sha256")
        return self.root / sha256[:2] / sha256[2:]

    def _keep(self, incoming: Path, sha256: str) -> None:
        place = self._place(sha256)
        place.parent.mkdir(exist_ok=True)
        incoming.rename(place)
        folder = os.open(place.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
