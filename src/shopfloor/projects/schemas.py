"""What goes over the wire about projects (OTH-01)."""

from typing import Annotated

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
    created_at: Timestamp
    updated_at: Timestamp


class ProjectList(Schema):
    """A page of projects."""

    projects: list[ProjectView]
    total_count: int
    has_more: bool
