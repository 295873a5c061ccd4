"""What goes over the wire about tickets and the board."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from shopfloor.board.rules import BlockedClass
from shopfloor.kit.errors import Malformed
from shopfloor.kit.http import Body, Schema, Timestamp
from shopfloor.projects.rules import column
from shopfloor.tasks.rules import priority
from shopfloor.tasks.schemas import Words


def _column(name: str) -> str:
    try:
        return column(name)
    except Malformed as error:
        raise ValueError(f"{error.message}. {error.hint}") from error


def _priority(name: str) -> str:
    try:
        return priority(name)
    except Malformed as error:
        raise ValueError(f"{error.message}. {error.hint}") from error


ColumnName = Annotated[str, Field(min_length=1, max_length=60), AfterValidator(_column)]
"""A column, or one of its other names (C8)."""
Priority = Annotated[str, Field(min_length=1, max_length=20), AfterValidator(_priority)]
Title = Annotated[str, Field(min_length=1, max_length=500, pattern=r"\S")]
Text = Annotated[str, Field(max_length=200_000)]
Reason = Annotated[str, Field(max_length=4000)]
Who = Annotated[str, Field(max_length=100, pattern=r"^[\w .@+-]*$")]
TicketIds = Annotated[list[Annotated[str, Field(min_length=1, max_length=40)]], Field(max_length=100)]
Kind = Literal["feat", "fix", "hotfix", "refactor", "docs", "test", "chore"]


class CriterionRequest(Body):
    """Something that must hold; `check` says how it is found out, see /api/v1/criteria."""

    text: Annotated[str, Field(min_length=1, max_length=4000)]
    check: dict[str, Any] | None = None


class TaskRequest(Words):
    """A task to make with its ticket."""

    phase: ColumnName = "building"
    agent: str | None = Field(None, max_length=60)
    model: str | None = Field(None, max_length=200)
    agent_options: dict[str, Any] = Field(default_factory=dict)
    owned_paths: list[Annotated[str, Field(max_length=500)]] = Field(default_factory=list, max_length=200)


class TicketRequest(Body):
    """A ticket to make."""

    project: str = Field(min_length=1, max_length=100)
    """A project's id or name."""
    title: Title
    description: Text = ""
    kind: Kind = "feat"
    priority: Priority = "medium"
    owner: Who | None = None
    spec_id: str | None = Field(None, max_length=40)
    github_issue_number: int | None = Field(None, ge=1, le=2**31 - 1)
    rank: float | None = Field(None, ge=-1e15, le=1e15)
    criteria: list[CriterionRequest] = Field(default_factory=list, max_length=100)
    tasks: list[TaskRequest] = Field(default_factory=list, max_length=100)
    blocked_by: TicketIds = Field(default_factory=list)
    require_approval: bool | None = None
    """None: as the project says. A project that asks for approval cannot be asked for less."""
    approval_seconds: float | None = Field(None, ge=60, le=86400)
    force_create: bool = False
    """Make it although there are tickets like it."""
    by: Who = ""


class TicketPatch(Body):
    """What to change; what is left out stays. `status` goes through the gates like every other move."""

    title: Title | None = None
    description: Text | None = None
    kind: Kind | None = None
    priority: Priority | None = None
    owner: Who | None = None
    spec_id: str | None = Field(None, max_length=40)
    github_issue_number: int | None = Field(None, ge=1, le=2**31 - 1)
    rank: float | None = Field(None, ge=-1e15, le=1e15)
    blocked_by: TicketIds | None = None
    status: ColumnName | None = None
    reason: Reason = ""
    override: bool = False
    by: Who = ""


class Said(Body):
    """Who does something, and why."""

    reason: Reason = ""
    by: Who = ""


class Move(Said):
    """A ticket's next step."""

    override: bool = False
    """Pass the gates that do not hold: needs a reason, and stays in the history."""


class Transition(Move):
    """A ticket's step to a column."""

    to_status: ColumnName


class Regress(Said):
    """A ticket's way back; without a column, the one before."""

    to_status: ColumnName | None = None


class BoardMove(Move):
    """A ticket's step on the board."""

    ticket_id: str = Field(min_length=1, max_length=40)
    target_phase: ColumnName


class Block(Said):
    """What is in a ticket's way."""

    blocked_class: BlockedClass = BlockedClass.WAITING_ON_CLARIFICATION


class Decision(Said):
    """A word about a ticket that waits for approval."""

    ticket_id: str = Field(min_length=1, max_length=40)


class Lookup(Body):
    """A text that may be a ticket already."""

    project: str = Field(min_length=1, max_length=100)
    title: Title
    description: Text = ""
    threshold: float | None = Field(None, gt=0, le=1)
    limit: int = Field(10, ge=1, le=50)


class CandidateView(Schema):
    """A ticket that may be the same."""

    ticket_id: str
    title: str
    status: str
    score: float


class Lookalikes(Schema):
    """Tickets like a text."""

    is_duplicate: bool
    threshold: float
    candidates: list[CandidateView]


class TicketView(Schema):
    """A ticket."""

    ticket_id: str
    project_id: str
    spec_id: str | None
    owner: str | None
    title: str
    description: str
    kind: str
    priority: str
    rank: float
    github_issue_number: int | None
    status: str
    previous_status: str | None
    reason: str
    is_blocked: bool
    blocked_class: str | None
    blocked_reason: str
    blocked_at: Timestamp | None
    approval: str
    approval_deadline: Timestamp | None
    approval_by: str | None
    approval_reason: str
    context_summary: str
    branch: str | None
    base_branch: str | None
    base_commit: str | None
    head_commit: str | None
    change_id: str | None
    merge_commit: str | None
    conflicts: list[Any]
    behind: int
    created_at: Timestamp
    updated_at: Timestamp
    progressed_at: Timestamp
    done_at: Timestamp | None
    archived_at: Timestamp | None


class TicketDetail(TicketView):
    """A ticket with what stands below it."""

    blocked_by: list[str]
    tasks: dict[str, dict[str, int]]
    """Column -> status -> how many."""
    evidence: dict[str, int]
    cost_usd: float | None


class TicketList(Schema):
    """A page of tickets."""

    tickets: list[TicketView]
    next_cursor: str | None
    total_count: int


class MoveView(Schema):
    """A step of a ticket's way."""

    before: str
    after: str
    how: str
    moved_by: str
    reason: str
    overridden: list[Any]
    created_at: Timestamp


class History(Schema):
    """A ticket's way over the board."""

    ticket_id: str
    moves: list[MoveView]
