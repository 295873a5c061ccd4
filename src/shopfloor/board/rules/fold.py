"""The board as facts make it: a client that has an old snapshot applies the events since, and sees what the tables say. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from shopfloor.board.rules import Column

SHOWN = ("title", "kind", "owner", "priority", "rank", "spec_id", "github_issue_number", "change_id", "merge_commit")
"""What `ticket.changed` tells of, of all that a card shows."""


class Proof(NamedTuple):
    """What was last found of a criterion on the head; it counts while the check is the one that found it."""

    wanted: str = ""
    """The hash of the check as it is."""
    found: str = ""
    """The hash of the check that found the verdict."""
    verdict: str = ""

    @property
    def standing(self) -> str:
        """passed, failed, error, or open."""
        return self.verdict if self.verdict and self.found == self.wanted else "open"


@dataclass(frozen=True, kw_only=True)
class Card:
    """A ticket on the board."""

    ticket_id: str
    project_id: str
    title: str = ""
    kind: str = "feat"
    owner: str | None = None
    priority: str = "medium"
    rank: float = 0.0
    spec_id: str | None = None
    github_issue_number: int | None = None
    status: str = Column.BACKLOG
    reason: str = ""
    approval: str = "not_required"
    is_blocked: bool = False
    blocked_class: str | None = None
    blocked_reason: str = ""
    branch: str | None = None
    head_commit: str | None = None
    change_id: str | None = None
    merge_commit: str | None = None
    behind: int = 0
    conflicts_with: tuple[str, ...] = ()
    tasks: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Task -> its column and status."""
    criteria: Mapping[str, Proof] = field(default_factory=dict)


Board = Mapping[str, Card]
"""Ticket -> its card."""


def apply(board: Board, event_type: str, payload: Mapping[str, Any]) -> Board:
    """The board after one more fact. Facts that the snapshot knew already may come again: in the end it is the same."""
    ticket_id = payload.get("ticket_id")
    if event_type == "ticket.created":
        return {**board, ticket_id: board.get(ticket_id) or _created(payload)} if ticket_id else board
    card = board.get(ticket_id) if ticket_id else None
    if card is None or event_type not in FOLDS:
        return board
    after = FOLDS[event_type](card, payload)
    rest = {key: value for key, value in board.items() if key != card.ticket_id}
    return rest if after is None else {**rest, card.ticket_id: after}


def _created(payload: Mapping[str, Any]) -> Card:
    names = ("ticket_id", "project_id", "status", "approval", "reason", *SHOWN)
    return Card(**{name: payload[name] for name in names if name in payload})


def _transitioned(card: Card, payload: Mapping[str, Any]) -> Card:
    return replace(card, status=payload["after"], reason=payload["reason"])


def _blocked(card: Card, payload: Mapping[str, Any]) -> Card:
    return replace(card, is_blocked=True, blocked_class=payload["blocked_class"], blocked_reason=payload["reason"])


def _unblocked(card: Card, _payload: Mapping[str, Any]) -> Card:
    return replace(card, is_blocked=False, blocked_class=None, blocked_reason="")


def _approval(card: Card, payload: Mapping[str, Any]) -> Card:
    return replace(card, approval=payload["after"])


def _changed(card: Card, payload: Mapping[str, Any]) -> Card:
    changes = payload["changes"]
    card = replace(card, **{name: value for name, value in changes.items() if name in SHOWN})
    if "head_commit" in changes:  # its branch is merged and gone, and with it what was proven there
        criteria = {key: Proof(proof.wanted) for key, proof in card.criteria.items()}
        card = replace(
            card, branch=changes.get("branch", card.branch), head_commit=changes["head_commit"], criteria=criteria
        )
    return card


def _archived(_card: Card, _payload: Mapping[str, Any]) -> None:
    return None


def _head(card: Card, payload: Mapping[str, Any]) -> Card:
    seen = payload["found"]
    criteria = {key: Proof(proof.wanted, *seen.get(key, ("", ""))) for key, proof in card.criteria.items()}
    return replace(card, head_commit=payload["after"], branch=payload["branch"], criteria=criteria)


def _union(card: Card, payload: Mapping[str, Any]) -> Card:
    return replace(card, behind=payload["behind"], conflicts_with=tuple(payload["conflicts_with"]))


def _task(card: Card, payload: Mapping[str, Any]) -> Card:
    status = payload.get("after", "pending")
    return replace(card, tasks={**card.tasks, payload["task_id"]: (payload["phase"], status)})


def _criterion(card: Card, payload: Mapping[str, Any]) -> Card:
    key = payload["criterion_id"]
    if payload["what"] == "retired":
        return replace(card, criteria={one: proof for one, proof in card.criteria.items() if one != key})
    proof = card.criteria.get(key, Proof())._replace(wanted=payload["check_hash"])
    return replace(card, criteria={**card.criteria, key: proof})


def _evidence(card: Card, payload: Mapping[str, Any]) -> Card:
    key = payload["criterion_id"]
    if payload["commit"] != card.head_commit or key not in card.criteria:
        return card
    proof = Proof(card.criteria[key].wanted, payload["check_hash"], payload["verdict"])
    return replace(card, criteria={**card.criteria, key: proof})


FOLDS: dict[str, Callable[[Card, Mapping[str, Any]], Card | None]] = {
    "TICKET_TRANSITIONED": _transitioned,
    "ticket.blocked": _blocked,
    "ticket.unblocked": _unblocked,
    "ticket.approval_changed": _approval,
    "ticket.changed": _changed,
    "ticket.archived": _archived,
    "ticket.head_moved": _head,
    "ticket.union_checked": _union,
    "task.created": _task,
    "task.status_changed": _task,
    "criteria.changed": _criterion,
    "evidence.recorded": _evidence,
}
