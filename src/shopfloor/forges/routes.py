"""The HTTP door of repositories and changes (AWA-01, AWM-11…13)."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import Field

from shopfloor.auth.guard import person
from shopfloor.forges import queries
from shopfloor.forges.models import Change as ChangeRow
from shopfloor.forges.rules import ChangeState, repository_url
from shopfloor.forges.service import Repositories
from shopfloor.forges.steps import hear as hearing
from shopfloor.forges.steps import merge as merging
from shopfloor.forges.steps import verify as verifying
from shopfloor.kit.db import Database
from shopfloor.kit.http import Schema, Timestamp

router = APIRouter(prefix="/api/v1", tags=["repositories and changes"], dependencies=[Depends(person)])
hooks = APIRouter(prefix="/api/v1", tags=["repositories and changes"])
"""Who delivers here shows a signature instead of a key."""
ID = r"^[A-Za-z0-9._-]+$"
"""Our ids; PostgreSQL would choke on other text (NUL)."""
ChangeId = Annotated[str, Path(max_length=40, pattern=ID)]


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


class DeliveryReceipt(Schema):
    """A forge's delivery is stored; what it leads to happens later."""

    accepted: bool
    """False when it was known already."""


class ChangeList(Schema):
    """A page of changes."""

    changes: list[Change]
    total_count: int
    has_more: bool


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


def repositories(request: Request) -> Repositories:
    """The repositories of this host."""
    found: Repositories = request.app.state.repositories
    return found


def database(request: Request) -> Database:
    """The database."""
    found: Database = request.app.state.database
    return found


House = Annotated[Repositories, Depends(repositories)]
Data = Annotated[Database, Depends(database)]


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


@hooks.post("/webhooks/{kind}", status_code=202)
async def receive_webhook(
    kind: Literal["github", "forgejo"], request: Request, data: Data, house: House
) -> DeliveryReceipt:
    """Take what a forge tells: signed, stored once, answered at once."""
    new = await hearing.receive(data, house, kind, request.headers, await request.body())
    if awake := getattr(request.app.state, "forge_inbox", None):
        awake.set()
    return DeliveryReceipt(accepted=new)


def _view(row: ChangeRow) -> Change:
    return Change.model_validate(row)
