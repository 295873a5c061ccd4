"""Repositories as the rest of the house sees them: fetched, checked out, taken in, told about, delivered. All state is on disk."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa

from shopfloor.events import log as events
from shopfloor.events.catalog.forges import ChangeClosed, ChangeMerged, ChangeRecorded, ChangeReviewed
from shopfloor.forges import queries, rules, texts, turns
from shopfloor.forges.connections import Connections
from shopfloor.forges.mirrors import bundles, golden, mirror, places, pushing, reading
from shopfloor.forges.mirrors.bundles import Imported
from shopfloor.forges.mirrors.glance import Glance
from shopfloor.forges.mirrors.keeping import Keeping
from shopfloor.forges.mirrors.mirror import Base
from shopfloor.forges.mirrors.places import LOCK_SECONDS, Place
from shopfloor.forges.mirrors.pushing import Pushed
from shopfloor.forges.mirrors.reading import Diff, GitProgress
from shopfloor.forges.mirrors.sources import Credentials, Source, source
from shopfloor.forges.models import Change, ChangeReview
from shopfloor.forges.port import UNKNOWN, ChangeEnded, Comparison, Draft, Forge, Mergeable, Published, Refs, Verdict
from shopfloor.forges.rules import CHANGE, ChangeState, Finding
from shopfloor.kit import ids, log, plugins
from shopfloor.kit.db import Database, Session, db_time
from shopfloor.kit.errors import Conflict, Problem

logger = log.get(__name__)

PROTOCOLS = frozenset({"https", "file"})
REMEMBERED = 2048
Evidence = Sequence[tuple[str, str]]
"""What was found out about the work, as rows of a table."""


class PolicyRefused(Conflict):
    """The commits hold something that must not leave a sandbox."""

    status = 422
    hint = "Nothing was pushed. 'findings' names the paths; ask the agent to take them out and retry."


class Repositories:
    """Every repository this host works on, below one folder. Several processes may share it."""

    def __init__(
        self,
        root: Path,
        *,
        protocols: frozenset[str] = PROTOCOLS,
        credentials: Credentials | None = None,
        connections: Connections | None = None,
    ) -> None:
        self.root = root
        self.protocols = protocols
        self.credentials = credentials
        self.connections = connections or Connections({})
        self._forges: dict[str, Forge] = {}
        self._places: dict[str, Place] = {}
        self._synced: dict[str, tuple[float, Refs]] = {}
        self._glances: dict[str, Glance] = {}
        self._commands: dict[tuple[str, str], dict[str, str]] = {}
        self._progress: dict[tuple[str, str, str], GitProgress] = {}

    def place(self, url: str) -> Place:
        """The folder of a repository."""
        address = rules.address(url)
        return self._places.setdefault(address.url, Place(self.root, address))

    async def source(self, url: str, *, write: bool = False) -> Source:
        """How to reach a repository, checked."""
        address = rules.address(url)
        credential = await self.connections.credential(address, write=write)
        if credential is None and self.credentials:
            credential = await self.credentials(address)
        return await asyncio.to_thread(source, address, self.protocols, credential)

    async def look(self, url: str, *, timeout: float = 60) -> Refs:
        """What the origin has right now; nothing is stored."""
        return await mirror.look(await self.source(url), timeout=timeout)

    async def sync(self, url: str) -> Refs:
        """Bring the mirror up to date and answer what the origin has. Who waited for another's fetch that began later than the call shares it."""
        place, called = self.place(url), time.monotonic()
        async with place.locked() as lock:
            began, refs = self._synced.get(place.address.url, (0.0, Refs(None, None)))
            if began > called:
                return refs
            began = time.monotonic()
            refs = await mirror.refresh(place, await self.source(url), lock)
            self._synced[place.address.url] = (began, refs)
        return refs

    async def glance(self, url: str) -> Refs:
        """What the origin has, its commits fetched, for who only looks: no lock is taken when nothing is new. Raises OriginSilent; bound it by a timeout."""
        place = self.place(url)

        async def ask() -> Refs:
            refs = await self.look(url)
            return refs if mirror.recorded(place) == refs else await self.sync(url)

        return await self._glances.setdefault(place.address.url, Glance()).take(ask)

    async def mirror(self, url: str) -> Path:
        """The bare mirror, made if it is not there yet."""
        place = self.place(url)
        if not place.mirror.exists():
            await self.sync(url)
        return place.mirror

    async def resolve(self, url: str, base: str | None = None) -> Base:
        """The branch and commit that work starts from: the origin's default branch, or a branch, tag or hash."""
        refs = await self.sync(url)
        return await mirror.resolve(self.place(url), refs, base)

    async def golden(self, url: str, commit: str, owner: tuple[int, int] | None = None) -> Path:
        """A clean checkout of a commit on a detached HEAD, independent of the mirror; the worker makes its branch inside. Pin it before use."""
        place = self.place(url)
        path = golden.golden_path(place, commit, owner)
        if golden.warm(place, path):
            return path
        if not await mirror.has(place.orders, commit):  # which borrows what the mirror has
            await self._need(place, commit)
        return await golden.make(place, commit, owner)

    async def _need(self, place: Place, commit: str) -> None:
        """Have the origin's commit in the mirror, fetching once if need be."""
        if not await mirror.has(place.mirror, commit):
            await self.sync(place.address.url)
        if not await mirror.has(place.mirror, commit):
            raise bundles.CommitNotFound(f"{place.address.url} has no commit {commit[:64]}")

    async def pin(self, url: str, golden_checkout: Path, sandbox_id: str) -> None:
        """Keep a golden while a sandbox stands on it, also across restarts."""
        await golden.pin(self.place(url), golden_checkout, sandbox_id)

    async def unpin(self, url: str, sandbox_id: str) -> None:
        """The sandbox is gone. Idempotent."""
        await golden.unpin(self.place(url), sandbox_id)

    async def evict(self, url: str, *, keep: int = 3, unused_for: float = 600, patience: float = 900) -> list[Path]:
        """Remove the longest unused goldens that no sandbox stands on, and what killed processes left; answers the goldens removed."""
        return await golden.evict(self.place(url), keep, unused_for, patience=patience)

    async def evict_all(self, *, keep: int = 3, unused_for: float = 600) -> list[Path]:
        """`evict` for every repository that has a folder here. One that fails, or is busy for a second, is logged and keeps no other waiting."""
        gone: list[Path] = []
        for folder in await asyncio.to_thread(places.folders, self.root):
            try:
                gone += await self.evict(places.label(folder), keep=keep, unused_for=unused_for, patience=1)
            except (Problem, OSError, UnicodeError) as error:
                logger.warning("repository_eviction_failed", folder=folder.name, reason=str(error))
        return gone

    async def import_bundle(self, url: str, bundle: Path, *, order_id: str, branch: str, base_commit: str) -> Imported:
        """Take in what a sandbox handed out, after checking every object of it. Idempotent; the order's branch never goes back."""
        place = self.place(url)
        await self._need(place, base_commit)
        return await bundles.take(place, bundle, order_id=order_id, branch=branch, base_commit=base_commit)

    def keeping(self, url: str) -> Keeping:
        """What is kept of this repository's orders beside what they delivered."""
        return Keeping(self.place(url))

    async def progress(self, url: str, head: str | None, base_commit: str | None) -> GitProgress:
        """How far a branch has come; nothing, while there is no head."""
        if head is None or base_commit is None or head == base_commit:
            return GitProgress()
        place = self.place(url)
        key = (place.address.url, head, base_commit)
        if key not in self._progress:
            if len(self._progress) >= REMEMBERED:
                self._progress.clear()
            self._progress[key] = await reading.progress(place, head, base_commit)
        return self._progress[key]

    async def commands(self, url: str, commit: str) -> dict[str, str]:
        """The repository's own `.claude/commands/*.md` at a commit: name -> text."""
        place = self.place(url)
        key = (place.address.url, commit)
        if key not in self._commands:
            if len(self._commands) >= 64:
                self._commands.clear()
            self._commands[key] = await reading.commands(place, commit)
        return self._commands[key]

    async def template(self, url: str, commit: str) -> str | None:
        """The repository's own text for new changes."""
        return await reading.first_file(self.place(url), commit, texts.TEMPLATES)

    async def compare(self, url: str, base: str, head: str) -> Comparison:
        """How far two branches, tags or commits of the origin are apart (GIT-04)."""
        refs = await self.sync(url)
        ends = [(await mirror.resolve(self.place(url), refs, name)).commit for name in (base, head)]
        return await reading.compare(self.place(url), *ends)

    async def diff(self, url: str, base: str, head: str) -> Diff:
        """What `head` changed since it left `base`."""
        return await reading.diff(self.place(url), base, head)

    async def mergeable(self, url: str, base: str, head: str) -> Mergeable:
        """Whether two commits merge by themselves, and which files stand in the way."""
        return await reading.mergeable(self.place(url), base, head)

    async def contains(self, url: str, newer: str, older: str) -> bool:
        """Whether `newer` contains `older`."""
        return await reading.contains(self.place(url), newer, older)

    async def findings(self, url: str, base: str, head: str) -> list[Finding]:
        """What the policy says about the way from `base` to `head`, warnings included."""
        changes, sizes = await reading.changed(self.place(url), base, head)
        return rules.findings(changes, sizes)

    async def check_policy(self, url: str, base: str, head: str) -> list[Finding]:
        """Raise PolicyRefused when something must not leave; answers the warnings."""
        found = await self.findings(url, base, head)
        if refused := [f for f in found if f.refused]:
            named = "; ".join(f"{f.path or 'the whole'}: {f.detail}" for f in refused[:5])
            facts = [{"rule": f.rule, "path": f.path, "detail": f.detail} for f in refused[:100]]
            raise PolicyRefused(named, findings=facts)
        return found

    async def push(self, url: str, commit: str, branch: str, *, expected_old: str | None = None) -> Pushed:
        """Let the origin's branch stand at a commit that this host has; idempotent, under a lease."""
        return await pushing.push(self.place(url), await self.source(url, write=True), commit, branch, expected_old)

    async def delete_branch(self, url: str, branch: str, expected: str) -> None:
        """Remove the origin's branch if it stands at `expected`; one that is gone is fine. Raises BranchMoved."""
        await pushing.delete(self.place(url), await self.source(url, write=True), branch, expected)

    async def can_write(self, url: str) -> bool:
        """Whether a push would be let in."""
        probe = await pushing.probe_repository(self.place(url), self.root / "probe.git")
        return await pushing.can_write(await self.source(url, write=True), probe)

    async def commit_merge(self, url: str, tree: str, parents: tuple[str, ...], message: str, *, date: str = "") -> str:
        """Write a commit of a merged tree; answers its hash. With a `date` the same merge is the same commit."""
        return await reading.commit_merge(self.place(url), tree, parents, message, date=date)

    def adapter(self, url: str) -> Forge:
        """The forge of a repository: the one its host is connected to, else plain git."""
        address = rules.address(url)
        if address.url not in self._forges:
            made = plugins.load("shopfloor.forges.adapters", self.connections.kind(address))
            self._forges[address.url] = made.create(self, self.connections.connection(address))
        return self._forges[address.url]

    def tidy(self, url: str) -> bool:
        """Whether the branch of a merged change is removed there, as the operator set it; of plain git it stays."""
        settings = self.connections.settings(rules.address(url))
        return settings is not None and settings.delete_branch and self.adapter(url).pages

    def forge(self, url: str) -> "Reviews":
        """Where this repository's changes are reviewed and merged."""
        return Reviews(self, self.adapter(url))


