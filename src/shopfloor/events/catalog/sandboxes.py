"""Facts about sandboxes, what is kept of them, and what is said to them."""

from typing import ClassVar

from shopfloor.events.catalog.base import Event


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
