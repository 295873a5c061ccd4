"""The law of the merge queue. Pure."""

from enum import StrEnum

from shopfloor.kit.machine import Machine


class MergeState(StrEnum):
    """Where a ticket stands in its project's merge queue."""

    WAITING = "waiting"
    CHECKING = "checking"
    """Merged in memory with those before it, and the result is being checked."""
    MERGING = "merging"
    MERGED = "merged"
    REFUSED = "refused"
    """It does not merge, or what it makes of the base does not pass."""
    LEFT = "left"
    """Somebody took it out."""


M = MergeState
MERGE = Machine(
    {
        M.WAITING: {M.CHECKING, M.MERGING, M.REFUSED, M.LEFT},
        M.CHECKING: {M.WAITING, M.MERGING, M.REFUSED, M.LEFT},
        M.MERGING: {M.WAITING, M.MERGED, M.REFUSED},
        M.MERGED: set(),
        M.REFUSED: set(),
        M.LEFT: set(),
    }
)
QUEUED = frozenset({M.WAITING, M.CHECKING, M.MERGING})


def halved(batch: int) -> int:
    """How many to try together after so many failed together."""
    return max(1, batch // 2)
