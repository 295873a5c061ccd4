"""What goes over the wire about projects (OTH-01)."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from shopfloor.kit.errors import Malformed
from shopfloor.kit.http import Body, Schema, Timestamp
from shopfloor.projects import rules


def _allowed(entries: list[str]) -> list[str]:
    try:
        return rules.allow_list(entries)
    except Malformed as error:
        raise ValueError(f"{error.message}. {error.hint}") from error


def _template(template: str | None) -> str | None:
    try:
        return template and rules.check_template(template)
    except Malformed as error:
        raise ValueError(f"{error.message}. {error.hint}") from error


Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[\w][\w .-]*$")]
Url = Annotated[str, Field(min_length=1, max_length=2000)]
Dollars = Annotated[float, Field(gt=0, le=1e9)]
Allow = Annotated[list[str], AfterValidator(_allowed)]
Template = Annotated[str | None, Field(max_length=200), AfterValidator(_template)]


class Gate(Body):
    """Something that must hold before a ticket leaves a column. What each kind reads is the board's to say."""

    kind: Literal["description", "criteria", "tasks_done", "artifact", "change", "evidence"]
    name: str = Field("", max_length=100)
    min_chars: int = Field(0, ge=0, le=1_000_000)
    """Of the description or the artifact."""
    min_count: int = Field(1, ge=0, le=1000)
    """How many criteria there must be."""
    path: str = Field("", max_length=500)
    """A glob over the files at the ticket's head (artifact), or over those it changes (change)."""
    contains: list[Annotated[str, Field(min_length=1, max_length=500)]] = Field(default_factory=list, max_length=50)
    """Words that must be in the text, whatever their case."""


Column = Literal["backlog", "analyzing", "building", "building-done", "testing", "done"]
Limits = dict[Column, Annotated[int, Field(ge=1, le=100_000)]]
Gates = dict[Column, Annotated[list[Gate], Field(max_length=20)]]
ShellLine = Annotated[str, Field(min_length=1, max_length=4000)]


def _with_test(line: str | None) -> str | None:
    if line is not None and "{test}" not in line:
        raise ValueError("test_command must name the test's place with {test}, as in 'pytest -q {test}'")
    return line


TestCommand = Annotated[ShellLine | None, AfterValidator(_with_test)]
Count = Annotated[int, Field(ge=1, le=10_000)]
BranchName = Annotated[str, Field(min_length=1, max_length=255)]


class ProjectRequest(Body):
    """A project to make."""

    name: Name
    repository_url: Url
    description: str = Field("", max_length=10_000)
    agent: str | None = Field(None, max_length=60)
    sandbox_type: str | None = Field(None, max_length=40)
    budget_usd: Dollars | None = None
    """What the models of all its work orders may cost together."""
    work_order_budget_usd: Dollars | None = None
    """What the models of one work order may cost."""
    allow: Allow = Field(default_factory=list)
    branch_template: Template = None
    base_branch: BranchName | None = None
    autonomy: bool = False
    """Off: nothing of it is dispatched, and no ticket moves, by itself."""
    approval: bool = False
    wip_limits: Limits = Field(default_factory=dict)
    gates: Gates = Field(default_factory=dict)
    max_running_tasks: Count | None = None
    test_command: TestCommand = None
    check_command: ShellLine | None = None
    merge_queue: bool = False
    union_check: bool = False
    """Whether `check_command` is run on all live branches merged together, too, whenever one moves."""
    git_gate: bool = False
    """Whether its agents may fetch from it, and push their order's branch, themselves."""


class ProjectPatch(Body):
    """What to change; what is left out stays."""

    name: Name | None = None
    repository_url: Url | None = None
    description: str | None = Field(None, max_length=10_000)
    agent: str | None = Field(None, max_length=60)
    sandbox_type: str | None = Field(None, max_length=40)
    budget_usd: Dollars | None = None
    work_order_budget_usd: Dollars | None = None
    allow: Allow | None = None
    branch_template: Template = None
    base_branch: BranchName | None = None
    autonomy: bool | None = None
    approval: bool | None = None
    wip_limits: Limits | None = None
    gates: Gates | None = None
    max_running_tasks: Count | None = None
    test_command: TestCommand = None
    check_command: ShellLine | None = None
    merge_queue: bool | None = None
    union_check: bool | None = None
    git_gate: bool | None = None


class ProjectView(Schema):
    """A project."""

    project_id: str
    name: str
    repository_url: str
    description: str
    agent: str | None
    sandbox_type: str | None
    budget_usd: float | None
    work_order_budget_usd: float | None
    allow: list[str]
    branch_template: str | None
    base_branch: str | None
    autonomy: bool
    approval: bool
    wip_limits: dict[str, int]
    gates: dict[str, list[Gate]]
    max_running_tasks: int | None
    test_command: str | None
    check_command: str | None
    merge_queue: bool
    union_check: bool
    git_gate: bool
    created_at: Timestamp
    updated_at: Timestamp


class ProjectList(Schema):
    """A page of projects."""

    projects: list[ProjectView]
    total_count: int
    has_more: bool
    next_cursor: str | None


class StartWork(Body):
    """What a ticket's branch is called after."""

    title: str = Field("", max_length=500)
    kind: Literal["feat", "fix", "hotfix", "refactor", "docs", "test", "chore"] = "feat"
    issue: int | None = Field(None, ge=1, le=2**31 - 1)
    base_branch: str | None = Field(None, max_length=255)
    """Where it begins; else at the default branch."""


class WorkStarted(Schema):
    """A branch to work on."""

    branch: str
    base_branch: str
    commit: str
    created: bool


class FinishWork(Body):
    """How a ticket's branch is offered for review."""

    branch: str = Field(min_length=1, max_length=255)
    title: str = Field(min_length=1, max_length=500)
    body: str = Field("", max_length=60_000)
    issue: int | None = Field(None, ge=1, le=2**31 - 1)
    base_branch: str | None = Field(None, max_length=255)


class MergeWork(Body):
    """How a ticket's change is merged."""

    expected_head: str | None = Field(None, pattern=r"^[0-9a-f]{40,64}$")
    """The commit that was looked at: another one is not merged."""
    squash: bool = True


class WorkOffered(Schema):
    """A ticket's change."""

    change_id: str
    number: int | None
    """Its number on its forge."""
    url: str | None
    state: str
    head_branch: str
    head_commit: str
    base_branch: str
    merge_commit: str | None