@dataclass(frozen=True)
class Reviews:
    """The changes of one repository, on its forge and in our table."""

    repositories: Repositories
    forge: Forge

    async def open_change(
        self, database: Database, *, issue: int | None = None, evidence: Evidence = (), **fields: Any
    ) -> Change:
        """Offer a pushed branch for review (the fields of Draft); offering it again brings the change up to date. Idempotent.

        Waits for a merge of the same change: what is delivered meanwhile becomes a change of its own.
        """
        draft = Draft(**fields)
        published = await self.forge.open_change(await self._told(draft, issue, evidence))
        try:
            verdict = await self.check(draft, await self.repositories.sync(draft.repository_url))
        except Problem:
            verdict = UNKNOWN
        async with contextlib.AsyncExitStack() as held:
            async with database.reading() as session:
                found = await queries.open_for(session, draft.work_order_id, draft.head_branch, draft.head_commit)
            if found:
                place = self.repositories.place(draft.repository_url)
                await held.enter_async_context(turns.turn(database, place, found.change_id, patience=LOCK_SECONDS))
            async with database.transaction() as session:
                return await _record(session, draft, self.forge.name, published, verdict)

    async def _told(self, draft: Draft, issue: int | None, evidence: Evidence) -> Draft:
        """The draft with the text that people read on the forge: the repository's own template, filled."""
        if not self.forge.pages:
            return draft
        refs = await self.repositories.sync(draft.repository_url)
        template = await self.repositories.template(draft.repository_url, draft.base_commit)
        closes = issue if draft.base_branch == refs.head else None
        body = texts.change_body(
            order_id=draft.work_order_id,
            request=draft.body,
            template=template,
            issue=issue,
            closes=closes,
            evidence=evidence,
        )
        return replace(draft, title=texts.title(draft.title), body=body)

    async def check(self, draft: Draft, refs: Refs) -> Verdict:
        """Whether the change merges into what its base branch is in `refs`; raises Problem when git cannot tell."""
        if (base := refs.heads.get(draft.base_branch)) is None:
            return UNKNOWN
        merged = await self.repositories.mergeable(draft.repository_url, base, draft.head_commit)
        return Verdict("true" if merged.clean else "false", merged.conflicts[:100])


