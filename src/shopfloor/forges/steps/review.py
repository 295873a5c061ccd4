"""Review a change: on the forge where it has pages, else here. A request for changes keeps plain git from merging that commit."""

from collections.abc import Sequence

from shopfloor.forges import queries, service
from shopfloor.forges.models import Change
from shopfloor.forges.port import Check, HeadMoved, Review
from shopfloor.forges.rules import ChangeState
from shopfloor.forges.service import Repositories
from shopfloor.kit.db import Database
from shopfloor.kit.errors import Conflict


class ReviewedElsewhere(Conflict):
    """This change is reviewed on its forge."""

    hint = "Open its url and review it there; 'GET …/reviews' shows what was said."


class NotReviewable(Conflict):
    """Only an open change is reviewed."""


async def reviews(database: Database, repositories: Repositories, change_id: str) -> Sequence[Review]:
    """What reviewers said, oldest first."""
    async with database.reading() as session:
        change = await queries.get(session, change_id)
        rows = await queries.reviews(session, change_id)
    forge = repositories.adapter(change.repository_url)
    if forge.pages and change.number is not None:
        return await forge.reviews(change.repository_url, change.number)
    return [
        Review(review_id=row.id, author=row.author, verdict=row.verdict, body=row.body, commit=row.head_commit)
        for row in rows
    ]


async def review(
    database: Database,
    repositories: Repositories,
    change_id: str,
    *,
    verdict: str,
    body: str = "",
    author: str = "",
    expected_head: str | None = None,
) -> Review:
    """Record a verdict on what the change is now."""
    async with database.reading() as session:
        change = await queries.get(session, change_id)
    if repositories.adapter(change.repository_url).pages:
        raise ReviewedElsewhere(f"{change.url} is the place to review it")
    async with database.transaction() as session:
        change = await queries.get(session, change_id)
        _check(change, expected_head)
        row = await service.record_review(session, change, verdict=verdict, body=body, author=author)
        return Review(review_id=row.id, author=row.author, verdict=verdict, body=body, commit=row.head_commit)


def _check(change: Change, expected_head: str | None) -> None:
    if change.state != ChangeState.OPEN:
        raise NotReviewable(f"the change is {change.state}")
    if expected_head is not None and expected_head != change.head_commit:
        raise HeadMoved(f"the change is at {change.head_commit[:12]}, not at {expected_head[:12]}")


async def checks(database: Database, repositories: Repositories, change_id: str) -> Sequence[Check]:
    """What programs of the forge think of the change's commit."""
    async with database.reading() as session:
        change = await queries.get(session, change_id)
    return await repositories.adapter(change.repository_url).checks(change.repository_url, change.head_commit)
