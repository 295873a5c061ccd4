"""Merge or close a change. The plan is noted before the push, so that a killed merge is finished by the next try, not made twice."""

import sqlalchemy as sa

from shopfloor.forges import queries, service
from shopfloor.forges.models import Change
from shopfloor.forges.port import HeadMoved
from shopfloor.forges.rules import CHANGE, ChangeState
from shopfloor.forges.service import Repositories
from shopfloor.kit import log
from shopfloor.kit.db import Database

logger = log.get(__name__)


async def merge(
    database: Database,
    repositories: Repositories,
    change_id: str,
    *,
    expected_head: str | None = None,
    squash: bool = False,
) -> Change:
    """Make the change part of its base branch; answers it when it is already. Raises NotMergeable, HeadMoved, BranchMoved …"""
    async with database.reading() as session:
        change = await queries.get(session, change_id)
    if expected_head is not None and expected_head != change.head_commit:
        raise HeadMoved(f"the change is at {change.head_commit[:12]}, not at {expected_head[:12]}")
    if change.state == ChangeState.MERGED:
        return change
    CHANGE.step(ChangeState(change.state), ChangeState.MERGED)

    async def plan(commit: str) -> None:
        async with database.transaction() as session:
            noted = sa.update(Change).where(Change.change_id == change_id, Change.state == ChangeState.OPEN)
            await session.execute(noted.values(planned_commit=commit))

    forge = repositories.adapter(change.repository_url)
    commit = await forge.merge(service.draft_of(change), squash=squash, planned=change.planned_commit, plan=plan)
    async with database.transaction() as session:
        merged = await service.end(session, change_id, ChangeState.MERGED, commit)
    logger.info("change_merged", change_id=change_id, commit=commit, branch=change.base_branch)
    return merged


async def close(database: Database, repositories: Repositories, change_id: str) -> Change:
    """Withdraw the change; its branch stays."""
    async with database.reading() as session:
        change = await queries.get(session, change_id)
    if change.state == ChangeState.OPEN:
        await repositories.adapter(change.repository_url).close(service.draft_of(change))
    async with database.transaction() as session:
        return await service.end(session, change_id, ChangeState.CLOSED)


async def refreshed(database: Database, repositories: Repositories, change_id: str) -> Change:
    """The change; while it is open, with what merging it would do right now."""
    async with database.reading() as session:
        change = await queries.get(session, change_id)
    if change.state != ChangeState.OPEN:
        return change
    verdict = await repositories.forge(change.repository_url).check(service.draft_of(change))
    if verdict == service.Verdict(change.mergeable, change.conflicts) and change.checked_at:
        return change
    async with database.transaction() as session:
        change = await queries.get(session, change_id)
        service.note(change, verdict)
        await session.flush()
        await session.refresh(change)
    return change
