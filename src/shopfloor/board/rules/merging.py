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
    """Somebody took it out, or something other than its content kept it from being merged: it can be queued again."""


M = MergeState
MERGE = Machine(
    {
        M.WAITING: {M.CHECKING, M.MERGING, M.REFUSED, M.LEFT},
        M.CHECKING: {M.WAITING, M.MERGING, M.REFUSED, M.LEFT},
        M.MERGING: {M.WAITING, M.MERGED, M.REFUSED, M.LEFT},
        M.MERGED: set(),
        M.REFUSED: set(),
        M.LEFT: set(),
    }
)
QUEUED = frozenset({M.WAITING, M.CHECKING, M.MERGING})


MOST_TOGETHER = 8
"""How many are tried together at first: a failure costs all their checks."""
DATE = "2000-01-01T00:00:00Z"
"""Of commits that are only checked, and given to nobody: the same branches are the same commit, wherever and whenever they are merged."""
MOST_RUNS = 3
"""How often a merged commit is checked that could not be judged."""


def halved(batch: int) -> int:
    """How many to try together after so many failed together."""
    return max(1, batch // 2)
