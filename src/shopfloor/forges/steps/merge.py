"""Merge, close or look at a change. The plan is noted before the push, so that a killed merge is finished, by the next try or look, and not made twice."""

import asyncio
from dataclasses import dataclass

from shopfloor.forges import queries, service, turns
from shopfloor.forges.mirrors.glance import OriginSilent
from shopfloor.forges.models import Change
from shopfloor.forges.port import UNKNOWN, HeadMoved, Verdict
from shopfloor.forges.rules import CHANGE, ChangeState
from shopfloor.forges.service import Repositories
from shopfloor.kit import log
from shopfloor.kit.db import Database
from shopfloor.kit.errors import Conflict, NotFound, Problem, Unavailable

logger = log.get(__name__)

PATIENCE = 60.0
"""Seconds that a merge or close waits for another one of the same change."""
CLOSE_SECONDS = 30.0
"""Seconds that a close waits for the origin, when a merge may have been pushed."""
LOOK_SECONDS = 4.0
"""Seconds that a look waits for the origin; after that it answers what was found out before."""
NOTICE_SECONDS = 10.0
"""Seconds that who was told of an end waits for somebody else who is writing it down."""
FRESH_SECONDS = 2.0
"""A verdict of the last seconds is answered as it is."""


class ChangesRequested(Conflict):
    """A reviewer asked for changes to this commit."""

    hint = "Deliver a new commit, or let the reviewer approve this one."


class StillOpen(Conflict):
    """The change is open: its branch is needed."""

    hint = "Merge or close the change first."


async def merge(
    database: Database,
    repositories: Repositories,
    change_id: str,
    *,
    expected_head: str | None = None,
    squash: bool = False,
    delete_branch: bool | None = None,
) -> Change:
    """Make the change part of its base branch; answers it when it is already. The branch goes if asked, or by the forge's setting.

    Raises NotMergeable, NothingToMerge, HeadMoved, BranchMoved, ChangeBusy, or IllegalMove when it is closed.
    """
    place = repositories.place((await _read(database, change_id)).repository_url)
    async with turns.turn(database, place, change_id, patience=PATIENCE) as still:
        change = await _read(database, change_id)
        draft = service.draft_of(change)
        if expected_head is not None and expected_head != draft.head_commit:
            raise HeadMoved(f"the change is at {draft.head_commit[:12]}, not at {expected_head[:12]}")
        if change.state == ChangeState.MERGED:
            await _tidy(repositories, change, delete_branch)
            return change
        CHANGE.step(ChangeState(change.state), ChangeState.MERGED)
        async with database.reading() as session:
            if by := await queries.refused_by(session, change):
                raise ChangesRequested(f"{by} asked for changes to {draft.head_commit[:12]}")

        async def plan(commit: str) -> None:
            await still()
            async with database.transaction() as session:
                await service.plan(session, change_id, draft.head_commit, commit)

        forge = repositories.adapter(draft.repository_url)
        commit = await forge.merge(draft, squash=squash, planned=change.planned_commit, plan=plan)
        merged = await _end(database, repositories, change, ChangeState.MERGED, commit)
        await _tidy(repositories, merged, delete_branch)
        return merged


async def _tidy(repositories: Repositories, change: Change, wish: bool | None) -> None:
    """Remove the branch of a merged change, unless somebody moved it or another change stands on it. A failure is told and harms nothing."""
    if not (repositories.tidy(change.repository_url) if wish is None else wish):
        return
    draft = service.draft_of(change)
    try:
        if not await repositories.adapter(draft.repository_url).base_of_others(draft):
            await repositories.delete_branch(draft.repository_url, draft.head_branch, draft.head_commit)
    except Problem as error:
        logger.warning("change_branch_kept", change_id=change.change_id, reason=f"{error.message} {error.hint}")


async def delete_branch(database: Database, repositories: Repositories, change_id: str) -> Change:
    """Remove the branch of a change that has ended. Raises StillOpen, BranchMoved; a branch that is gone is fine."""
    change = await _read(database, change_id)
    if change.state == ChangeState.OPEN:
        raise StillOpen
    draft = service.draft_of(change)
    if await repositories.adapter(draft.repository_url).base_of_others(draft):
        raise StillOpen("another open change stands on this branch", hint="Merge or close that one first.")
    await repositories.delete_branch(draft.repository_url, draft.head_branch, draft.head_commit)
    return change


