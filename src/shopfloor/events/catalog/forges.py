"""Facts about changes and what forges tell."""

from typing import ClassVar

from shopfloor.events.catalog.base import Event
from shopfloor.events.catalog.work_orders import WorkOrderEvent


class ChangeRecorded(WorkOrderEvent, frozen=True, kw_only=True):
    """A delivered branch can be reviewed."""

    type: ClassVar[str] = "change.recorded"
    change_id: str
    branch: str
    head_sha: str
    url: str | None = None


class ChangeReviewed(WorkOrderEvent, frozen=True, kw_only=True):
    """Somebody reviewed a change here."""

    type: ClassVar[str] = "change.reviewed"
    change_id: str
    verdict: str
    head_sha: str


class ChangeMerged(WorkOrderEvent, frozen=True, kw_only=True):
    """A change became part of its base branch."""

    type: ClassVar[str] = "change.merged"
    change_id: str
    base_branch: str
    merge_sha: str


class ChangeClosed(WorkOrderEvent, frozen=True, kw_only=True):
    """A change was closed without being merged."""

    type: ClassVar[str] = "change.closed"
    change_id: str


class ForgeEvent(Event, frozen=True, kw_only=True):
    """Something happened on a forge, said by somebody who may set us to work, or looked up by us."""

    entity_type: ClassVar[str] = "repository"
    entity: ClassVar[str] = "repository_url"

    repository_url: str
    delivery_id: str
    actor: str
    number: int | None
    """The issue or change."""
    change_id: str | None = None
    work_order_id: str | None = None
    """Ours, when the change is one of ours."""


class ForgeDeliveryReceived(Event, frozen=True, kw_only=True):
    """A forge told us something; what it means is found out later."""

    type: ClassVar[str] = "forge.delivery_received"
    entity_type: ClassVar[str] = "repository"
    entity: ClassVar[str] = "repository_url"

    repository_url: str
    delivery_id: str
    event: str


class ForgeIssueLabeled(ForgeEvent, frozen=True, kw_only=True):
    """Somebody asked for work on an issue by its label."""

    type: ClassVar[str] = "forge.issue_labeled"
    label: str
    text: str


class ForgeCommentMade(ForgeEvent, frozen=True, kw_only=True):
    """Somebody addressed us in a comment."""

    type: ClassVar[str] = "forge.comment_made"
    comment_id: str
    text: str
    on_change: bool


class ForgeReviewSubmitted(ForgeEvent, frozen=True, kw_only=True):
    """Somebody reviewed one of our changes."""

    type: ClassVar[str] = "forge.review_submitted"
    review_id: str
    verdict: str
    text: str
    head_sha: str


class ForgeChecksFailed(ForgeEvent, frozen=True, kw_only=True):
    """A check failed on the head of one of our changes."""

    type: ClassVar[str] = "forge.checks_failed"
    check: str
    head_sha: str


class ForgeChangeClosed(ForgeEvent, frozen=True, kw_only=True):
    """One of our changes was merged or closed on its forge."""

    type: ClassVar[str] = "forge.change_closed"
    verdict: str