async def _record(session: Session, draft: Draft, forge: str, published: Published, verdict: Verdict) -> Change:
    found = await queries.open_for(session, draft.work_order_id, draft.head_branch, draft.head_commit)
    if found and found.head_commit == draft.head_commit:
        return found
    change = found or Change(change_id=ids.new("chg"), forge=forge, state=ChangeState.OPEN)
    for name, value in vars(draft).items():
        setattr(change, name, value)
    change.url, change.number, change.planned_commit = published.url, published.number, None
    note(change, verdict)
    session.add(change)
    await session.flush()
    fact = ChangeRecorded(
        work_order_id=draft.work_order_id,
        change_id=change.change_id,
        branch=draft.head_branch,
        head_sha=draft.head_commit,
        url=published.url,
    )
    await events.append(session, fact)
    await session.refresh(change)
    return change


def note(change: Change, verdict: Verdict) -> None:
    """Write down whether the change can be merged."""
    change.mergeable, change.conflicts = verdict.mergeable, verdict.conflicts
    change.checked_at = cast("Any", db_time())


async def note_if_same(session: Session, seen: Change, verdict: Verdict) -> Change:
    """Write down a verdict on what was seen, unless the change has ended or holds other commits by now; answers what it is now."""
    change = await queries.get(session, seen.change_id)
    if change.state == ChangeState.OPEN and change.head_commit == seen.head_commit:
        note(change, verdict)
        await session.flush()
        await session.refresh(change)
    return change


