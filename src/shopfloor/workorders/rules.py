"""The law of work orders: statuses, attempts, workflows, phases, back-off. Pure."""

from collections.abc import Mapping
from enum import StrEnum

from shopfloor.kit.errors import Malformed
from shopfloor.kit.machine import Machine


class OrderStatus(StrEnum):
    """Where a work order stands (AWM-01)."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


O = OrderStatus  # noqa: E741 - reads as the table's shorthand
ORDER = Machine(
    {
        O.PENDING: {O.RUNNING, O.CANCELLED, O.FAILED},
        O.RUNNING: {O.PENDING, O.COMPLETED, O.FAILED, O.CANCELLED},
        O.COMPLETED: {O.PENDING},  # a review of its change asks for more
        O.FAILED: {O.PENDING},
        O.CANCELLED: {O.PENDING},
    }
)
FINISHED = frozenset({O.COMPLETED, O.FAILED, O.CANCELLED})


class AttemptState(StrEnum):
    """Where one try at a work order stands."""

    CLAIMED = "claimed"
    PREPARING = "preparing"
    RUNNING = "running"
    DELIVERING = "delivering"
    DONE = "done"
    FAILED = "failed"
    LOST = "lost"
    PAUSED = "paused"
    """Its model account reached a usage limit: the order goes on after the reset."""
    CANCELLED = "cancelled"


A = AttemptState
ENDS = frozenset({A.FAILED, A.LOST, A.PAUSED, A.CANCELLED})
ATTEMPT = Machine(
    {
        A.CLAIMED: {A.PREPARING} | ENDS,
        A.PREPARING: {A.RUNNING} | ENDS,
        A.RUNNING: {A.DELIVERING} | ENDS,
        A.DELIVERING: {A.DONE} | ENDS,
        A.DONE: set(),
        A.FAILED: set(),
        A.LOST: set(),
        A.PAUSED: set(),
        A.CANCELLED: set(),
    }
)


class Phase(StrEnum):
    """What a work order is doing (AWM-04)."""

    PLANNING = "planning"
    IMPLEMENTING = "implementing"
    TESTING = "testing"
    COMPLETED = "completed"


PHASE_OF_STEP = {"plan": Phase.PLANNING, "build": Phase.IMPLEMENTING, "test": Phase.TESTING}


class WorkflowType(StrEnum):
    """The ordered steps of a work order (AWM-02)."""

    PLAN = "agent_workflow_plan"
    BUILD = "agent_workflow_build"
    TEST = "agent_workflow_test"
    PLAN_BUILD = "agent_workflow_plan_build"
    PLAN_BUILD_TEST = "agent_workflow_plan_build_test"

    @property
    def steps(self) -> tuple[str, ...]:
        """The commands, in order."""
        return tuple(self.value.removeprefix("agent_workflow_").split("_"))


SYNONYMS = {"implement": "build", "validate": "test"}


class UnknownWorkflow(Malformed):
    """There is no workflow of that name."""

    hint = f"Workflows: {', '.join(t.value for t in WorkflowType)}; also plan, build (implement), test (validate), plan_build, plan_build_test."


def workflow_type(name: str) -> WorkflowType:
    """The workflow a name means: the full name, the short one, or a synonym (C12)."""
    short = name.removeprefix("agent_workflow_")
    full = "agent_workflow_" + "_".join(SYNONYMS.get(part, part) for part in short.split("_"))
    try:
        return WorkflowType(full)
    except ValueError:
        raise UnknownWorkflow(f"there is no workflow {name[:60]!r}") from None


def back_off_seconds(lost_attempts: int) -> float:
    """How long to wait before the next attempt: 1, 2, 4 … at most 60 seconds."""
    return float(min(60, 2 ** max(0, lost_attempts - 1)))


def after_loss(attempts: int, max_attempts: int) -> OrderStatus:
    """What becomes of an order whose attempt was lost: another try, or a person's."""
    return OrderStatus.PENDING if attempts < max_attempts else OrderStatus.FAILED


class PinKind(StrEnum):
    """What is kept of a sandbox."""

    COMMITS = "commits"
    """Commits that were not handed out."""
    FILES = "files"
    """Files that were in no commit."""
    SPOOL = "spool"
    """The agent's own log, and reports that did not arrive."""
    NOTE = "note"
    """Nothing; the note says what was left out or could not be reached."""


def expired(status: str | None, age_days: float, days: Mapping[str, float]) -> bool:
    """Whether policy lets go of what an order left; `age_days` since it finished. What may still go on never expires."""
    if status is not None and status not in FINISHED:
        return False
    return age_days > days["no_order" if status is None else status]
