"""What goes over the wire about tasks."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from shopfloor.kit.http import Body, Schema, Timestamp
from shopfloor.tasks import rules
from shopfloor.tasks.rules import TaskStatus

TaskId = Annotated[str, Field(max_length=40, pattern=r"^[A-Za-z0-9._-]+$")]
Seconds = Annotated[float, Field(gt=0, le=7 * 86400)]
Paths = Annotated[list[Annotated[str, Field(min_length=1, max_length=500)]], Field(max_length=200)]
Title = Annotated[str, Field(max_length=500)]
Description = Annotated[str, Field(max_length=90_000)]
Name = Annotated[str, Field(min_length=1, max_length=20)]
BranchName = Annotated[str, Field(min_length=1, max_length=255)]
Deadline = Annotated[AwareDatetime, Field(ge=datetime(2000, 1, 1, tzinfo=UTC), lt=datetime(2200, 1, 1, tzinfo=UTC))]
"""Far from where a calendar ends: what rounds or changes its zone must not leave it."""
Retries = Annotated[int, Field(ge=0, le=20)]


class Words(Body):
    """What an agent is to be told."""

    title: Title = ""
    """Empty: made of the description by rule."""
    description: Description = ""
    """What the agent is told."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.title.strip() and rules.title(self.description) == rules.UNTITLED:
            raise ValueError("a task without any words: give it a title or a description")
        return self


class CreateTask(Words):
    """Something to do."""

    project: str = Field(min_length=1, max_length=100)
    """A project's id or name."""
    ticket_id: str | None = Field(None, min_length=1, max_length=40, pattern=r"^[A-Za-z0-9._-]+$")
    phase: str = Field("building", max_length=40)
    """The column of the board; the four names of 002 are known too."""
    workflow_type: str | None = Field(None, max_length=60)
    priority: Name = "medium"
    agent: str | None = Field(None, max_length=60)
    model: str | None = Field(None, max_length=200)
    agent_options: dict[str, Any] = Field(default_factory=dict)
    base_branch: BranchName | None = None
    owned_paths: Paths = Field(default_factory=list)
    """Globs of the files it may touch: tasks that share some do not run together."""
    depends_on: list[TaskId] = Field(default_factory=list, max_length=500)
    deadline: Deadline | None = None
    timeout_seconds: Seconds | None = None
    max_retries: Retries = 3
    force: bool = False
    """Start it though its project is not autonomous."""


class TaskPatch(Body):
    """What to change; what is left out stays."""

    title: str | None = Field(None, min_length=1, max_length=500)
    description: Description | None = None
    workflow_type: str | None = Field(None, max_length=60)
    priority: Name | None = None
    agent: str | None = Field(None, max_length=60)
    model: str | None = Field(None, max_length=200)
    agent_options: dict[str, Any] | None = None
    base_branch: BranchName | None = None
    owned_paths: Paths | None = None
    deadline: Deadline | None = None
    timeout_seconds: Seconds | None = None
    max_retries: Retries | None = None


class TaskView(Schema):
    """A task."""

    task_id: str
    project_id: str
    ticket_id: str | None
    spec_id: str | None
    phase: str
    title: str
    description: str
    workflow_type: str
    priority: str
    agent: str | None
    model: str | None
    base_branch: str | None
    owned_paths: list[str]
    depends_on: list[str]
    open_dependencies: int
    """How many of those are not completed."""
    deadline: Timestamp | None
    rank: float
    timeout_seconds: float | None
    max_retries: int
    retries: int
    not_before: Timestamp | None
    status: TaskStatus
    reason: str
    stopping: TaskStatus | None
    held: bool
    forced: bool
    work_order_id: str | None
    sandbox_id: str | None
    conversation_id: str | None
    result: dict[str, Any] | None
    cost_usd: float | None
    created_at: Timestamp
    updated_at: Timestamp
    started_at: Timestamp | None
    ended_at: Timestamp | None


class TaskList(Schema):
    """A page of tasks."""

    tasks: list[TaskView]
    total_count: int
    has_more: bool
    next_cursor: str | None
    """Give it as `cursor` to go on."""


