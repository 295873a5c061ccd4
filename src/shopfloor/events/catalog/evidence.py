"""Facts about criteria and what was found of them."""

from typing import ClassVar

from shopfloor.events.catalog.base import Event


class CriteriaChanged(Event, frozen=True, kw_only=True):
    """What must hold for something was added to, changed or taken back."""

    type: ClassVar[str] = "criteria.changed"
    entity_type: ClassVar[str] = "ticket"
    entity: ClassVar[str] = "ticket_id"

    ticket_id: str
    criterion_id: str
    what: str
    check_hash: str = ""
    """Of its check as it is now: what was found of another proves nothing."""


class EvidenceRecorded(Event, frozen=True, kw_only=True):
    """The ledger has a new row."""

    type: ClassVar[str] = "evidence.recorded"
    entity_type: ClassVar[str] = "ticket"
    entity: ClassVar[str] = "ticket_id"

    ticket_id: str
    criterion_id: str
    commit: str
    verdict: str
    said_by: str
    reason: str = ""
    check_hash: str = ""


class CheckRunChanged(Event, frozen=True, kw_only=True):
    """Checks of a commit were asked for, began or ended."""

    type: ClassVar[str] = "check_run.state_changed"
    entity_type: ClassVar[str] = "check_run"
    entity: ClassVar[str] = "run_id"

    run_id: str
    subject_id: str
    purpose: str
    commit: str
    before: str
    after: str
    verdict: str | None = None
    reason: str = ""