async def plan(session: Session, change_id: str, head_commit: str, commit: str) -> None:
    """Note the commit that is about to be pushed; raises ChangeEnded when there is no such open change any more."""
    same = sa.and_(Change.change_id == change_id, Change.head_commit == head_commit, Change.state == ChangeState.OPEN)
    noted = sa.update(Change).where(same).values(planned_commit=commit).returning(Change.change_id)
    if (await session.execute(noted)).first() is None:
        raise ChangeEnded


def draft_of(change: Change) -> Draft:
    """The change as its forge takes it."""
    return Draft(**{name: getattr(change, name) for name in Draft.__dataclass_fields__})


async def end(session: Session, change_id: str, to: ChangeState, merge_commit: str | None = None) -> Change:
    """Let a change be merged or closed; once it is, nothing happens."""
    change = await queries.get(session, change_id)
    if change.state == to:
        return change
    change.state = CHANGE.step(ChangeState(change.state), to)
    order, stamp = change.work_order_id, cast("Any", db_time())
    if to == ChangeState.MERGED:
        change.merge_commit, change.merged_at = merge_commit, stamp
        facts = {"work_order_id": order, "change_id": change_id, "base_branch": change.base_branch}
        merged = ChangeMerged(**facts, merge_sha=merge_commit or "")
        await events.append(session, merged)
    else:
        change.closed_at = stamp
        await events.append(session, ChangeClosed(work_order_id=order, change_id=change_id))
    await session.flush()
    await session.refresh(change)
    return change


async def record_review(session: Session, change: Change, *, verdict: str, body: str, author: str) -> ChangeReview:
    """Write down what somebody said about the change as it is now."""
    row = ChangeReview(
        change_id=change.change_id, head_commit=change.head_commit, author=author, verdict=verdict, body=body
    )
    session.add(row)
    await session.flush()
    fact = ChangeReviewed(
        work_order_id=change.work_order_id, change_id=change.change_id, verdict=verdict, head_sha=row.head_commit
    )
    await events.append(session, fact)
    return row
