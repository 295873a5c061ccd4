"""Ask forges what happened, where no webhook can reach us. What is found goes the webhooks' way; what both told is known by its key."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from shopfloor.forges import inbox, queries, rules
from shopfloor.forges.models import Change
from shopfloor.forges.port import Forge
from shopfloor.forges.service import Repositories
from shopfloor.forges.signals import Kind, Signal
from shopfloor.kit import log
from shopfloor.kit.config import ForgeSettings
from shopfloor.kit.db import AWAY, Database
from shopfloor.kit.errors import Problem

logger = log.get(__name__)

FIRST_LOOK = timedelta(days=1)
"""How far back the first poll of a process reads comments."""
OVERLAP = timedelta(minutes=15)
"""How much is read again, as the forge's clock may go behind ours; what is known is known by its key."""
MOST_CHANGES = 1000


async def poll(database: Database, repositories: Repositories, url: str, since: datetime) -> int:
    """Look at one repository; answers how much of what was found is new."""
    settings = repositories.connections.settings(rules.address(url))
    if settings is None:
        return 0
    async with database.reading() as session:
        changes, _ = await queries.listing(
            session, state="open", work_order_id=None, repository_url=url, limit=MOST_CHANGES, offset=0
        )
    forge, new = repositories.adapter(url), 0
    async for signal in _found(forge, url, settings, list(changes), since):
        delivery = f"poll:{signal.host}:{signal.repository}:{signal.key}"
        async with database.transaction() as session:
            new += await inbox.keep(
                session, delivery_id=delivery, repository_url=url, event=f"poll.{signal.kind}", signal=signal
            )
    return new


async def _found(
    forge: Forge, url: str, settings: ForgeSettings, changes: list[Change], since: datetime
) -> AsyncIterator[Signal]:
    place = urlsplit(url)
    here: dict[str, Any] = {"host": place.netloc.lower(), "repository": place.path.strip("/")}
    for issue in await forge.issues(url, label=settings.trigger_label):
        actor, at = await forge.labeled(url, issue.number, settings.trigger_label)
        yield Signal(
            kind=Kind.LABELED,
            actor=actor,
            number=issue.number,
            label=settings.trigger_label,
            text=f"{issue.title}\n\n{issue.body}",
            item=f"{settings.trigger_label}:{at}",
            **here,
        )
    for said in await forge.comments_since(url, since):
        yield Signal(
            kind=Kind.COMMENTED,
            actor=said.author,
            number=said.issue_number,
            text=said.body,
            item=str(said.comment_id),
            on_change="/pull" in said.url,
            **here,
        )
    for change in changes:
        async for signal in _about(forge, url, change, here):
            yield signal


async def _about(forge: Forge, url: str, change: Change, here: dict[str, Any]) -> AsyncIterator[Signal]:
    """What happened to an open change of ours."""
    if change.number is None:
        return
    for review in await forge.reviews(url, change.number):
        yield Signal(
            kind=Kind.REVIEWED,
            actor=review.author,
            number=change.number,
            text=review.body,
            item=str(review.review_id),
            verdict=review.verdict,
            head_commit=review.commit,
            on_change=True,
            **here,
        )
    for check in await forge.checks(url, change.head_commit):
        if check.state == "failed":
            yield Signal(
                kind=Kind.CHECKS_FAILED, actor="", item=check.name[:100], head_commit=change.head_commit, **here
            )
    standing = await forge.ended(url, change.number)
    if standing:
        verdict, at = standing
        yield Signal(kind=Kind.CLOSED, actor="", number=change.number, verdict=verdict, item=at, **here)


async def watched(database: Database, repositories: Repositories) -> list[tuple[str, float]]:
    """The repositories that are polled, with their pause in seconds: those named in the settings, and those with open changes."""
    async with database.reading() as session:
        known = await queries.with_open_changes(session)
    found: dict[str, tuple[str, float]] = {}
    for url in [*repositories.connections.polled(), *known]:
        address = rules.address(url)
        settings = repositories.connections.settings(address)
        if settings and settings.poll_seconds and repositories.adapter(url).pages:
            named = repositories.connections.canonical(address)  # one repository is polled once, however it is spelled
            found.setdefault(named.lower(), (named, settings.poll_seconds))
    return list(found.values())


async def keep_polling(database: Database, repositories: Repositories, *, awake: asyncio.Event) -> None:
    """Poll every watched repository in its turn, for ever. One that fails is told and asked again in its next turn."""
    due: dict[str, float] = {}
    since: dict[str, datetime] = {}
    while True:
        for url, pause in await watched(database, repositories):
            if due.get(url, 0.0) > time.monotonic():
                continue
            due[url], began = time.monotonic() + pause, datetime.now(UTC)
            try:
                if await poll(database, repositories, url, since.get(url, began - FIRST_LOOK)):
                    awake.set()
                since[url] = began - OVERLAP
            except Problem as problem:
                logger.warning("forge_poll_failed", repository_url=url, code=problem.code, reason=problem.message)
            except AWAY:
                raise
            except Exception:  # the others must not wait for this one
                logger.exception("forge_poll_failed", repository_url=url)
        await asyncio.sleep(1)
