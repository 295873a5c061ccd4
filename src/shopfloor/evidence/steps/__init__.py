"""The long parts of a run of checks, one file each; every one may be repeated after a crash without doing harm."""

from dataclasses import dataclass

from shopfloor.forges.service import Repositories
from shopfloor.kit.blobs import BlobStore
from shopfloor.kit.config import Settings
from shopfloor.kit.db import Database
from shopfloor.sandboxes.service import Sandboxes


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What checks are made with."""

    settings: Settings
    database: Database
    sandboxes: Sandboxes
    repositories: Repositories
    blobs: BlobStore
    engine_id: str
