"""Facts about tickets and the board."""

from typing import ClassVar

import msgspec

from shopfloor.events.catalog.base import Event


class TicketEvent(Event, frozen=True, kw_only=True):
    """A fact about a ticket."""

    entity_type: ClassVar[str] = "ticket"
    entity: ClassVar[str] = "ticket_id"

    ticket_id: str
    project_id: str


class TicketCreated(TicketEvent, frozen=True, kw_only=True):
    """There is a new card."""

    type: ClassVar[str] = "ticket.created"
    title: str
    status: str
    priority: str
    approval: str
    kind: str = "feat"
    owner: str | None = None
    rank: float = 0.0
    github_issue_number: int | None = None
    spec_id: str | None = None
    reason: str = ""


class TicketTransitioned(TicketEvent, frozen=True, kw_only=True):
    """The card went to another column (RES-04)."""

    type: ClassVar[str] = "TICKET_TRANSITIONED"
    before: str
    after: str
    how: str
    moved_by: str
    reason: str = ""
    overridden: tuple[str, ...] = ()


class TicketBlocked(TicketEvent, frozen=True, kw_only=True):
    """Something is in the card's way."""

    type: ClassVar[str] = "ticket.blocked"
    blocked_class: str
    reason: str


class TicketUnblocked(TicketEvent, frozen=True, kw_only=True):
    """Nothing is in the card's way any more."""

    type: ClassVar[str] = "ticket.unblocked"
    reason: str = ""


class TicketApprovalChanged(TicketEvent, frozen=True, kw_only=True):
    """Somebody, or the deadline, decided about the card."""

    type: ClassVar[str] = "ticket.approval_changed"
    before: str
    after: str
    decided_by: str
    reason: str = ""


class TicketChanged(TicketEvent, frozen=True, kw_only=True):
    """Something else of the card changed; `changes` holds the new values that the board shows."""

    type: ClassVar[str] = "ticket.changed"
    changes: dict[str, str | int | float | bool | None]


class TicketArchived(TicketEvent, frozen=True, kw_only=True):
    """The card left the board."""

    type: ClassVar[str] = "ticket.archived"
    reason: str = ""


class TicketHeadMoved(TicketEvent, frozen=True, kw_only=True):
    """The ticket's branch has a new head: what was proven on the old one is stale."""

    type: ClassVar[str] = "ticket.head_moved"
    before: str | None
    after: str
    why: str
    branch: str | None = None
    found: dict[str, tuple[str, str]] = msgspec.field(default_factory=dict)
    """Criterion -> hash of its check and verdict, of what was found on the new head when it was seen before."""


class UnionChecked(TicketEvent, frozen=True, kw_only=True):
    """The ticket's branch was merged, in memory, with its base and every other live branch, and the answer is another than before."""

    type: ClassVar[str] = "ticket.union_checked"
    head_commit: str
    behind: int
    conflicts_with: tuple[str, ...]


class UnionMade(Event, frozen=True, kw_only=True):
    """All live branches of a project were merged together in memory; what its check found is told of `run_id`."""

    type: ClassVar[str] = "union.made"
    entity_type: ClassVar[str] = "project"
    entity: ClassVar[str] = "project_id"

    project_id: str
    commit: str
    ticket_ids: tuple[str, ...]
    run_id: str


class MergeQueueChanged(TicketEvent, frozen=True, kw_only=True):
    """The ticket moved along the merge queue."""

    type: ClassVar[str] = "merge_queue.changed"
    before: str
    after: str
    reason: str = ""