class Dependencies(Schema):
    """What a task waits for, and what waits for it."""

    task_id: str
    depends_on: list[str]
    open_dependencies: int
    blocks: list[str]


class DependencyRequest(Body):
    """Tasks to wait for."""

    depends_on: list[TaskId] = Field(max_length=500)


class Circular(Schema):
    """Whether dependencies would close a circle, and which."""

    task_id: str
    circular: bool
    circle: list[str]


class Cancel(Body):
    """Why."""

    reason: str = Field("cancelled", min_length=1, max_length=2000)


class Retry(Body):
    """How a task is tried again."""

    reason: str = Field("retry asked for", min_length=1, max_length=2000)
    afresh: bool = False
    """A new order and branch, instead of going on with what is there."""


class SetTimeout(Body):
    """How long each sandbox of the task may run."""

    timeout_seconds: Seconds


class TimeoutStatus(Schema):
    """How a task stands to its time limit. Only the time in its present sandbox counts."""

    task_id: str
    status: TaskStatus
    timeout_seconds: float
    running_seconds: float | None
    left_seconds: float | None
    timed_out: bool


class TimedOut(Schema):
    """A task that ran too long."""

    task: TaskView
    running_seconds: float


class TimedOutList(Schema):
    """Tasks that ran too long."""

    tasks: list[TimedOut]
    total_count: int


class CleanedUp(Schema):
    """What was stopped."""

    tasks: list[str]


class TitleRequest(Body):
    """A title to take as it is; else one is made."""

    title: str | None = Field(None, min_length=1, max_length=500)
    agent: str | None = Field(None, min_length=1, max_length=60)
    """Ask an agent of this profile: the title comes when its work order has answered."""


class TitlesRequest(Body):
    """Whose titles to make; none: of every task whose title says nothing."""

    task_ids: list[TaskId] = Field(default_factory=list, max_length=500)
    agent: str | None = Field(None, min_length=1, max_length=60)


class Titled(Schema):
    """A task's title."""

    task_id: str
    title: str
    by: Literal["rule", "given", "agent"]
    """An agent's comes later: until then the title stays as it is."""
    work_order_id: str | None = None
    """Who was asked."""


class TitledList(Schema):
    """Titles that were made."""

    titles: list[Titled]


class Conversation(Body):
    """The agent's conversation (TSK-12)."""

    conversation_id: str = Field(min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$")
    sandbox_id: str | None = Field(None, max_length=200)


class FileChanged(Body):
    """One file that a task changed."""

    path: str = Field(min_length=1, max_length=4096)
    action: str = Field("modified", max_length=40)


class TaskResult(Body):
    """How a task ended (RES-01)."""

    status: Literal["completed", "failed"]
    summary: str = Field("", max_length=20_000)
    files_changed: list[FileChanged] = Field(default_factory=list, max_length=10_000)


class ResultView(Schema):
    """What is known of a task's end."""

    task_id: str
    ticket_id: str | None
    phase: str
    status: TaskStatus
    result: dict[str, Any] | None
    note: str
    """What else it takes for the task to end."""


class ResultList(Schema):
    """A page of results."""

    results: list[ResultView]
    total_count: int
    has_more: bool
    next_cursor: str | None


class Node(Schema):
    """A task in a graph."""

    task_id: str
    title: str
    status: TaskStatus
    phase: str
    ticket_id: str | None


class Edge(Schema):
    """`task_id` waits for `depends_on`."""

    task_id: str
    depends_on: str


class Graph(Schema):
    """What waits for what."""

    kind: Literal["project", "ticket", "task"]
    id: str
    nodes: list[Node]
    edges: list[Edge]
    truncated: bool
    """There are more tasks than are shown."""


class Explanation(Schema):
    """Why a task stands where it stands."""

    subject: str
    status: TaskStatus
    since: Timestamp | None
    reason: str
    evidence: list[dict[str, Any]]
    what_would_change_it: list[str]
