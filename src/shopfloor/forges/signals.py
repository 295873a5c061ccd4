"""What a forge's delivery says, in a few plain facts. Pure; every word in a payload is hostile, and none of it is believed that we can ask."""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from shopfloor.forges.texts import OURS

MAX_TEXT = 8000
PER_HOUR = 20
"""Facts about one issue or change within an hour that we still react to: agents that answer each other stop here."""
CONCLUSIONS = frozenset({"failure", "timed_out", "startup_failure", "action_required"})
REVIEW_EVENTS = {
    "pull_request_approved": "approved",
    "pull_request_review_approved": "approved",
    "pull_request_rejected": "changes_requested",
    "pull_request_review_rejected": "changes_requested",
    "pull_request_comment": "commented",
    "pull_request_review_comment": "commented",
}
"""Forgejo's and Gitea's events for a submitted review."""


REVIEWS = ("pull_request_review", "poll.review_submitted", *REVIEW_EVENTS)
"""Every event by which a review comes."""


class Kind(StrEnum):
    """What happened."""

    LABELED = "issue_labeled"
    COMMENTED = "comment_made"
    REVIEWED = "review_submitted"
    CHECKS_FAILED = "checks_failed"
    CLOSED = "change_closed"


@dataclass(frozen=True, kw_only=True)
class Signal:
    """One thing that happened, as the sender tells it."""

    kind: Kind
    host: str
    repository: str
    """`owner/name`."""
    actor: str
    number: int | None = None
    """The issue or change; None for a check that names no change."""
    label: str = ""
    text: str = ""
    item: str = ""
    """The sender's own id of it: the same thing, heard twice, has the same."""
    verdict: str = ""
    head_branch: str = ""
    head_commit: str = ""
    on_change: bool = False

    @property
    def key(self) -> str:
        """By which a webhook and a poll know that they tell of the same thing."""
        return f"{self.kind}:{self.number or self.head_commit}:{self.item}"[:200]

    @property
    def by_person(self) -> bool:
        """Whether it matters who did it: a failed check or a closed change is looked up instead."""
        return self.kind in {Kind.LABELED, Kind.COMMENTED, Kind.REVIEWED}

    @property
    def ours(self) -> bool:
        """Whether the text carries our hidden mark: then we, or somebody who quotes us, wrote it."""
        return OURS.search(self.text) is not None


def signature(secret: str, body: bytes) -> str:
    """HMAC-SHA256 in hex, as forges sign their deliveries."""
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def signed(secret: str, body: bytes, headers: Mapping[str, str]) -> bool:
    """Whether somebody who knows the secret sent this; compared in constant time."""
    given = headers.get("x-hub-signature-256", "").removeprefix("sha256=")
    given = given or headers.get("x-forgejo-signature", "") or headers.get("x-gitea-signature", "")
    return bool(secret) and hmac.compare_digest(given.encode(), signature(secret, body).encode())


def read(event: str, payload: Any) -> Signal | None:
    """What a delivery says; None when it says nothing we react to, or nothing we understand."""
    if not isinstance(payload, dict):
        return None
    place = urlsplit(_text(payload, "repository", "html_url"))
    facts = {
        "host": place.netloc.lower(),
        "repository": place.path.strip("/"),
        "actor": _text(payload, "sender", "login"),
    }
    if not facts["host"] or facts["repository"].count("/") != 1:
        return None
    reader = READERS.get(event)
    return reader(event, str(payload.get("action") or ""), payload, facts) if reader else None


def _labeled(event: str, action: str, payload: dict[str, Any], facts: dict[str, Any]) -> Signal | None:
    del event
    issue = _dict(payload, "issue")
    number = _number(issue, "number")
    if number is None or action not in {"labeled", "label_updated"} or issue.get("state") not in {None, "open"}:
        return None
    told = [_text(payload, "label", "name")] if action == "labeled" else _names(issue.get("labels"))
    text = f"{_text(issue, 'title')}\n\n{_text(issue, 'body')}"[:MAX_TEXT]
    item = f"{','.join(told)}:{_text(issue, 'updated_at')}"
    return Signal(kind=Kind.LABELED, number=number, label="\n".join(told), text=text, item=item, **facts)


