"""Reads of changes."""

from collections.abc import Sequence

import sqlalchemy as sa

from shopfloor.forges.models import Change, ChangeReview
from shopfloor.forges.rules import Kind, address, spellings
from shopfloor.kit.db import Session, db_time
from shopfloor.kit.errors import NotFound


class ChangeNotFound(NotFound):
    """There is no such change."""

    hint = "GET /api/v1/changes lists them."


def names(column: sa.orm.InstrumentedAttribute[str], repository_url: str) -> sa.ColumnElement[bool]:
    """Whether a column holds a repository's address, however it is spelled there: a person's way is seldom the forge's."""
    where = address(repository_url)
    if where.kind == Kind.FILE:
        return column == repository_url
    return sa.or_(column == repository_url, sa.func.lower(column).in_(spellings(where)))


async def get(session: Session, change_id: str) -> Change:
    """The change; raises ChangeNotFound."""
    if (change := await session.get(Change, change_id)) is None:
        raise ChangeNotFound(f"there is no change {change_id[:60]!r}")
    return change


async def with_freshness(session: Session, change_id: str, seconds: float) -> tuple[Change, bool]:
    """The change, and whether it was checked within the last `seconds` by the database's clock; raises ChangeNotFound."""
    change = await get(session, change_id)
    recent = sa.select(Change.change_id).where(Change.change_id == change_id, Change.checked_at > db_time(-seconds))
    return change, await session.scalar(recent) is not None


async def open_for(session: Session, work_order_id: str, head_branch: str, head_commit: str) -> Change | None:
    """The change of an order's branch that is open, or that holds this very commit."""
    mine = sa.select(Change).where(Change.work_order_id == work_order_id, Change.head_branch == head_branch)
    suits = sa.or_(Change.state == "open", Change.head_commit == head_commit)
    return await session.scalar(mine.where(suits).order_by(Change.created_at.desc()).limit(1))


async def listing(
    session: Session,
    *,
    state: str | None,
    work_order_id: str | None,
    repository_url: str | None,
    limit: int,
    offset: int,
) -> tuple[Sequence[Change], int]:
    """A page of changes, newest first, and how many there are in all."""
    query = sa.select(Change)
    for column, value in ((Change.state, state), (Change.work_order_id, work_order_id)):
        query = query.where(column == value) if value is not None else query
    if repository_url is not None:
        query = query.where(names(Change.repository_url, repository_url))
    total = await session.scalar(sa.select(sa.func.count()).select_from(query.subquery()))
    page = query.order_by(Change.created_at.desc(), Change.change_id).limit(limit).offset(offset)
    return (await session.scalars(page)).all(), total or 0


async def needed(session: Session, change: Change) -> bool:
    """Whether another open change stands on a change's branch, or is this very branch."""
    others = sa.select(Change.change_id).where(
        Change.state == "open",
        Change.change_id != change.change_id,
        names(Change.repository_url, change.repository_url),
        sa.or_(Change.base_branch == change.head_branch, Change.head_branch == change.head_branch),
    )
    return await session.scalar(others.limit(1)) is not None


async def with_open_changes(session: Session) -> Sequence[str]:
    """The repositories that have open changes."""
    return (await session.scalars(sa.select(Change.repository_url).where(Change.state == "open").distinct())).all()


async def reviews(session: Session, change_id: str) -> Sequence[ChangeReview]:
    """What was said here about a change, oldest first."""
    mine = sa.select(ChangeReview).where(ChangeReview.change_id == change_id).order_by(ChangeReview.id)
    return (await session.scalars(mine)).all()


async def refused_by(session: Session, change: Change) -> str | None:
    """Who asked for changes to this very commit and did not approve it since."""
    newest: dict[str, str] = {}
    for row in await reviews(session, change.change_id):
        if row.head_commit == change.head_commit and row.verdict != "commented":
            newest[row.author] = row.verdict
    return next((author or "a reviewer" for author, verdict in newest.items() if verdict == "changes_requested"), None)


async def still_open(session: Session, order_ids: Sequence[str]) -> set[str]:
    """Those of some orders whose change is open on a forge with pages: a review may ask them to go on."""
    query = sa.select(Change.work_order_id).where(
        Change.work_order_id.in_(order_ids), Change.state == "open", Change.number.is_not(None)
    )
    return set((await session.scalars(query)).all())
