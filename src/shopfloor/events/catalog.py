"""Every fact the platform itself announces: one frozen class each, ids and plain values only. Agents' events are open-ended."""

from typing import ClassVar

import msgspec


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Base of every fact. `type` and `entity_type` are on the wire; `entity` names the field holding the entity's id."""

    type: ClassVar[str]
    entity_type: ClassVar[str]
    entity: ClassVar[str]

    @property
    def entity_id(self) -> str:
        """The id of the entity this fact is about."""
        value: str = getattr(self, self.entity)
        return value


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


class SandboxEvent(Event, frozen=True, kw_only=True):
    """A fact about a sandbox."""

    entity_type: ClassVar[str] = "sandbox"
    entity: ClassVar[str] = "sandbox_id"

    sandbox_id: str


class SandboxStateChanged(SandboxEvent, frozen=True, kw_only=True):
    """The sandbox's life moved on."""

    type: ClassVar[str] = "sandbox.state_changed"
    before: str
    after: str
    reason: str = ""


class SandboxHeartbeatMissed(SandboxEvent, frozen=True, kw_only=True):
    """The worker has been silent for whole heartbeat intervals: warn, then degraded, then restart (FLT-01)."""

    type: ClassVar[str] = "sandbox.heartbeat_missed"
    missed: int
    verdict: str


class EgressDenied(SandboxEvent, frozen=True, kw_only=True):
    """Somebody inside wanted to reach what the sandbox may not."""

    type: ClassVar[str] = "egress.denied"
    method: str
    target: str
    reason: str


class WorkPinned(SandboxEvent, frozen=True, kw_only=True):
    """Something a sandbox held beyond what was handed out is kept."""

    type: ClassVar[str] = "work.pinned"
    pin: int
    kind: str
    size: int
    reason: str = ""
    note: str = ""


class WorkNotPinned(SandboxEvent, frozen=True, kw_only=True):
    """What a sandbox holds could not be kept, so the sandbox stays."""

    type: ClassVar[str] = "work.not_pinned"
    reason: str


class PinExpired(SandboxEvent, frozen=True, kw_only=True):
    """Something kept was let go by policy."""

    type: ClassVar[str] = "work.pin_expired"
    pin: int
    kind: str
    reason: str


class AgentRestarted(SandboxEvent, frozen=True, kw_only=True):
    """A silent or dead sandbox was replaced (FLT-03)."""

    type: ClassVar[str] = "agent.restarted"
    agent_id: str
    reason: str
    graceful_attempt_ms: int
    forced: bool
    spawned_sandbox_id: str
    old_sandbox_id: str
    occurred_at: str


class MessageQueued(SandboxEvent, frozen=True, kw_only=True):
    """Something was said to a running agent (MSG-04)."""

    type: ClassVar[str] = "SANDBOX_MESSAGE_QUEUED"
    message_id: str
    message_type: str
    content: str


class MessageReceiptChanged(SandboxEvent, frozen=True, kw_only=True):
    """A message moved along accepted -> delivered -> seen -> done, or expired."""

    type: ClassVar[str] = "message.receipt_changed"
    message_id: str
    before: str
    after: str


class ResultSubmitted(WorkOrderEvent, frozen=True, kw_only=True):
    """A worker handed in how its attempt ended."""

    type: ClassVar[str] = "attempt.result_submitted"
    attempt_id: str
    status: str


class ModelCalled(WorkOrderEvent, frozen=True, kw_only=True):
    """A call of a model has ended, however it did."""

    type: ClassVar[str] = "model.called"
    attempt_id: str
    account: str
    model: str
    status: int | None
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    """None: the model's price is unknown."""
    estimated: bool
    took_ms: int


class BudgetReached(WorkOrderEvent, frozen=True, kw_only=True):
    """A call of a model was not let through."""

    type: ClassVar[str] = "budget.reached"
    reason: str


class ProjectChanged(Event, frozen=True, kw_only=True):
    """A project was created, changed or deleted."""

    type: ClassVar[str] = "project.changed"
    entity_type: ClassVar[str] = "project"
    entity: ClassVar[str] = "project_id"

    project_id: str
    name: str
    what: str


class AccountEvent(Event, frozen=True, kw_only=True):
    """A fact about a model account."""

    entity_type: ClassVar[str] = "account"
    entity: ClassVar[str] = "account"

    account: str


class AccountPaused(AccountEvent, frozen=True, kw_only=True):
    """The provider lets this account call again only later: all its work waits."""

    type: ClassVar[str] = "account.paused"
    paused_until: str
    reason: str


class AccountResumed(AccountEvent, frozen=True, kw_only=True):
    """The account may be used again."""

    type: ClassVar[str] = "account.resumed"
    reason: str


OURS = frozenset(
    kind.type
    for parent in Event.__subclasses__()
    for kind in (parent, *parent.__subclasses__())
    if hasattr(kind, "type")
)
"""What the platform alone says: such a word of a sandbox would be taken for a fact."""
