"""The merge queue of a project: what waits is merged in memory, checked as one, and merged one at a time; what breaks it is found by halves. Never by force."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shopfloor.board import merge_queries, merge_service, queries, service
from shopfloor.board.models import QueuedMerge, Ticket
from shopfloor.board.rules import Column, How
from shopfloor.board.rules.merging import MergeState, halved
from shopfloor.board.steps.move import move
from shopfloor.events import log as events
from shopfloor.evidence import service as checks
from shopfloor.evidence.models import CheckRun
from shopfloor.kit import log
from shopfloor.kit.db import Session
from shopfloor.kit.errors import Problem, Unavailable
from shopfloor.projects import queries as projects
from shopfloor.projects.models import Project
from shopfloor.projects.steps import branches
from shopfloor.workorders.steps import Tools

logger = log.get(__name__)

LOOK_SECONDS = 5.0
PURPOSE, AFTERWARDS, QUEUE = "union", "merged", "merge queue"
WAKING = frozenset({"merge_queue.changed", "check_run.state_changed", "change.merged", "TICKET_TRANSITIONED"})


@dataclass(frozen=True)
class Batch:
    """Queued tickets merged together in memory: those that fit, and those in the way with the reason."""

    commit: str
    fitting: list[tuple[QueuedMerge, Ticket]]
    unfit: list[tuple[QueuedMerge, str]]


async def keep_merging(tools: Tools) -> None:
    """Serve every project's queue, for ever; woken by facts, with a slow look in between."""
    async with tools.hub.subscribe(events.Filters(event_types=WAKING)) as feed:
        news = aiter(feed)
        waiting = asyncio.ensure_future(anext(news))
        try:
            while True:
                async with tools.database.reading() as session:
                    due = await merge_queries.queues(session)
                await notice_merges(tools)
                await send_back(tools)
                await enqueue_ready(tools)
                if any([await _served(tools, project_id) for project_id in due]):
                    continue
                await asyncio.wait({waiting}, timeout=LOOK_SECONDS)
                if waiting.done():
                    waiting.result()
                    waiting = asyncio.ensure_future(anext(news))
        finally:
            waiting.cancel()


async def _served(tools: Tools, project_id: str) -> bool:
    try:
        return await advance(tools, project_id)
    except Problem as problem:
        logger.warning("merge_queue_waits", project_id=project_id, code=problem.code, reason=problem.message)
        return False


async def advance(tools: Tools, project_id: str) -> bool:
    """One step of a project's queue; answers whether there was one to make. Idempotent: a killed step is made again."""
    async with tools.database.reading() as session:
        project = await projects.get(session, project_id)
        rows = await merge_queries.queue(session, project_id)
    if merging_now := [row for row in rows if row.state == MergeState.MERGING]:
        return await _merge(tools, project, merging_now[0])
    if checked := [row for row in rows if row.state == MergeState.CHECKING]:
        return await _judge(tools, checked)
    if rows:
        return await _try(tools, project, rows[: rows[0].batch or len(rows)])
    return False


async def _try(tools: Tools, project: Project, rows: Sequence[QueuedMerge]) -> bool:
    """Merge the first that wait in memory, and let the result be checked."""
    batch = await _batch(tools, project, rows)
    async with tools.database.transaction() as session:
        for row, why in batch.unfit:
            await _move(session, row.id, MergeState.REFUSED, why)
        if not batch.fitting:
            return True
        wanted = await _checks(session, project, batch.fitting)
        run = None
        if wanted:
            run = await checks.request_run(
                session,
                subject_id=project.project_id,
                purpose=PURPOSE,
                project=project,
                base_commit=batch.commit,  # what was changed to pass was judged on each ticket's own branch
                commit=batch.commit,
                checks=wanted,
            )
        for row, _ in batch.fitting:
            to = MergeState.CHECKING if run else MergeState.MERGING
            others = f" with {len(batch.fitting) - 1} others" if len(batch.fitting) > 1 else ""
            moved = await _move(session, row.id, to, f"merged in memory{others}, checked as {batch.commit[:12]}")
            moved.candidate, moved.run_id = batch.commit, run.run_id if run else None
    return True


async def _batch(tools: Tools, project: Project, rows: Sequence[QueuedMerge]) -> Batch:
    """Merge the heads one after the other onto the base. What does not fit the base itself is unfit; what only clashes with one before it waits."""
    url = project.repository_url
    base = await tools.repositories.resolve(url, project.base_branch)
    commit, fitting, unfit = base.commit, list[tuple[QueuedMerge, Ticket]](), list[tuple[QueuedMerge, str]]()
    for row in rows:
        async with tools.database.reading() as session:
            ticket = await queries.get(session, row.ticket_id)
        if ticket.head_commit != row.head_commit:
            unfit.append((row, "its branch has moved since it was queued: prove it again, then queue it again"))
            continue
        merged = await tools.repositories.mergeable(url, commit, row.head_commit)
        if merged.clean:
            words = f"Merge {ticket.branch}\n\n{ticket.title}"
            commit = await tools.repositories.commit_merge(url, merged.tree, (commit, row.head_commit), words)
            fitting.append((row, ticket))
        elif commit == base.commit:
            unfit.append((row, f"it conflicts with {base.branch} in {', '.join(merged.conflicts[:10])}"))
    return Batch(commit, fitting, unfit)


