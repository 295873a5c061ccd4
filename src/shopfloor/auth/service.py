"""Sandbox tokens: issue, revoke, check."""

import hashlib
import re
import time
from typing import Any, NamedTuple

import sqlalchemy as sa

from shopfloor.auth.models import SandboxToken
from shopfloor.kit import ids
from shopfloor.kit.db import Database, Session

PREFIX = "sfs"
TOKEN = re.compile(rf"{PREFIX}_[\w-]{{43}}", re.ASCII)
REMEMBERED_SECONDS = 2.0
MOST_REMEMBERED = 10_000
_CHANGED = "sandbox_tokens_changed"


class Grant(NamedTuple):
    """What a valid sandbox token says."""

    sandbox_id: str
    fencing: int


async def issue(session: Session, sandbox_id: str, fencing: int) -> str:
    """A new token for a sandbox; an earlier one of the same sandbox is void."""
    token = ids.secret(PREFIX)
    await session.execute(sa.delete(SandboxToken).where(SandboxToken.sandbox_id == sandbox_id))
    session.add(SandboxToken(sandbox_id=sandbox_id, token_hash=_hash(token), fencing=fencing, revoked=False))
    await session.flush()
    session.info[_CHANGED] = True
    return token


async def revoke(session: Session, sandbox_id: str) -> None:
    """The sandbox's token is void from the commit on (in other processes within two seconds)."""
    await session.execute(sa.update(SandboxToken).where(SandboxToken.sandbox_id == sandbox_id).values(revoked=True))
    session.info[_CHANGED] = True


class Tokens:
    """Checks tokens on the hot path: an answer is remembered for two seconds, a change in this process counts at once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[str, tuple[float, Grant | None]] = {}
        self._changes = 0
        database.on_commit.append(self._committed)

    async def check(self, token: str) -> Grant | None:
        """Whose token it is; None when it is unknown or revoked. Only good tokens are remembered: anybody can send others."""
        if not TOKEN.fullmatch(token):
            return None
        moment = time.monotonic()
        if (known := self._known.get(token)) and known[0] > moment:
            return known[1]
        changes = self._changes
        query = sa.select(SandboxToken.sandbox_id, SandboxToken.fencing).where(
            SandboxToken.token_hash == _hash(token), SandboxToken.revoked.is_(False)
        )
        async with self._database.reading() as session:
            row = (await session.execute(query)).first()
        grant = Grant(row[0], row[1]) if row else None
        if grant and changes == self._changes:  # else it may be older than the change
            if len(self._known) >= MOST_REMEMBERED:
                self._known.clear()
            self._known[token] = (moment + REMEMBERED_SECONDS, grant)
        return grant

    def _committed(self, gathered: dict[Any, Any]) -> None:
        if gathered.get(_CHANGED):
            self._changes += 1
            self._known.clear()


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
