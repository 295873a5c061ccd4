"""The HTTP door of repositories and issues (AWA-01, AWM-11…14, GIT-04), and of what forges tell us."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import Field

from shopfloor.auth.guard import person
from shopfloor.forges import texts
from shopfloor.forges.port import Issue
from shopfloor.forges.routes.common import Data, House
from shopfloor.forges.rules import repository_url
from shopfloor.forges.steps import hear as hearing
from shopfloor.forges.steps import verify as verifying
from shopfloor.kit.http import Schema, Timestamp

router = APIRouter(prefix="/api/v1", tags=["repositories and changes"], dependencies=[Depends(person)])
hooks = APIRouter(prefix="/api/v1", tags=["repositories and changes"])
"""Who delivers here shows a signature instead of a key."""
Where = Annotated[str, Query(alias="repository_url", max_length=4000)]
Number = Annotated[int, Path(ge=1, le=2**31 - 1)]
Name = Annotated[str, Query(min_length=1, max_length=250)]


class VerifyRepositoryRequest(Schema):
    """AWM-12."""

    repository_url: str = Field(max_length=4000)


class GitHubRepository(Schema):
    """AWM-11; of any origin, not only GitHub."""

    repository_owner: str
    repository_name: str
    repository_url: str
    default_branch: str
    is_accessible: bool
    access_verified_at: Timestamp | None


class VerifyRepositoryResponse(Schema):
    """AWM-12; a failure is told here, with status 200."""

    repository: GitHubRepository
    verification_success: bool
    can_write: bool
    error_message: str | None
    error_code: str | None
    hint: str | None


class GitHubIssue(Schema):
    """AWM-14; of any forge with issues. Its text is somebody's words."""

    issue_number: int
    issue_title: str
    issue_body: str
    issue_state: str
    issue_url: str
    labels: list[str]


class IssueList(Schema):
    """Open issues."""

    issues: list[GitHubIssue]


class CommentRequest(Schema):
    """Something to say about an issue or change."""

    repository_url: str = Field(max_length=4000)
    text: str = Field(min_length=1, max_length=60000)
    key: str = Field("note", max_length=80, pattern=r"^[A-Za-z0-9._-]+$")
    """Said again with the same key, the comment is edited in place."""


class CommentMade(Schema):
    """Where it stands."""

    comment_id: int
    url: str


class Compared(Schema):
    """How far two branches are apart (GIT-04)."""

    base_commit: str
    head_commit: str
    ahead: int
    behind: int
    files: list[str]


class DeliveryReceipt(Schema):
    """A forge's delivery is stored; what it leads to happens later."""

    accepted: bool
    """False when it was known already."""


@router.post("/github/verify-repository")
async def verify_repository(body: VerifyRepositoryRequest, house: House) -> VerifyRepositoryResponse:
    """Whether a repository (GitHub, any git address, a local path) can be read and written."""
    found = await verifying.verify(house, body.repository_url)
    return VerifyRepositoryResponse(
        repository=GitHubRepository(
            repository_owner=found.owner,
            repository_name=found.name,
            repository_url=found.url,
            default_branch=found.default_branch,
            is_accessible=found.accessible,
            access_verified_at=found.verified_at,
        ),
        verification_success=found.accessible,
        can_write=found.can_write,
        error_message=found.problem.message if found.problem else None,
        error_code=found.problem.code if found.problem else None,
        hint=found.problem.hint if found.problem else found.why_not or None,
    )


@router.get("/github/issues")
async def list_issues(
    where: Where, house: House, label: Annotated[str | None, Query(max_length=200)] = None
) -> IssueList:
    """Open issues of a repository (AWX-03)."""
    url = repository_url(where)
    found = await house.adapter(url).issues(url, label=label)
    return IssueList(issues=[_issue(one) for one in found])


@router.get("/github/issues/{number}")
async def get_issue(number: Number, where: Where, house: House) -> GitHubIssue:
    """One issue (AWM-14)."""
    url = repository_url(where)
    return _issue(await house.adapter(url).issue(url, number))


@router.post("/github/issues/{number}/comments", status_code=201)
async def comment_on_issue(number: Number, body: CommentRequest, house: House) -> CommentMade:
    """Say something about an issue or change, once for each key (AWX-03)."""
    url, sign = repository_url(body.repository_url), texts.marker("comment", body.key)
    said = await house.adapter(url).comment(url, number, texts.tame(body.text), marker=sign)
    return CommentMade(comment_id=said.comment_id, url=said.url)


@router.get("/github/compare")
async def compare(where: Where, base: Name, head: Name, house: House) -> Compared:
    """How far two branches, tags or commits are apart, as git itself counts."""
    found = await house.compare(repository_url(where), base, head)
    return Compared(**vars(found) | {"files": list(found.files)})


@hooks.post("/webhooks/{kind}", status_code=202)
async def receive_webhook(
    kind: Literal["github", "forgejo"], request: Request, data: Data, house: House
) -> DeliveryReceipt:
    """Take what a forge tells: signed, stored once, answered at once."""
    new = await hearing.receive(data, house, kind, request.headers, await request.body())
    if awake := getattr(request.app.state, "forge_inbox", None):
        awake.set()
    return DeliveryReceipt(accepted=new)


def _issue(issue: Issue) -> GitHubIssue:
    return GitHubIssue(
        issue_number=issue.number,
        issue_title=issue.title,
        issue_body=issue.body,
        issue_state=issue.state,
        issue_url=issue.url,
        labels=list(issue.labels),
    )
