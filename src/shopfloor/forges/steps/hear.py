"""Take in what forges tell: webhooks and polls end here. Stored at once, understood later, believed only as far as the forge confirms."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import orjson

from shopfloor.events.catalog.forges import (
    ForgeChangeClosed,
    ForgeChecksFailed,
    ForgeCommentMade,
    ForgeEvent,
    ForgeIssueLabeled,
    ForgeReviewSubmitted,
)
from shopfloor.forges import inbox, rules, signals
from shopfloor.forges.models import Change, Delivery
from shopfloor.forges.service import Repositories
from shopfloor.forges.signals import Kind, Signal
from shopfloor.forges.steps import merge as merging
from shopfloor.kit import log
from shopfloor.kit.config import ForgeSettings
from shopfloor.kit.db import AWAY, Database
from shopfloor.kit.errors import Forbidden, Malformed, Misconfigured, Problem, Unauthenticated, Unavailable

logger = log.get(__name__)


class WebhookNotSetUp(Misconfigured):
    """No secret is set for webhooks of this kind of forge: nothing that comes without one is believed."""

    status = 403
    hint = 'Set webhook_secret_env below [forges."https://host"], the secret in that variable, and the same secret at the forge.'


class BadSignature(Unauthenticated):
    """The delivery is not signed with our secret."""

    hint = "Set the same secret at the forge's webhook and in the variable that webhook_secret_env names."


class BadDelivery(Malformed):
    """The delivery is no JSON, or has no id."""


async def receive(
    database: Database, repositories: Repositories, kind: str, headers: Mapping[str, str], body: bytes
) -> bool:
    """Check the signature, then keep the delivery, in one transaction; False when it is known already."""
    hosts = _signed(repositories, kind, headers, body)
    delivery = next((headers[name] for name in DELIVERY if headers.get(name)), "")
    event = next((headers[name] for name in EVENT if headers.get(name)), "")
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError:
        payload = None
    if not isinstance(payload, dict) or not delivery or len(delivery) > 100 or not event:
        raise BadDelivery
    signal = signals.read(event, payload)
    if signal is not None and signal.host not in hosts:
        raise BadSignature(f"the secret that signed this is not that of {signal.host[:100]}")
    url = _url(repositories, signal) if signal else repositories.connections.origin(min(hosts))
    async with database.transaction() as session:
        return await inbox.keep(
            session, delivery_id=f"hook:{min(hosts)}:{delivery}", repository_url=url, event=event, signal=signal
        )


DELIVERY = ("x-github-delivery", "x-forgejo-delivery", "x-gitea-delivery")
EVENT = ("x-forgejo-event", "x-gitea-event", "x-github-event")
"""Forgejo sends GitHub's header too, with its own name of the event in it."""


def _signed(repositories: Repositories, kind: str, headers: Mapping[str, str], body: bytes) -> set[str]:
    """The hosts whose secret signed this; raises WebhookNotSetUp, BadSignature."""
    secrets = repositories.connections.webhook_secrets(kind)
    if not secrets:
        raise WebhookNotSetUp
    hosts = {host for host, secret in secrets.items() if signals.signed(secret, body, headers)}
    if not hosts:
        raise BadSignature
    return hosts


def _url(repositories: Repositories, signal: Signal) -> str:
    origin = repositories.connections.origin(signal.host)
    return rules.repository_url(f"{origin}/{signal.repository}")


async def handle_waiting(database: Database, repositories: Repositories) -> int:
    """Handle what waits; answers how many.

    What the forge cannot be asked about right now, as it is away or our token is refused, goes on waiting, and keeps no other repository waiting.
    """
    done, silent, odd = 0, set[str](), set[str]()
    while True:
        async with database.reading() as session:
            row = await inbox.waiting(session, silent=silent, odd=odd)
        if row is None:
            return done
        try:
            done += await _handle(database, repositories, row)
        except (Unavailable, Forbidden, Misconfigured) as problem:
            silent.add(row.repository_url)
            logger.info("forge_delivery_waits", delivery_id=row.delivery_id, reason=problem.message)
        except Problem as problem:
            async with database.transaction() as session:
                await inbox.settle(session, row.delivery_id, note=f"{problem.code}: {problem.message}")
        except AWAY:
            raise
        except Exception:  # the others must not wait for this one
            odd.add(row.delivery_id)
            logger.exception("forge_delivery_not_understood", delivery_id=row.delivery_id)


