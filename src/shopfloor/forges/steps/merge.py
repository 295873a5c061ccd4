"""Merge, close or look at a change. The plan is noted before the push, so that a killed merge is finished, by the next try or look, and not made twice."""

import asyncio

from shopfloor.forges import queries, service, turns
from shopfloor.forges.mirrors.glance import OriginSilent
from shopfloor.forges.models import Change
from shopfloor.forges.port import HeadMoved
from shopfloor.forges.rules import CHANGE, ChangeState
from shopfloor.forges.service import Repositories, Verdict
from shopfloor.kit import log
from shopfloor.kit.db import Database
from shopfloor.kit.errors import NotFound, Problem

logger = log.get(__name__)

PATIENCE = 60.0
"""Seconds that a merge or close waits for another one of the same change."""
CLOSE_SECONDS = 30.0
"""Seconds that a close waits for the origin, when a merge may have been pushed."""
LOOK_SECONDS = 4.0
"""Seconds that a look waits for the origin; after that it answers what was found out before."""
FRESH_SECONDS = 2.0
"""A verdict of the last seconds is answered as it is."""


async def merge(
    database: Database,
    repositories: Repositories,
    change_id: str,
    *,
    expected_head: str | None = None,
    squash: bool = False,
) -> Change:
    """Make the change part of its base branch; answers it when it is already.

    Raises NotMergeable, NothingToMerge, HeadMoved, BranchMoved, ChangeBusy, or IllegalMove when it is closed.
    """
    place = repositories.place((await _read(database, change_id)).repository_url)
    async with turns.turn(database, place, change_id, patience=PATIENCE) as still:
        change = await _read(database, change_id)
        draft = service.draft_of(change)
        if expected_head is not None and expected_head != draft.head_commit:
            raise HeadMoved(f"the change is at {draft.head_commit[:12]}, not at {expected_head[:12]}")
        if change.state == ChangeState.MERGED:
            return change
        CHANGE.step(ChangeState(change.state), ChangeState.MERGED)

        async def plan(commit: str) -> None:
            await still()
            async with database.transaction() as session:
                await service.plan(session, change_id, draft.head_commit, commit)

        forge = repositories.adapter(draft.repository_url)
        commit = await forge.merge(draft, squash=squash, planned=change.planned_commit, plan=plan)
        return await _end(database, repositories, change, ChangeState.MERGED, commit)


async def close(database: Database, repositories: Repositories, change_id: str) -> Change:
    """Withdraw the change; its branch stays. Raises IllegalMove when it is merged, also by a merge whose end nobody wrote down."""
    place = repositories.place((await _read(database, change_id)).repository_url)
    async with turns.turn(database, place, change_id, patience=PATIENCE):
        change = await _read(database, change_id)
        if change.state == ChangeState.OPEN:
            if await _landed_after_all(repositories, change):
                await _end(database, repositories, change, ChangeState.MERGED, change.planned_commit)
            else:
                await repositories.adapter(change.repository_url).close(service.draft_of(change))
        return await _end(database, repositories, change, ChangeState.CLOSED)


async def refreshed(database: Database, repositories: Repositories, change_id: str) -> Change:
    """The change; while it is open, with what merging it would do now, or what was last found out when the origin is slow (`checked_at`)."""
    async with database.reading() as session:
        change, fresh = await queries.with_freshness(session, change_id, FRESH_SECONDS)
    if change.state != ChangeState.OPEN or fresh:
        return change
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            verdict, landed = await _ask(repositories, change)
    except (Problem, TimeoutError) as error:
        logger.info("change_check_failed", change_id=change_id, reason=str(error) or "the origin is slow")
        return change
    if landed:
        return await _finish(database, repositories, change)
    async with database.transaction() as session:
        return await service.note_if_same(session, change, verdict)


async def _read(database: Database, change_id: str) -> Change:
    async with database.reading() as session:
        return await queries.get(session, change_id)


async def _ask(repositories: Repositories, change: Change) -> tuple[Verdict, bool]:
    """Whether the change merges, and whether it was merged already by somebody who did not live to write it down."""
    reviews, draft = repositories.forge(change.repository_url), service.draft_of(change)
    refs = await repositories.glance(change.repository_url)
    if change.planned_commit and await reviews.forge.landed(draft, change.planned_commit):
        return service.UNKNOWN, True
    return await reviews.check(draft, refs), False


async def _landed_after_all(repositories: Repositories, change: Change) -> bool:
    """Whether a planned merge took effect. Raises what keeps us from knowing; a repository that is gone holds no merge."""
    if not change.planned_commit:
        return False
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            forge = repositories.adapter(change.repository_url)
            return await forge.landed(service.draft_of(change), change.planned_commit)
    except NotFound:
        return False
    except TimeoutError as error:
        raise OriginSilent(f"whether the change was merged is not known: {OriginSilent.__doc__}") from error


async def _finish(database: Database, repositories: Repositories, seen: Change) -> Change:
    """Write down a merge that was pushed; whoever holds the turn right now does it without us."""
    place = repositories.place(seen.repository_url)
    try:
        async with turns.turn(database, place, seen.change_id, patience=0):
            change = await _read(database, seen.change_id)
            if change.state != ChangeState.OPEN or change.planned_commit != seen.planned_commit:
                return change
            return await _end(database, repositories, change, ChangeState.MERGED, change.planned_commit)
    except (turns.ChangeBusy, turns.TurnLost):
        return seen


async def _end(
    database: Database, repositories: Repositories, change: Change, to: ChangeState, commit: str | None = None
) -> Change:
    """Write the end of a change whose turn we hold."""
    async with database.transaction() as session:
        ended = await service.end(session, change.change_id, to, commit)
    turns.forget(repositories.place(change.repository_url), change.change_id)
    logger.info("change_merged" if commit else "change_closed", change_id=change.change_id, commit=commit)
    return ended
