"""Sandboxes: reserved under the host's cap, created, watched, ended, reaped. Sole writer of the table."""

import asyncio
import contextlib
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, cast
from weakref import WeakValueDictionary

import sqlalchemy as sa

from shopfloor.auth import service as auth
from shopfloor.events import log as events
from shopfloor.events.catalog.sandboxes import EgressDenied, SandboxHeartbeatMissed, SandboxStateChanged, WorkNotPinned
from shopfloor.kit import ids, log, plugins
from shopfloor.kit.config import Settings
from shopfloor.kit.db import AWAY, Database, Session, db_time
from shopfloor.kit.errors import Conflict, Misconfigured, Unavailable
from shopfloor.sandboxes import queries
from shopfloor.sandboxes.models import SandboxRow
from shopfloor.sandboxes.port import Adapter, Capabilities, Finding, Life, SandboxInfo, SandboxSpec
from shopfloor.sandboxes.rules import LIFE, LIVE, SandboxState, verdict

logger = log.get(__name__)

ADAPTERS = "shopfloor.sandboxes.adapters"
COMING = ("e2b", "dagger")
"""Sandbox types the sources name that have no adapter yet (AWM-03)."""


PLACES_LOCK = 0x5F0F
"""PostgreSQL advisory lock, held while places are counted and taken."""


class CapacityExhausted(Conflict):
    """Every sandbox place of this host is taken."""

    hint = "Wait for one to end, delete one, or raise max_sandboxes."


class NotPinned(Unavailable):
    """What the sandbox holds could not be brought to safety, so it was not removed."""

    hint = "It is tried again. Free disk space, or see the server's log; 'shopfloor explain' tells the newest reason."


class BadSandboxSettings(Misconfigured):
    """The settings of a sandbox adapter are not usable."""


class Keep(Protocol):
    """Whoever brings to safety what a stopped sandbox holds. Idempotent; what it raises keeps the sandbox from being removed."""

    async def __call__(self, sandbox_id: str, sandbox_type: str, labels: Mapping[str, str], reason: str) -> None:
        """Return once everything worth keeping is durable elsewhere."""