async def _handle(database: Database, repositories: Repositories, row: Delivery) -> bool:
    """One delivery: whose it is, whether they may, whether it goes too fast; then the fact, once."""
    signal = inbox.signal_of(row)
    settings = repositories.connections.settings(rules.address(row.repository_url))
    async with database.reading() as session:
        change = await inbox.ours(session, row.repository_url, signal)
        flood = await inbox.too_many(session, row.repository_url, row.number)
    if settings is None:
        why = "the host is not connected any more"
    elif flood and signal.by_person:  # what is looked up anyway answers nobody
        why = f"more than {signals.PER_HOUR} things happened on #{row.number} within an hour: it may be machines answering each other"
        logger.warning("forge_loop_broken", repository_url=row.repository_url, number=row.number)
    else:
        why = _unasked(signal, change, settings) or await _forbidden(repositories, row.repository_url, signal)
    if not why and change and signal.kind == Kind.CLOSED:
        await merging.noticed(database, repositories, change.change_id)
    fact = None if why else _fact(row, signal, change)
    async with database.transaction() as session:
        return await inbox.settle(session, row.delivery_id, note=why, fact=fact)


def _unasked(signal: Signal, change: Change | None, settings: ForgeSettings) -> str:
    """Why this does not concern us, as far as the words themselves tell."""
    match signal.kind:
        case Kind.LABELED:
            asked = settings.trigger_label in signal.label.split("\n")
            return "" if asked else "another label"
        case Kind.COMMENTED:
            if signal.ours:
                return "our own words"
            asked = settings.mention.lower() in signal.text.lower()
            return "" if asked else "does not address us"
        case Kind.CHECKS_FAILED:
            return "" if change and change.head_commit == signal.head_commit else inbox.NOT_OUR_HEAD
        case _:
            return "" if change else inbox.NOT_OURS


async def _forbidden(repositories: Repositories, url: str, signal: Signal) -> str:
    """Why this person may not set us to work: it is ourselves, or somebody without write access."""
    if not signal.by_person:
        return ""
    forge = repositories.adapter(url)
    if signal.actor.lower() == (await forge.login(url)).lower():
        return "our own doing: to be heard, use another account than the token's"
    if not signal.actor or not await forge.may_write(url, signal.actor):
        return f"{signal.actor[:60]} may not write to the repository"
    return ""


def _fact(row: Delivery, signal: Signal, change: Change | None) -> ForgeEvent:
    about: dict[str, Any] = {
        "repository_url": row.repository_url,
        "delivery_id": row.delivery_id,
        "actor": signal.actor,
        "number": signal.number if signal.number is not None else change.number if change else None,
        "change_id": change.change_id if change else None,
        "work_order_id": change.work_order_id if change else None,
    }
    match signal.kind:
        case Kind.LABELED:
            return ForgeIssueLabeled(label=signal.label, text=signal.text, **about)
        case Kind.COMMENTED:
            return ForgeCommentMade(comment_id=signal.item, text=signal.text, on_change=signal.on_change, **about)
        case Kind.REVIEWED:
            return ForgeReviewSubmitted(
                review_id=signal.item, verdict=signal.verdict, text=signal.text, head_sha=signal.head_commit, **about
            )
        case Kind.CHECKS_FAILED:
            return ForgeChecksFailed(check=signal.item, head_sha=signal.head_commit, **about)
        case Kind.CLOSED:
            return ForgeChangeClosed(verdict=signal.verdict, **about)


async def listen(database: Database, repositories: Repositories, *, awake: asyncio.Event, every: float = 15.0) -> None:
    """Handle deliveries as they come, for ever; what waited through a restart or a silence is taken up again."""
    tidied = 0.0
    while True:
        awake.clear()
        while await handle_waiting(database, repositories):
            pass
        if time.monotonic() - tidied > 3600:
            tidied = time.monotonic()
            async with database.transaction() as session:
                await inbox.forget(session)
        try:
            async with asyncio.timeout(every):
                await awake.wait()
        except TimeoutError:
            continue
