"""What goes over the wire about criteria, runs of checks and the ledger."""

from typing import Annotated, Any, Literal

from pydantic import Field

from shopfloor.evidence.rules import Check, RunState, Stand, Verdict
from shopfloor.kit.http import Body, Schema, Timestamp

Text = Annotated[str, Field(min_length=1, max_length=4000)]


class CriterionRequest(Body):
    """Something that must hold. Without a check only a person can say whether it does."""

    text: Text
    check: Check | None = None


class CriterionPatch(Body):
    """What to change; what is left out stays."""

    text: Text | None = None
    check: Check | None = None
    """Null takes the check away."""
    position: int | None = Field(None, ge=0, le=100_000)


class CriterionView(Schema):
    """A criterion."""

    criterion_id: str
    subject_id: str
    position: int
    text: str
    check: dict[str, Any] | None
    created_at: Timestamp
    retired_at: Timestamp | None


class Review(Body):
    """What a person says of a criterion at a commit, after looking at it."""

    commit: str = Field(pattern=r"^[0-9a-f]{40}([0-9a-f]{24})?$")
    verdict: Literal["passed", "failed"]
    reason: str = Field(min_length=1, max_length=4000)
    by: str = Field("operator", min_length=1, max_length=100, pattern=r"^[\w .@-]+$")
    """The person's name, as the ledger keeps it."""


class ProofView(Schema):
    """A row of the ledger."""

    id: int
    criterion_id: str
    commit: str
    verdict: Verdict
    reason: str
    said_by: str
    run_id: str | None
    output_sha256: str | None
    took_ms: int | None
    created_at: Timestamp


class EvidenceView(ProofView):
    """A row of the ledger with the end of what was printed."""

    output: str


class EvidenceList(Schema):
    """All that was ever found of a criterion, newest first."""

    evidence: list[EvidenceView]


class StandingView(Schema):
    """How a criterion stands at a commit, and the finding that says so."""

    criterion: CriterionView
    verdict: Stand
    evidence: ProofView | None


class EvidenceTable(Schema):
    """How all criteria of a subject stand at a commit."""

    subject_id: str
    commit: str | None
    proven: bool
    """All of them have fresh passing evidence; false when there is none to prove."""
    standings: list[StandingView]


class ResultView(Schema):
    """What one check of a run found."""

    number: int
    criterion_id: str | None
    verdict: Verdict
    reason: str
    output_sha256: str | None
    took_ms: int | None


class CheckRunView(Schema):
    """Checks that run together on one commit."""

    run_id: str
    subject_id: str
    purpose: str
    project_id: str | None
    base_commit: str
    commit: str
    checks: list[dict[str, Any]]
    state: RunState
    verdict: Verdict | None
    reason: str
    results: list[ResultView]
    attempts: int
    sandbox_id: str | None
    created_at: Timestamp
    started_at: Timestamp | None
    ended_at: Timestamp | None


class CheckRunList(Schema):
    """A page of runs."""

    check_runs: list[CheckRunView]
    total_count: int
    has_more: bool