def _commented(event: str, action: str, payload: dict[str, Any], facts: dict[str, Any]) -> Signal | None:
    del event
    issue, comment = _dict(payload, "issue"), _dict(payload, "comment")
    number, item = _number(issue, "number"), _number(comment, "id")
    if action != "created" or number is None or item is None:
        return None
    return Signal(
        kind=Kind.COMMENTED,
        number=number,
        text=_text(comment, "body")[:MAX_TEXT],
        item=str(item),
        on_change=bool(issue.get("pull_request")) or bool(payload.get("is_pull")),
        **facts,
    )


def _reviewed(event: str, action: str, payload: dict[str, Any], facts: dict[str, Any]) -> Signal | None:
    review, pull = _dict(payload, "review"), _dict(payload, "pull_request")
    number = _number(pull, "number")
    if number is None or action not in {"submitted", "reviewed"}:
        return None
    verdict = REVIEW_EVENTS.get(event) or _text(review, "state").lower()
    head = _dict(pull, "head")
    return Signal(
        kind=Kind.REVIEWED,
        number=number,
        text=(_text(review, "body") or _text(review, "content"))[:MAX_TEXT],
        item=str(_number(review, "id") or _text(payload, "pull_request", "updated_at")),
        verdict=verdict if verdict in {"approved", "changes_requested"} else "commented",
        head_branch=_text(head, "ref"),
        head_commit=_text(head, "sha"),
        on_change=True,
        **facts,
    )


def _checked(event: str, action: str, payload: dict[str, Any], facts: dict[str, Any]) -> Signal | None:
    run = _dict(payload, event)
    if action != "completed" or run.get("conclusion") not in CONCLUSIONS:
        return None
    suite = _dict(run, "check_suite")
    return Signal(
        kind=Kind.CHECKS_FAILED,
        text=_text(run, "name")[:MAX_TEXT],
        item=_text(run, "name")[:100],
        head_branch=_text(run, "head_branch") or _text(suite, "head_branch"),
        head_commit=_text(run, "head_sha"),
        **facts,
    )


def _closed(event: str, action: str, payload: dict[str, Any], facts: dict[str, Any]) -> Signal | None:
    del event
    pull = _dict(payload, "pull_request")
    number = _number(pull, "number")
    if action != "closed" or number is None:
        return None
    head = _dict(pull, "head")
    verdict = "merged" if pull.get("merged") else "closed"
    return Signal(
        kind=Kind.CLOSED,
        number=number,
        verdict=verdict,
        item=_text(pull, "closed_at"),
        head_branch=_text(head, "ref"),
        head_commit=_text(head, "sha"),
        on_change=True,
        **facts,
    )


READERS = {
    "issues": _labeled,
    "issue_comment": _commented,
    "pull_request": _closed,
    "pull_request_review": _reviewed,
    "check_run": _checked,
    "workflow_run": _checked,
    **dict.fromkeys(REVIEW_EVENTS, _reviewed),
}


def _dict(value: Any, key: str) -> dict[str, Any]:
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def _text(value: Any, *keys: str) -> str:
    for key in keys[:-1]:
        value = _dict(value, key)
    found = value.get(keys[-1]) if isinstance(value, dict) else None
    return found if isinstance(found, str) else ""


def _number(value: dict[str, Any], key: str) -> int | None:
    found = value.get(key)
    return found if isinstance(found, int) and not isinstance(found, bool) and 0 < found < 2**53 else None


def _names(labels: Any) -> list[str]:
    return [_text(label, "name") for label in labels if isinstance(label, dict)] if isinstance(labels, list) else []
