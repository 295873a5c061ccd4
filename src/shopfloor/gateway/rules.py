"""The law of budgets: the last money is spent one call at a time. Pure."""

from dataclasses import dataclass
from enum import StrEnum

SPENT = 402
"""How a call is refused whose budget is used up."""
LIMITED = 429
"""How a call is refused whose account is paused."""


class Verdict(StrEnum):
    """What becomes of a call."""

    GO = "go"
    WAIT = "wait"
    """Others that run may still use up what is left."""
    STOP = "stop"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What may be spent for somebody, and how things stand. US dollars."""

    whose: str
    limit: float
    spent: float
    running: int
    """Calls that were sent and have not ended."""
    at_most: float | None
    """What these can cost together at most; None when there is no telling."""


def verdict(budget: Budget, most: float | None) -> Verdict:
    """Whether a call that costs at most so much may be sent: no budget is ever passed by more than one call."""
    if budget.spent >= budget.limit:
        return Verdict.STOP
    if budget.running == 0:
        return Verdict.GO
    if most is None or budget.at_most is None:
        return Verdict.WAIT
    return Verdict.GO if budget.spent + budget.at_most + most <= budget.limit else Verdict.WAIT
