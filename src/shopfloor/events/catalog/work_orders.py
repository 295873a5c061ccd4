"""Facts about work orders and their attempts."""

from typing import ClassVar

from shopfloor.events.catalog.base import Event


class WorkOrderEvent(Event, frozen=True, kw_only=True):
    """A fact about a work order."""

    entity_type: ClassVar[str] = "work_order"
    entity: ClassVar[str] = "work_order_id"

    work_order_id: str


class WorkOrderCreated(WorkOrderEvent, frozen=True, kw_only=True):
    """Somebody asked for a piece of work."""

    type: ClassVar[str] = "work_order.created"
    repository_url: str
    workflow_type: str


class WorkOrderStatusChanged(WorkOrderEvent, frozen=True, kw_only=True):
    """The order entered another status."""

    type: ClassVar[str] = "work_order.status_changed"
    before: str
    after: str
    reason: str = ""


class WorkOrderFinished(WorkOrderEvent, frozen=True, kw_only=True):
    """The order reached a final status."""

    type: ClassVar[str] = "work_order.finished"
    status: str
    reason: str = ""
    branch: str | None = None
    head_sha: str | None = None


class AttemptStateChanged(WorkOrderEvent, frozen=True, kw_only=True):
    """A try at the order moved on."""

    type: ClassVar[str] = "attempt.state_changed"
    attempt_id: str
    before: str
    after: str
    reason: str = ""


class AttemptAdopted(WorkOrderEvent, frozen=True, kw_only=True):
    """Another engine took over the attempt of a dead one."""

    type: ClassVar[str] = "attempt.adopted"
    attempt_id: str
    from_engine: str
    to_engine: str


class LeftoversRemoved(WorkOrderEvent, frozen=True, kw_only=True):
    """What an order that did not complete left on this host was let go by policy."""

    type: ClassVar[str] = "work.leftovers_removed"
    what: str
    name: str
    reason: str


class WorkflowPhaseChanged(WorkOrderEvent, frozen=True, kw_only=True):
    """The order's workflow entered a phase."""

    type: ClassVar[str] = "workflow.phase_changed"
    phase: str


class ResultSubmitted(WorkOrderEvent, frozen=True, kw_only=True):
    """A worker handed in how its attempt ended."""

    type: ClassVar[str] = "attempt.result_submitted"
    attempt_id: str
    status: str
