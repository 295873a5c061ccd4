"""What one process's gateway works with."""

import asyncio
from dataclasses import dataclass, field

import httpx

from shopfloor.gateway import accounts
from shopfloor.gateway.accounts import Account
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


@dataclass(frozen=True)
class Pause:
    """What was last seen of an account's pause, by this process's clock."""

    seen_at: float
    until: float
    reason: str


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """The gateway of one process."""

    settings: Settings
    database: Database
    background: Background
    host_id: str
    http: httpx.AsyncClient = field(default_factory=client)
    accounts: dict[str, Account] = field(default_factory=dict)
    """Those that were used, as the settings say."""
    granted: dict[str, ModelGrant] = field(default_factory=dict)
    """Sandbox id -> its grant, which never changes."""
    pauses: dict[str, Pause] = field(default_factory=dict)
    """Account -> its pause as it was a moment ago; forgotten when this process changes it."""
    ended: asyncio.Condition = field(default_factory=asyncio.Condition)
    """Told when a call has ended: a budget may have room again."""

    def account(self, name: str) -> Account:
        """The account of that name. Raises UnknownAccount or BadAccount."""
        if name not in self.accounts:
            self.accounts[name] = accounts.account(self.settings, name)
        return self.accounts[name]