class Sandboxes:
    """The sandboxes of one host."""

    def __init__(self, settings: Settings, database: Database, host_id: str) -> None:
        self.settings = settings
        self.database = database
        self.host_id = host_id
        self.root = settings.data_dir / "sandboxes"
        self._adapters: dict[str, Adapter] = {}
        self.keep: Keep | None = None
        """Asked before anything is removed."""
        self.promised = 0
        """Places that the next to become free are kept for, as orders without end would let nothing else have one."""
        self._removing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def adapter(self, sandbox_type: str) -> Adapter:
        """The adapter of that name, set up with its part of the configuration."""
        if sandbox_type not in self._adapters:
            if sandbox_type in COMING:
                raise plugins.UnknownAdapter(
                    f"sandbox type {sandbox_type!r} is not available yet",
                    hint=f"Available: {', '.join(plugins.names(ADAPTERS))}.",
                )
            module = plugins.load(ADAPTERS, sandbox_type)
            try:
                config = module.Config(**self.settings.sandboxes.get(sandbox_type, {}))
            except ValueError as error:
                raise BadSandboxSettings(
                    f"[sandboxes.{sandbox_type}]: {error}", hint="Correct that table in shopfloor.toml."
                ) from error
            self._adapters[sandbox_type] = cast("Adapter", module.create(self.root / sandbox_type, config))
        return self._adapters[sandbox_type]

    def names(self) -> list[str]:
        """The sandbox types that exist here."""
        return plugins.names(ADAPTERS)

    async def has_place(self, session: Session, *, promised: bool = False) -> bool:
        """Whether this host may run one more sandbox. With `promised`: for whom a place is kept free."""
        most = self.settings.max_sandboxes - (0 if promised else self.promised)
        return await queries.live_count(session, self.host_id) < most

    async def lock_places(self, session: Session) -> None:
        """Count and take places one transaction after the other; SQLite has one writer anyway."""
        if not self.database.sqlite:
            await session.execute(sa.select(sa.func.pg_advisory_xact_lock(PLACES_LOCK)))

    async def reserve(
        self, session: Session, sandbox_id: str, sandbox_type: str, *, promised: bool = False, **columns: Any
    ) -> SandboxRow:
        """Take a place for a sandbox to come; raises CapacityExhausted."""
        await self.lock_places(session)
        if not await self.has_place(session, promised=promised):
            raise CapacityExhausted(f"all {self.settings.max_sandboxes} sandboxes of this host are taken")
        row = SandboxRow(
            sandbox_id=sandbox_id,
            sandbox_type=sandbox_type,
            state=SandboxState.PENDING,
            host_id=self.host_id,
            missed_heartbeats=0,
            reason="",
            capabilities={},
            **columns,
        )
        session.add(row)
        await session.flush()
        await self._tell(session, row, "", SandboxState.PENDING, "")
        return row

    async def begin(self, session: Session, sandbox_id: str) -> None:
        """Say that a reserved sandbox is being created."""
        row = await queries.get(session, sandbox_id)
        if row.state == SandboxState.PENDING:
            await self._move(session, row, SandboxState.CREATING)

    async def start(self, sandbox_type: str, spec: SandboxSpec) -> None:
        """Create and start a sandbox that was begun, or re-attach to it. Raises what the adapter raises; it may be tried again."""
        await self.adapter(sandbox_type).create(spec)

    async def started(self, session: Session, sandbox_id: str, capabilities: Capabilities) -> None:
        """Say that a sandbox that was begun runs now."""
        row = await queries.get(session, sandbox_id)
        if row.state == SandboxState.CREATING:
            row.capabilities = asdict(capabilities)
            row.started_at = cast("Any", db_time())
            await self._move(session, row, SandboxState.RUNNING)

    async def move(self, sandbox_id: str, to: SandboxState, *, reason: str = "") -> bool:
        """Move the sandbox on in its life if that is allowed from where it is; answers whether it was."""
        async with self.database.transaction() as session:
            return await self.moved(session, sandbox_id, to, reason=reason)

    async def moved(self, session: Session, sandbox_id: str, to: SandboxState, *, reason: str = "") -> bool:
        """The same within a transaction."""
        row = await queries.find(session, sandbox_id)
        if row is None or not LIFE.allows(SandboxState(row.state), to):
            return False
        await self._move(session, row, to, reason)
        return True

    async def info(self, row: SandboxRow) -> SandboxInfo | None:
        """What the operating system knows of the sandbox."""
        return await self.adapter(row.sandbox_type).get(row.sandbox_id)

    async def note_silence(self, sandbox_id: str, missed: int) -> None:
        """Announce a new rung of the heartbeat ladder, once; hearing from the sandbox again resets it."""
        async with self.database.transaction() as session:
            row = await queries.get(session, sandbox_id)
            if missed != row.missed_heartbeats:
                row.missed_heartbeats = missed
                if missed:
                    fact = SandboxHeartbeatMissed(sandbox_id=sandbox_id, missed=missed, verdict=verdict(missed))
                    await events.append(session, fact, work_order_id=row.work_order_id)

    async def tell_denied(self, seen: SandboxRow) -> None:
        """Announce what the sandbox's gate has refused since `seen` was read; each refusal once."""
        found = await self.adapter(seen.sandbox_type).denied(seen.sandbox_id, seen.denied_told)
        if not found:
            return
        async with self.database.transaction() as session:
            row = await queries.get(session, seen.sandbox_id, locked=True)
            for one in found[row.denied_told - seen.denied_told :]:
                row.denied_told += 1
                fact = EgressDenied(sandbox_id=row.sandbox_id, method=one.method, target=one.target, reason=one.reason)
                await events.append(session, fact, work_order_id=row.work_order_id)

    async def terminate(self, sandbox_id: str, *, reason: str = "", grace_seconds: float = 10) -> tuple[int, bool]:
        """End the sandbox and remove it; its token is worth nothing from the first moment.

        Answers (milliseconds the graceful stop took, whether it had to be forced). Idempotent.
        """
        async with self.database.transaction() as session:
            row = await queries.get(session, sandbox_id)
        if row.state == SandboxState.TERMINATED:
            return 0, False
        adapter, began, forced = self.adapter(row.sandbox_type), asyncio.get_running_loop().time(), False
        if grace_seconds:
            try:
                await adapter.stop(sandbox_id, grace_seconds=grace_seconds)
            except Exception as error:
                forced = True
                logger.warning("sandbox_stop_failed", sandbox_id=sandbox_id, error=str(error))
        took = int((asyncio.get_running_loop().time() - began) * 1000)
        found = await adapter.get(sandbox_id)
        async with self.database.transaction() as session:
            await auth.revoke(session, sandbox_id)
            if found and found.exit_code is not None:
                (await queries.get(session, sandbox_id)).exit_code = found.exit_code
        await self.remove(sandbox_id, row.sandbox_type, reason=reason)
        await self.move(sandbox_id, SandboxState.TERMINATED, reason=reason)
        logger.info(
            "sandbox_cleanup_completed", agent_work_order_id=row.work_order_id, sandbox_id=sandbox_id, reason=reason
        )
        return took, forced or took >= grace_seconds * 1000 > 0

    async def remove(self, sandbox_id: str, sandbox_type: str, *, reason: str) -> None:
        """Stop a sandbox, bring to safety what it holds, then remove it, in this order. Raises NotPinned and leaves it. Idempotent."""
        adapter = self.adapter(sandbox_type)
        async with self._removing.setdefault(sandbox_id, asyncio.Lock()):
            found = await adapter.get(sandbox_id)
            await adapter.halt(sandbox_id)
            async with self.database.reading() as session:
                row = await queries.find(session, sandbox_id)
            if row:
                await self.tell_denied(row)  # only now nothing more is refused
            if self.keep:
                try:
                    await self.keep(sandbox_id, sandbox_type, found.labels if found else {}, reason)
                except Exception as error:
                    await self._refuse(sandbox_id, error)
                    raise NotPinned(
                        f"{sandbox_id} was not removed, as what it holds could not be pinned: {error}"
                    ) from error
            await adapter.destroy(sandbox_id)

    async def _refuse(self, sandbox_id: str, error: Exception) -> None:
        """Let the row say why its sandbox is still there; told once for each reason."""
        why = f"not removed, its work could not be pinned (tried again): {type(error).__name__}: {error}"[:1000]
        logger.warning("sandbox_not_removed", sandbox_id=sandbox_id, reason=why, exc_info=error)
        with contextlib.suppress(*AWAY):
            async with self.database.transaction() as session:
                row = await queries.find(session, sandbox_id)
                if row and row.reason != why:
                    row.reason = why
                    fact = WorkNotPinned(sandbox_id=sandbox_id, reason=why)
                    await events.append(session, fact, work_order_id=row.work_order_id)

    async def settle(self) -> None:
        """End the rows of sandboxes without a work order whose program, lease or keeper has ended: nobody else watches them."""
        async with self.database.reading() as session:
            rows = await queries.unattended(session, self.host_id)
        for row in rows:
            try:
                await self._settle(row)
            except Exception as error:  # the others must not wait for this one
                logger.warning("sandbox_settle_failed", sandbox_id=row.sandbox_id, error=str(error))

    async def _settle(self, row: SandboxRow) -> None:
        found = await self.info(row)
        if row.state != SandboxState.RUNNING and found and found.life == Life.RUNNING:
            async with self.database.transaction() as session:
                await self.started(session, row.sandbox_id, await self.adapter(row.sandbox_type).capabilities())
        elif found is None or found.life != Life.RUNNING:
            ended = f"its program ended with exit code {found.exit_code}" if found else "it is gone"
            reason = (found.reason if found else "") or ended
            await self.terminate(row.sandbox_id, reason=reason, grace_seconds=0)

    async def reap(self) -> list[str]:
        """Remove every sandbox found on this host that no row wants alive; answers their ids."""
        gone: list[str] = []
        for name in self.names():
            if not (self.root / name).exists():
                continue
            for found in await self.adapter(name).list():
                async with self.database.reading() as session:
                    row = await queries.find(session, found.sandbox_id)
                if row is not None and row.state in LIVE:
                    continue
                try:
                    await self.remove(found.sandbox_id, name, reason=row.reason if row else "no order knows it")
                except Exception as error:  # the others must not wait for this one
                    logger.warning("sandbox_reap_failed", sandbox_id=found.sandbox_id, error=str(error))
                else:
                    gone.append(found.sandbox_id)
        if gone:
            logger.info("sandboxes_reaped", sandbox_ids=gone)
        return gone

    async def doctor(self) -> list[Finding]:
        """Try every adapter for real."""
        findings: list[Finding] = []
        for name in self.names():
            findings += await self.adapter(name).doctor()
        return findings

    async def _move(self, session: Session, row: SandboxRow, to: SandboxState, reason: str = "") -> None:
        before = SandboxState(row.state)
        row.state = LIFE.step(before, to)
        row.reason = reason or row.reason
        if to not in LIVE and row.ended_at is None:
            row.ended_at = cast("Any", db_time())
        await self._tell(session, row, before, to, reason)

    async def _tell(self, session: Session, row: SandboxRow, before: str, after: str, reason: str) -> None:
        fact = SandboxStateChanged(sandbox_id=row.sandbox_id, before=before, after=after, reason=reason)
        await events.append(session, fact, work_order_id=row.work_order_id)
        name = "sandbox_created" if after == SandboxState.RUNNING else "sandbox_state_changed"
        logger.info(
            name,
            agent_work_order_id=row.work_order_id,
            sandbox_id=row.sandbox_id,
            before=before,
            after=after,
            reason=reason,
        )


def host_id(data_dir: Path) -> str:
    """This host's id: made once per data directory."""
    place = data_dir / "host-id"
    if not place.exists() or not place.read_text().strip():
        part = data_dir / f".host-id-{os.getpid()}"
        part.write_text(ids.new("host"))
        try:
            os.link(part, place)  # whoever is first names the host for all
        except FileExistsError:
            if not place.read_text().strip():  # a crash left it empty
                part.replace(place)
        finally:
            part.unlink(missing_ok=True)
    return place.read_text().strip()