async def _checks(
    session: Session, project: Project, fitting: Sequence[tuple[QueuedMerge, Ticket]]
) -> list[dict[str, Any]]:
    """What must hold of the merged result: the project's own check, and what was proven of each ticket by itself."""
    own: list[dict[str, Any]] = (
        [{"check": {"kind": "command", "command": project.check_command}}] if project.check_command else []
    )
    return [*own, *await merge_queries.automatic(session, [ticket.ticket_id for _, ticket in fitting])]


async def _judge(tools: Tools, rows: Sequence[QueuedMerge]) -> bool:
    """Read what the check of a batch found: let it in, try half of it, or refuse the one that is left."""
    async with tools.database.reading() as session:
        run = await session.get(CheckRun, rows[0].run_id or "")
    if run is not None and run.verdict is None:
        return False
    together = [row for row in rows if row.run_id == rows[0].run_id]
    passed = run is not None and run.verdict == "passed"
    why = run.reason if run else "its check is gone"
    async with tools.database.transaction() as session:
        for row in together:
            if passed:
                await _move(session, row.id, MergeState.MERGING, "the merged result passed its checks")
            elif len(together) > 1:
                again = await _move(
                    session, row.id, MergeState.WAITING, f"failed with others, tried in a smaller batch: {why}"
                )
                again.batch, again.candidate, again.run_id = halved(len(together)), None, None
            else:
                await _move(session, row.id, MergeState.REFUSED, f"merged with its base it does not pass: {why}")
    return True


async def _merge(tools: Tools, project: Project, row: QueuedMerge) -> bool:
    """Merge one ticket's change, as everybody merges; a moved base is no harm, a moved head or conflict is told."""
    try:
        change = await branches.merge(
            tools.database, tools.repositories, project, row.ticket_id, expected_head=row.head_commit
        )
    except Unavailable:
        raise
    except Problem as problem:
        async with tools.database.transaction() as session:
            await _move(session, row.id, MergeState.REFUSED, f"{problem.message} {problem.hint}".strip())
        return True
    async with tools.database.transaction() as session:
        await _move(session, row.id, MergeState.MERGED, f"merged as {(change.merge_commit or '')[:12]}")
        await note_merged(session, project, row.ticket_id, change.merge_commit or "")
    return True


async def note_merged(session: Session, project: Project, ticket_id: str, merge_commit: str) -> None:
    """The ticket's work is part of its base: what was proven before is proven once more, on the merged commit."""
    ticket = await queries.locked(session, ticket_id)
    await service.set_merged(session, ticket, merge_commit)
    if wanted := await merge_queries.automatic(session, [ticket_id]):
        await checks.request_run(
            session,
            subject_id=ticket_id,
            purpose=AFTERWARDS,
            project=project,
            base_commit=merge_commit,
            commit=merge_commit,
            checks=wanted,
        )


async def _move(session: Session, row_id: int, to: MergeState, reason: str) -> QueuedMerge:
    row = await session.get_one(QueuedMerge, row_id, with_for_update=True, populate_existing=True)
    await merge_service.step_merge(session, row, to, reason)
    return row


async def notice_merges(tools: Tools) -> int:
    """Write down what people merged on the forge, or by `merge`, past the queue; answers how many."""
    async with tools.database.reading() as session:
        found = await merge_queries.merged_elsewhere(session)
    for ticket, merge_commit in found:
        async with tools.database.transaction() as session:
            project = await projects.get(session, ticket.project_id)
            await note_merged(session, project, ticket.ticket_id, merge_commit)
    return len(found)


async def enqueue_ready(tools: Tools) -> int:
    """Let what is done be merged where the project wants that; answers how many."""
    async with tools.database.reading() as session:
        found = [ticket.ticket_id for ticket in await merge_queries.ready(session)]
    for ticket_id in found:
        async with tools.database.transaction() as session:
            await merge_service.enqueue(session, await queries.locked(session, ticket_id))
    return len(found)


async def send_back(tools: Tools) -> int:
    """A ticket that the queue refused, or that does not hold on the merged commit, is not done; answers how many went back."""
    async with tools.database.reading() as session:
        refused = await merge_queries.refused_unheard(session)
        broken = await merge_queries.failed_after_merge(session)
    for ticket, row in refused:
        why = f"it was not merged: {row.reason}"
        await move(
            tools, ticket.ticket_id, Column.BUILDING, how=How.FAILED, by=QUEUE, reason=why[:2000], expected=Column.DONE
        )
    for ticket, run in broken:
        await _reopen(tools, ticket.ticket_id, f"after its merge as {run.commit[:12]} it does not hold: {run.reason}")
    return len(refused) + len(broken)


async def _reopen(tools: Tools, ticket_id: str, reason: str) -> None:
    """Back to work on a new branch: the old one is merged and gone. In one step, so that no task begins at what is gone."""
    async with tools.database.transaction() as session:
        _, ticket = await queries.locked_with_project(session, ticket_id)
        if ticket.status != Column.DONE or ticket.merge_commit is None:
            return
        await service.change(
            session, ticket, branch=None, base_commit=None, head_commit=None, change_id=None, merge_commit=None
        )
        await service.record_move(session, ticket, Column.BUILDING, how=How.REOPENED, by=QUEUE, reason=reason[:2000])