async def clear(database: Database, repositories: Repositories, change: Change) -> None:
    """Remove the branch of a change that was merged on its forge, if the operator wants that. Raises Unavailable; what else keeps it is told."""
    if change.state != ChangeState.MERGED or not repositories.tidy(change.repository_url):
        return
    try:
        await delete_branch(database, repositories, change.change_id)
    except Unavailable:
        raise
    except Problem as problem:
        logger.warning("change_branch_kept", change_id=change.change_id, reason=f"{problem.message} {problem.hint}")


async def close(database: Database, repositories: Repositories, change_id: str) -> Change:
    """Withdraw the change; its branch stays. Raises IllegalMove when it is merged, also by a merge whose end nobody wrote down."""
    place = repositories.place((await _read(database, change_id)).repository_url)
    async with turns.turn(database, place, change_id, patience=PATIENCE):
        change = await _read(database, change_id)
        if change.state == ChangeState.OPEN:
            if landed := await _landed_after_all(repositories, change):
                await _end(database, repositories, change, ChangeState.MERGED, landed)
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
            verdict, ended = await _ask(repositories, change)
    except (Problem, TimeoutError) as error:
        logger.info("change_check_failed", change_id=change_id, reason=str(error) or "the origin is slow")
        return change
    if ended:
        return await _finish(database, repositories, change, ended)
    async with database.transaction() as session:
        return await service.note_if_same(session, change, verdict)


async def noticed(database: Database, repositories: Repositories, change_id: str) -> Change:
    """Ask the forge how an open change ended, and write it down; for who was told that it did."""
    change = await _read(database, change_id)
    if change.state != ChangeState.OPEN:
        return change
    forge, draft = repositories.adapter(change.repository_url), service.draft_of(change)
    if commit := await forge.landed(draft, change.planned_commit):
        return await _finish(database, repositories, change, Ended(ChangeState.MERGED, commit), NOTICE_SECONDS)
    if await forge.withdrawn(draft):
        return await _finish(database, repositories, change, Ended(ChangeState.CLOSED), NOTICE_SECONDS)
    return change


async def _read(database: Database, change_id: str) -> Change:
    async with database.reading() as session:
        return await queries.get(session, change_id)


async def _ask(repositories: Repositories, change: Change) -> tuple[Verdict, "Ended | None"]:
    """Whether the change merges; or how it ended: by somebody who did not live to write it down, or by a person on the forge."""
    reviews, draft = repositories.forge(change.repository_url), service.draft_of(change)
    refs = await repositories.glance(change.repository_url)
    if change.planned_commit or reviews.forge.pages:
        if commit := await reviews.forge.landed(draft, change.planned_commit):
            return UNKNOWN, Ended(ChangeState.MERGED, commit)
        if await reviews.forge.withdrawn(draft):
            return UNKNOWN, Ended(ChangeState.CLOSED)
    return await reviews.check(draft, refs), None


@dataclass(frozen=True)
class Ended:
    """How a change ended without us."""

    state: ChangeState
    commit: str | None = None


async def _landed_after_all(repositories: Repositories, change: Change) -> str | None:
    """The commit of a merge that took effect. Raises what keeps us from knowing; a repository that is gone holds no merge."""
    forge = repositories.adapter(change.repository_url)
    if not change.planned_commit and not forge.pages:
        return None
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            return await forge.landed(service.draft_of(change), change.planned_commit)
    except NotFound:
        return None
    except TimeoutError as error:
        raise OriginSilent(f"whether the change was merged is not known: {OriginSilent.__doc__}") from error


async def _finish(
    database: Database, repositories: Repositories, seen: Change, ended: Ended, patience: float = 0
) -> Change:
    """Write down how a change ended; whoever holds its turn for longer than `patience` does it without us."""
    place = repositories.place(seen.repository_url)
    try:
        async with turns.turn(database, place, seen.change_id, patience=patience):
            change = await _read(database, seen.change_id)
            if change.state != ChangeState.OPEN or change.planned_commit != seen.planned_commit:
                return change
            return await _end(database, repositories, change, ended.state, ended.commit)
    except (turns.ChangeBusy, turns.TurnLost):
        return seen


async def _end(
    database: Database, repositories: Repositories, change: Change, to: ChangeState, commit: str | None = None
) -> Change:
    """Write the end of a change whose turn we hold; only then may its branch go."""
    async with database.transaction() as session:
        ended = await service.end(session, change.change_id, to, commit)
    turns.forget(repositories.place(change.repository_url), change.change_id)
    logger.info("change_merged" if commit else "change_closed", change_id=change.change_id, commit=commit)
    return ended
