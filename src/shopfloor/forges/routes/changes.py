"""The HTTP door of changes (AWM-13, GIT-03)."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query
from pydantic import Field

from shopfloor.auth.guard import person
from shopfloor.forges import queries
from shopfloor.forges.models import Change as ChangeRow
from shopfloor.forges.port import NotOffered
from shopfloor.forges.routes.common import ID, Data, House
from shopfloor.forges.rules import ChangeState, repository_url
from shopfloor.forges.steps import merge as merging
from shopfloor.forges.steps import review as reviewing
from shopfloor.kit.http import Schema, Timestamp

router = APIRouter(prefix="/api/v1", tags=["repositories and changes"], dependencies=[Depends(person)])
ChangeId = Annotated[str, Path(max_length=40, pattern=ID)]


class Change(Schema):
    """A delivered branch, offered for review."""

    change_id: str
    work_order_id: str
    forge: str
    repository_url: str
    base_branch: str
    base_commit: str
    head_branch: str
    head_commit: str
    title: str
    body: str
    state: ChangeState
    mergeable: str
    """`true`, `false` or `unknown`, as of `checked_at`."""
    conflicts: list[str]
    checked_at: Timestamp | None
    merge_commit: str | None
    url: str | None
    number: int | None
    """Its number on its forge."""
    created_at: Timestamp
    merged_at: Timestamp | None
    closed_at: Timestamp | None


class ChangeList(Schema):
    """A page of changes."""

    changes: list[Change]
    total_count: int
    has_more: bool


class PullRequest(Schema):
    """AWM-13; of any forge with pages."""

    pull_request_number: int
    pull_request_title: str
    pull_request_url: str
    head_branch: str
    base_branch: str
    state: ChangeState


class Review(Schema):
    """What a reviewer said about a change."""

    author: str
    verdict: str
    body: str
    commit: str


class ReviewList(Schema):
    """All reviews of a change, oldest first."""

    reviews: list[Review]


class ReviewRequest(Schema):
    """A verdict on what the change is now."""

    verdict: Literal["approved", "changes_requested", "commented"]
    body: str = Field("", max_length=20000)
    author: str = Field("", max_length=100)
    expected_head: str | None = Field(None, pattern=r"^[0-9a-f]{40,64}$")
    """Refuse when the change is not at this commit any more."""


class Check(Schema):
    """What a program thinks of the change's commit."""

    name: str
    state: str
    url: str
    summary: str


class CheckList(Schema):
    """All checks of the change's commit."""

    checks: list[Check]


class ChangeDiff(Schema):
    """What a change changes, as text."""

    change_id: str
    base_commit: str
    head_commit: str
    diff: str
    truncated: bool


class MergeRequest(Schema):
    """How to merge."""

    expected_head: str | None = Field(None, pattern=r"^[0-9a-f]{40,64}$")
    """Merge only if the change still is at this commit."""
    squash: bool = False
    delete_branch: bool | None = None
    """Remove the change's branch afterwards; by default as the forge's settings say, of plain git it stays."""


@router.get("/changes")
async def list_changes(
    data: Data,
    state: ChangeState | None = None,
    work_order_id: Annotated[str | None, Query(max_length=40, pattern=ID)] = None,
    repository: Annotated[str | None, Query(max_length=2000)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    offset: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
) -> ChangeList:
    """Changes, newest first; whether they merge is as of `checked_at`."""
    where = repository_url(repository) if repository is not None else None
    async with data.reading() as session:
        rows, total = await queries.listing(
            session,
            state=state,
            work_order_id=work_order_id,
            repository_url=where,
            limit=limit,
            offset=offset,
        )
    return ChangeList(
        changes=[Change.model_validate(row) for row in rows], total_count=total, has_more=offset + len(rows) < total
    )


@router.get("/changes/{change_id}")
async def get_change(change_id: ChangeId, data: Data, house: House) -> Change:
    """One change; while it is open, with what merging it would do right now."""
    return _view(await merging.refreshed(data, house, change_id))


@router.get("/changes/{change_id}/diff")
async def get_change_diff(change_id: ChangeId, data: Data, house: House) -> ChangeDiff:
    """What the change changes since it left its base."""
    async with data.reading() as session:
        row = await queries.get(session, change_id)
    shown = await house.diff(row.repository_url, row.base_commit, row.head_commit)
    return ChangeDiff(
        change_id=change_id,
        base_commit=row.base_commit,
        head_commit=row.head_commit,
        diff=shown.text,
        truncated=shown.truncated,
    )


@router.post("/changes/{change_id}/merge")
async def merge_change(change_id: ChangeId, data: Data, house: House, body: MergeRequest | None = None) -> Change:
    """Make the change part of its base branch; repeating it changes nothing."""
    wish = body or MergeRequest()
    merged = await merging.merge(data, house, change_id, **wish.model_dump())
    return _view(merged)


@router.post("/changes/{change_id}/close")
async def close_change(change_id: ChangeId, data: Data, house: House) -> Change:
    """Withdraw the change; its branch stays."""
    return _view(await merging.close(data, house, change_id))


@router.delete("/changes/{change_id}/branch")
async def delete_change_branch(change_id: ChangeId, data: Data, house: House) -> Change:
    """Remove the branch of a change that has ended; one that somebody moved, or that another change stands on, stays."""
    return _view(await merging.delete_branch(data, house, change_id))


@router.get("/changes/{change_id}/pull-request")
async def get_pull_request(change_id: ChangeId, data: Data, house: House) -> PullRequest:
    """The change as its forge shows it (AWM-13)."""
    row = await merging.refreshed(data, house, change_id)
    if row.number is None or row.url is None:
        raise NotOffered(f"{row.repository_url[:200]} has no pull requests")
    return PullRequest(
        pull_request_number=row.number,
        pull_request_title=row.title,
        pull_request_url=row.url,
        head_branch=row.head_branch,
        base_branch=row.base_branch,
        state=ChangeState(row.state),
    )


@router.get("/changes/{change_id}/reviews")
async def list_reviews(change_id: ChangeId, data: Data, house: House) -> ReviewList:
    """What reviewers said, on the forge or here."""
    return ReviewList(reviews=[Review.model_validate(one) for one in await reviewing.reviews(data, house, change_id)])


@router.post("/changes/{change_id}/reviews", status_code=201)
async def review_change(change_id: ChangeId, body: ReviewRequest, data: Data, house: House) -> Review:
    """Approve a change of plain git, or ask for changes; a forge with pages is reviewed there."""
    return Review.model_validate(await reviewing.review(data, house, change_id, **body.model_dump()))


@router.get("/changes/{change_id}/checks")
async def list_checks(change_id: ChangeId, data: Data, house: House) -> CheckList:
    """What programs of the forge think of the change's commit."""
    return CheckList(checks=[Check.model_validate(vars(one)) for one in await reviewing.checks(data, house, change_id)])


def _view(row: ChangeRow) -> Change:
    return Change.model_validate(row)
