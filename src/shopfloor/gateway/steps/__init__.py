"""What one process's gateway works with."""

import asyncio
from dataclasses import dataclass, field

import httpx

from shopfloor.gateway.models import ModelGrant
from shopfloor.kit.background import Background
from shopfloor.kit.config import Settings
from shopfloor.kit.db import Database

CONNECTIONS = 500
SILENCE_SECONDS = 900.0
"""A provider may think for so long without a word."""


def client() -> httpx.AsyncClient:
    """The way to the providers: their certificates are checked, redirections not followed, this host's proxy settings obeyed."""
    return httpx.AsyncClient(
        timeout=httpx.Timeout(SILENCE_SECONDS, connect=15, pool=60),
        limits=httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=100),
        follow_redirects=False,
    )


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """The gateway of one process."""

    settings: Settings
    database: Database
    background: Background
    host_id: str
    http: httpx.AsyncClient = field(default_factory=client)
    granted: dict[str, ModelGrant] = field(default_factory=dict)
    """Sandbox id -> its grant, which never changes."""
    ended: asyncio.Condition = field(default_factory=asyncio.Condition)
    """Told when a call has ended: a budget may have room again."""
