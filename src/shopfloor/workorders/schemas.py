"""What goes over the wire about work orders: names and fields as the product requirements give them (AWM-*)."""

from typing import Any, Literal

from pydantic import Field

from shopfloor.kit.http import Body, Schema, Timestamp
from shopfloor.workorders.rules import OrderStatus

LONGEST_PROMPT = 100_000


class CreateAgentWorkOrderRequest(Body):
    """AWM-07, with what our users need beside it."""

    repository_url: str = Field(min_length=1, max_length=2000)
    workflow_type: str = "agent_workflow_plan_build_test"
    sandbox_type: str | None = None
    github_issue_number: int | None = Field(None, ge=1, le=2**31 - 1)
    initial_prompt: str = Field("", max_length=LONGEST_PROMPT)
    agent: str | None = Field(None, max_length=60)
    model: str | None = Field(None, max_length=200)
    base_branch: str | None = Field(None, max_length=255)
    agent_options: dict[str, Any] = Field(default_factory=dict)
    allow_no_isolation: bool = False
    budget_usd: float | None = Field(None, gt=0, le=1e9)
    """What its models may cost; else the project's or the server's rule."""
    max_attempts: int | None = Field(None, ge=1, le=20)
    timeout_seconds: float | None = Field(None, gt=0, le=7 * 86400)


class AgentWorkOrder(Schema):
    """AWM-06, with what our users need beside it."""

    agent_work_order_id: str
    repository_url: str
    sandbox_identifier: str | None
    git_branch_name: str | None
    agent_session_id: str | None
    workflow_type: str
    sandbox_type: str
    agent: str
    model: str | None
    github_issue_number: int | None
    initial_prompt: str
    status: OrderStatus
    reason: str
    current_phase: str | None
    base_branch: str | None
    base_commit: str | None
    head_commit: str | None
    change_id: str | None
    github_pull_request_url: str | None
    git_commit_count: int
    git_files_changed: int
    git_lines_added: int
    git_lines_removed: int
    project_id: str | None
    task_id: str | None
    ticket_id: str | None
    spec_id: str | None
    account: str | None
    budget_usd: float | None
    cost_usd: float | None
    paused_until: Timestamp | None
    """Until when its model account may not be used, by its provider's word."""
    attempts: int
    max_attempts: int
    error_message: str | None
    cancel_requested_at: Timestamp | None
    created_at: Timestamp
    updated_at: Timestamp
    execution_started_at: Timestamp | None
    execution_completed_at: Timestamp | None


class AgentWorkOrderResponse(Schema):
    """AWM-09."""

    agent_work_order: AgentWorkOrder
    logs_url: str


class AgentWorkOrderList(Schema):
    """AWA-07."""

    agent_work_orders: list[AgentWorkOrder]
    total_count: int
    has_more: bool


class PromptRequest(Body):
    """AWM-08; the id in the body may be left out, it is in the path."""

    prompt_text: str = Field(min_length=1, max_length=10_000)
    agent_work_order_id: str | None = None


class PromptResponse(Schema):
    """AWA-03."""

    agent_work_order_id: str
    prompt_accepted: bool
    message: str
    message_id: str | None


class RetryRequest(Body):
    """How to go on."""

    prompt: str = Field("", max_length=100_000)
    agent: str | None = Field(None, max_length=60)
    model: str | None = Field(None, max_length=200)
    budget_usd: float | None = Field(None, gt=0, le=1e9)
    """A new budget for the whole order, what was spent included."""
    pin: int | None = Field(None, ge=1, le=2**31 - 1)
    """Start from what was pinned instead of the last commit that was handed out."""


class PinView(Schema):
    """Something kept of a removed sandbox."""

    id: int
    sandbox_id: str
    work_order_id: str | None
    attempt_id: str | None
    kind: str
    content: str
    refs: list[str]
    facts: dict[str, Any]
    size: int
    reason: str
    note: str
    created_at: Timestamp
    gone_at: Timestamp | None


class PinPage(Schema):
    """What is or was kept, newest first."""

    pins: list[PinView]
    total_count: int
    has_more: bool


class GoingView(Schema):
    """Something that policy lets go."""

    what: str
    name: str
    work_order_id: str | None
    size: int
    why: str
    pin: int | None


class SweepResponse(Schema):
    """What went, or would go."""

    dry_run: bool
    going: list[GoingView]


class PhaseHistory(Schema):
    """One phase as the branch's commits tell it."""

    phase: str
    started_at: Timestamp | None
    completed_at: Timestamp | None
    commits: int


class GitProgress(Schema):
    """AWM-10, computed by git from the branch."""

    agent_work_order_id: str
    current_phase: str | None
    git_commit_count: int
    git_files_changed: int
    git_lines_added: int
    git_lines_removed: int
    latest_commit_message: str | None
    latest_commit_sha: str | None
    snapshot_timestamp: Timestamp
    phase_history: list[PhaseHistory]


class LogPage(Schema):
    """AWA-06."""

    agent_work_order_id: str
    log_entries: list[dict[str, Any]]
    total_count: int
    has_more: bool


class Explanation(Schema):
    """Why a status is what it is."""

    subject: str
    status: str
    since: Timestamp | None
    reason: str
    evidence: list[dict[str, Any]]
    what_would_change_it: list[str]


class ResultRequest(Body):
    """What a worker submits at the end (WRK-04)."""

    fencing: int = Field(ge=0, le=2**31 - 1)
    status: Literal["completed", "failed", "interrupted"]
    summary: str = Field("", max_length=20_000)
    reason: str = Field("", max_length=20_000)
    files_changed: list[dict[str, str]] = Field(default_factory=list, max_length=10_000)
    head_sha: str | None = Field(None, pattern=r"^[0-9a-f]{40,64}$")
    agent_session_id: str | None = Field(None, max_length=255)
    cost_usd: float | None = Field(None, ge=0)
    usage: dict[str, Any] = Field(default_factory=dict)


class ResultResponse(Schema):
    """Whether this was the first time."""

    recorded: bool


class ArtifactResponse(Schema):
    """What was stored."""

    name: str
    sha256: str
    size: int
