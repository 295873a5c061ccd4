"""The law of the board: columns, moves, limits, approval, what blocks a ticket. Pure."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from shopfloor.kit.errors import Malformed
from shopfloor.kit.machine import Machine
from shopfloor.projects.rules import ALIASES, COLUMNS
from shopfloor.tasks.rules import PRIORITIES


class Column(StrEnum):
    """Where a ticket stands (TKT-17): its status, and the phase of its tasks."""

    BACKLOG = "backlog"
    ANALYZING = "analyzing"
    BUILDING = "building"
    BUILDING_DONE = "building-done"
    TESTING = "testing"
    DONE = "done"


C = Column
ORDER = tuple(Column)
WORKING = (C.ANALYZING, C.BUILDING, C.BUILDING_DONE, C.TESTING)
MOVES = Machine(
    {
        C.BACKLOG: {C.ANALYZING},
        C.ANALYZING: {C.BUILDING, C.BACKLOG},
        C.BUILDING: {C.BUILDING_DONE, C.ANALYZING, C.BACKLOG},
        C.BUILDING_DONE: {C.TESTING, C.BUILDING, C.ANALYZING, C.BACKLOG},
        C.TESTING: {C.DONE, C.BUILDING_DONE, C.BUILDING, C.ANALYZING, C.BACKLOG},
        C.DONE: {C.BUILDING},
    }
)
"""One step forward, or back to any earlier column; what is done is reopened into building."""
BACK = {
    C.ANALYZING: C.BACKLOG,
    C.BUILDING: C.ANALYZING,
    C.BUILDING_DONE: C.BUILDING,
    C.TESTING: C.BUILDING,
    C.DONE: C.BUILDING,
}
"""Where a ticket goes back to when nobody says where."""
LIMITS = {C.ANALYZING: 5, C.BUILDING: 10, C.TESTING: 8}
"""How many tickets a column holds when the project does not say."""
assert ORDER == COLUMNS
LONGEST_TASK = 90_000
"""Letters that a task's description may have, as people who make one by API are told: its order's prompt has room for a little more."""


class NoNextColumn(Malformed):
    """There is no column to go to from here."""

    status = 409
    hint = "Look at /api/v1/phases for the way over the board."


def next_column(now: str) -> Column:
    """The column after this one; raises NoNextColumn after the last."""
    place = ORDER.index(Column(now))
    if place + 1 == len(ORDER):
        raise NoNextColumn(f"{now} is the last column")
    return ORDER[place + 1]


def column_before(now: str) -> Column:
    """Where a ticket goes back to; raises NoNextColumn from the first."""
    if (target := BACK.get(Column(now))) is None:
        raise NoNextColumn(f"{now} is the first column")
    return target


def is_forward(before: str, after: str) -> bool:
    """Whether a move is one that gates stand before."""
    return ORDER.index(Column(after)) > ORDER.index(Column(before))


def wip_limit(limits: Mapping[str, Any], column: str) -> int | None:
    """How many tickets a column of a project may hold; None: any number."""
    limit = limits.get(column, LIMITS.get(Column(column)))
    return None if limit is None else int(limit)


def aliases(column: str) -> list[str]:
    """The other names of a column (C8)."""
    return [name.upper().replace("-", "_") for name, means in ALIASES.items() if means == column]


class Approval(StrEnum):
    """Whether anything costly may be done for a ticket."""

    NOT_REQUIRED = "not_required"
    PENDING_REVIEW = "pending_review"
    APPROVED = "approved"
    REJECTED = "rejected"
    TIMED_OUT = "timed_out"


A = Approval
APPROVAL = Machine(
    {
        A.NOT_REQUIRED: set(),
        A.PENDING_REVIEW: {A.APPROVED, A.REJECTED, A.TIMED_OUT},
        A.APPROVED: {A.REJECTED},
        A.REJECTED: {A.APPROVED},
        A.TIMED_OUT: {A.APPROVED, A.REJECTED},
    }
)
"""The deadline decides when nobody does; a person's word counts whenever it comes."""
MAY_COST = frozenset({A.NOT_REQUIRED, A.APPROVED})


class BlockedClass(StrEnum):
    """What is in a ticket's way."""

    DEPENDENCY = "dependency"
    WAITING_ON_CLARIFICATION = "waiting_on_clarification"
    FAILING_CHECKS = "failing_checks"
    ENVIRONMENT = "environment"


class How(StrEnum):
    """By which door a ticket was moved."""

    MOVE = "move"
    TRANSITION = "transition"
    PROGRESS = "progress"
    AUTO = "auto"
    REGRESS = "regress"
    PATCH = "patch"
    FAILED = "failed"
    REOPENED = "reopened"


SPAN = 1e10
"""Seconds between two priorities: more than any clock says."""


def rank(urgency: str, created_seconds: float) -> float:
    """A ticket's place in its column, lower first: by priority, then by age."""
    return PRIORITIES.index(urgency) * SPAN + created_seconds


def blocked_by_facts(*, open_dependencies: bool, failing: bool, broken: bool, undecided: bool) -> BlockedClass | None:
    """The class of a ticket that does not get on: the first cause that a person could not see past."""
    if broken:
        return BlockedClass.ENVIRONMENT
    if failing:
        return BlockedClass.FAILING_CHECKS
    if open_dependencies:
        return BlockedClass.DEPENDENCY
    return BlockedClass.WAITING_ON_CLARIFICATION if undecided else None


ENVIRONMENT_WORDS = (
    "key_missing",
    "unknown_profile",
    "program_missing",
    "sandbox_",
    "no_place",
    "origin_",
    "repository_",
    "git_",
    "budget",
    "account",
    "internal error",
    "was lost",
    "silent",
)
"""Beginnings of what orders say when the place, not the work, was at fault."""


def is_environment(reason: str) -> bool:
    """Whether an order's reason tells of the place it was done in, not of the work."""
    plain = reason.lower()
    return any(word in plain for word in ENVIRONMENT_WORDS)


def shortened(text: str, where: str, most: int = LONGEST_TASK) -> str:
    """The text with at most so many letters; if it had more, it ends by saying so, and `where` all of it is."""
    if len(text) <= most:
        return text
    note = f"\n\n(Cut off here. All {len(text)} letters of it are in {where}.)"
    return text[: max(0, most - len(note))] + note


class NotBack(Malformed):
    """That is no way back."""

    status = 409
    hint = "Name an earlier column, or use progress or transition to go on."


def check_back(now: str, to: str) -> None:
    """Raises NotBack when `to` does not lie before `now`."""
    if now == to or is_forward(now, to):
        raise NotBack(f"from {now} there is no way back to {to}")
