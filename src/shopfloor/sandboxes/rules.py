"""The law of sandboxes: their life, what silence means, what may be spawned."""

from enum import StrEnum

from shopfloor.kit.machine import Machine


class SandboxState(StrEnum):
    """Where a sandbox is in its life (LIF-01)."""

    PENDING = "PENDING"
    CREATING = "CREATING"
    RUNNING = "RUNNING"
    COMPLETING = "COMPLETING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    TERMINATED = "TERMINATED"


S = SandboxState
LIFE = Machine(
    {
        S.PENDING: {S.CREATING, S.FAILED, S.TERMINATED},
        S.CREATING: {S.RUNNING, S.FAILED, S.TERMINATED},
        S.RUNNING: {S.COMPLETING, S.FAILED, S.TERMINATED},
        S.COMPLETING: {S.COMPLETED, S.FAILED, S.TERMINATED},
        S.COMPLETED: {S.TERMINATED},
        S.FAILED: {S.TERMINATED},
        S.TERMINATED: set(),
    }
)
LIVE = frozenset({S.PENDING, S.CREATING, S.RUNNING, S.COMPLETING})
"""States that hold a place in the host's capacity."""


class Verdict(StrEnum):
    """What a silence means (FLT-01)."""

    ALIVE = "alive"
    WARN = "warn"
    DEGRADED = "degraded"
    RESTART = "restart"


def missed(silent_seconds: float, interval: float) -> int:
    """Whole heartbeat intervals that passed in silence; the one that is running does not count."""
    return max(0, int(silent_seconds / interval) - 1) if silent_seconds >= interval else 0


def verdict(missed_heartbeats: int) -> Verdict:
    """The ladder: one miss warns, two degrade, three restart."""
    ladder = (Verdict.ALIVE, Verdict.WARN, Verdict.DEGRADED, Verdict.RESTART)
    return ladder[min(missed_heartbeats, 3)]
