"""The merge queue of a project: what waits is merged in memory, checked as one, and merged one at a time; what breaks it is found by halves. Never by force."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from shopfloor.board import merge_queries, merge_service, queries, service
from shopfloor.board.models import QueuedMerge, Ticket
from shopfloor.board.rules import Column, How
from shopfloor.board.rules.merging import DATE, MOST_RUNS, MOST_TOGETHER, MergeState, halved
from shopfloor.board.steps.move import move, move_back
from shopfloor.board.steps.offer import PASSING, offer
from shopfloor.events import log as events
from shopfloor.evidence import service as checks
from shopfloor.evidence.models import CheckRun
from shopfloor.evidence.rules import Stand
from shopfloor.forges.port import NotMergeable
from shopfloor.kit import log
from shopfloor.kit.db import Session
from shopfloor.kit.errors import Problem, Unavailable
from shopfloor.projects import queries as projects
from shopfloor.projects.models import Project
from shopfloor.projects.steps import branches
from shopfloor.workorders.steps import Tools

logger = log.get(__name__)

LOOK_SECONDS = 20.0
PURPOSE, AFTERWARDS, QUEUE = "union", "merged", "merge queue"
WAKING = frozenset({"merge_queue.changed", "check_run.state_changed", "change.merged", "TICKET_TRANSITIONED"})


@dataclass(frozen=True)
class Batch:
    """Queued tickets merged together in memory: those that fit, and those in the way with the reason."""

    commit: str
    fitting: list[tuple[QueuedMerge, Ticket]]
    unfit: list[tuple[QueuedMerge, str]]
    left: list[tuple[QueuedMerge, str]]


class BeingChecked(Unavailable):
    """A criterion of the ticket is being checked anew: what is found decides."""


async def keep_merging(tools: Tools) -> None:
    """Serve every project's queue, for ever; woken by facts, with a slow look in between."""
    async with tools.hub.subscribe(events.Filters(event_types=WAKING)) as feed:
        news = aiter(feed)
        waiting = asyncio.ensure_future(anext(news))
        try:
            while True:
                for look in (notice_merges, send_back, enqueue_ready):
                    await _looked(tools, look)
                async with tools.database.reading() as session:
                    due = await merge_queries.queues(session)
                if any([await _served(tools, project_id) for project_id in due]):
                    continue
                await asyncio.wait({waiting}, timeout=LOOK_SECONDS)
                while waiting.done():  # a turn looks at everything: all that was told until now is one turn
                    waiting.result()
                    waiting = asyncio.ensure_future(anext(news))
                    await asyncio.sleep(0)
        finally:
            waiting.cancel()


async def _looked(tools: Tools, look: Callable[[Tools], Awaitable[int]]) -> None:
    """One look at all projects; what stands in its way for one of them keeps the loop alive."""
    try:
        await look(tools)
    except Problem as problem:
        logger.warning("merge_queue_look_failed", look=look.__name__, code=problem.code, reason=problem.message)


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
        return await _try(tools, project, rows[: rows[0].batch or MOST_TOGETHER])
    return False


async def _try(tools: Tools, project: Project, rows: Sequence[QueuedMerge]) -> bool:
    """Merge the first that wait in memory, and let the result be checked."""
    batch = await _batch(tools, project, rows)
    async with tools.database.transaction() as session:
        for row, why in batch.unfit:
            await _move(session, row.id, MergeState.REFUSED, why)
        for row, why in batch.left:
            await _move(session, row.id, MergeState.LEFT, why)
        if not batch.fitting:
            return bool(batch.unfit or batch.left)
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
                host_id=tools.sandboxes.host_id,
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
    commit, fitting = base.commit, list[tuple[QueuedMerge, Ticket]]()
    unfit, left = list[tuple[QueuedMerge, str]](), list[tuple[QueuedMerge, str]]()
    for row in rows:
        async with tools.database.reading() as session:
            ticket = await queries.get(session, row.ticket_id)
            try:
                away = await _away(session, ticket, row)
            except BeingChecked:
                continue
        if not away and ticket.base_branch not in {None, base.branch}:
            away = f"it is merged into {ticket.base_branch}, and the queue checks what is merged into {base.branch}"
        if away:
            left.append((row, away))
            continue
        merged = await tools.repositories.mergeable(url, commit, row.head_commit)
        if merged.clean:
            words = f"Merge {ticket.branch}\n\n{ticket.title}"
            parents = (commit, row.head_commit)
            commit = await tools.repositories.commit_merge(url, merged.tree, parents, words, date=DATE)
            fitting.append((row, ticket))
        elif commit == base.commit:
            unfit.append((row, f"it conflicts with {base.branch} in {', '.join(merged.conflicts[:10])}"))
    return Batch(commit, fitting, unfit, left)


async def _away(session: Session, ticket: Ticket, row: QueuedMerge) -> str:
    """Why a queued ticket is not what was queued; empty when it is. Raises BeingChecked."""
    if ticket.archived_at is not None or ticket.status != Column.DONE:
        return "it is not done any more"
    if ticket.head_commit != row.head_commit:
        return "its branch has moved since it was queued: prove it again, then queue it again"
    found = await queries.unproven(session, ticket)
    if not found:
        return ""
    if all(one.verdict == Stand.RUNNING for one in found):
        raise BeingChecked
    return "it is not proven any more: " + "; ".join(f"{o.criterion.text[:80]!r} is {o.verdict}" for o in found[:5])


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
        tries = await merge_queries.runs_of(session, run) if run else 0
        whole = run is not None and await merge_queries.batch_of(session, run.run_id) == len(rows)
    if run is not None and run.verdict is None:
        return False
    together = [row for row in rows if row.run_id == rows[0].run_id]
    async with tools.database.transaction() as session:
        if run is None or not whole:
            for row in together:
                await _again(session, row, row.batch, "another of its batch was taken out: checked without that one")
        elif run.verdict == "error":
            await _judged_again(session, together, run, tries)
        else:
            for row in together:
                await _decided(session, row, run, len(together))
    return True


async def _again(session: Session, row: QueuedMerge, batch: int, why: str) -> None:
    waiting = await _move(session, row.id, MergeState.WAITING, why)
    waiting.batch, waiting.candidate, waiting.run_id = batch, None, None


async def _decided(session: Session, row: QueuedMerge, run: CheckRun, together: int) -> None:
    why = run.reason
    if run.verdict == "passed":
        await _move(session, row.id, MergeState.MERGING, "the merged result passed its checks")
    elif together > 1:
        await _again(session, row, halved(together), f"failed with others, tried in a smaller batch: {why}")
    else:
        await _move(session, row.id, MergeState.REFUSED, f"merged with its base it does not pass: {why}")


async def _judged_again(session: Session, rows: Sequence[QueuedMerge], run: CheckRun, tries: int) -> None:
    """What could not be judged says nothing of the tickets: it is merged in memory and checked again, and in the end left to a person."""
    for row in rows:
        if tries < MOST_RUNS:
            await _again(session, row, len(rows), f"it could not be judged, tried again: {run.reason}")
        else:
            await _move(session, row.id, MergeState.LEFT, f"it could not be judged: {run.reason}")


async def _merge(tools: Tools, project: Project, row: QueuedMerge) -> bool:
    """Merge one ticket's change, as everybody merges; a moved base is no harm, a moved head or conflict is told."""
    async with tools.database.reading() as session:
        away = await _away(session, await queries.get(session, row.ticket_id), row)
    if away:
        return await _out(tools, row, MergeState.LEFT, away)
    try:
        await offer(tools, row.ticket_id, must=True)
        change = await branches.merge(
            tools.database, tools.repositories, project, row.ticket_id, expected_head=row.head_commit
        )
    except PASSING:
        raise
    except NotMergeable as problem:
        return await _out(tools, row, MergeState.REFUSED, f"{problem.message} {problem.hint}".strip())
    except Problem as problem:  # not its content: a right that is missing, a reviewer's word, a protected branch
        return await _out(tools, row, MergeState.LEFT, f"{problem.message} {problem.hint}".strip())
    async with tools.database.transaction() as session:
        await note_merged(session, project, row.ticket_id, row.head_commit, change.merge_commit or "")
        await _move(session, row.id, MergeState.MERGED, f"merged as {(change.merge_commit or '')[:12]}")
    return True


async def _out(tools: Tools, row: QueuedMerge, to: MergeState, why: str) -> bool:
    """One is not merged. What was only checked together with it is checked without it."""
    async with tools.database.transaction() as session:
        others = await merge_queries.merging_with(session, row)
        await _move(session, row.id, to, why)
        for other in others:
            await _again(session, other, other.batch, "another of its batch was not merged: checked without that one")
    return True


async def note_merged(session: Session, project: Project, ticket_id: str, head_commit: str, merge_commit: str) -> None:
    """The ticket's work is part of its base: what was proven before is proven once more, on the merged commit.

    A ticket whose branch stands elsewhere by now has work that is not merged: nothing is noted.
    """
    ticket = await queries.locked(session, ticket_id)
    if ticket.head_commit != head_commit:
        return
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
            await note_merged(session, project, ticket.ticket_id, ticket.head_commit or "", merge_commit)
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
        judged = await merge_queries.judged_after_merge(session)
    for ticket, row in refused:
        await _sent_back(tools, ticket.ticket_id, f"it was not merged: {row.reason}")
    for ticket, run in judged:
        if run.verdict == "error":
            await _checked_again(tools, ticket, run)
        else:
            reason = f"after its merge as {run.commit[:12]} it does not hold: {run.reason}"
            await _reopen(tools, ticket.ticket_id, reason)
    return len(refused) + len(judged)


async def _sent_back(tools: Tools, ticket_id: str, why: str) -> None:
    """One that cannot be sent back now keeps nobody else from it."""
    try:
        await move(tools, ticket_id, Column.BUILDING, how=How.FAILED, by=QUEUE, reason=why[:2000], expected=Column.DONE)
    except Problem as problem:
        logger.warning("ticket_not_sent_back", ticket_id=ticket_id, code=problem.code, reason=problem.message)


async def _checked_again(tools: Tools, ticket: Ticket, run: CheckRun) -> None:
    async with tools.database.transaction() as session:
        if await merge_queries.runs_of(session, run) < MOST_RUNS:
            project = await projects.get(session, ticket.project_id)
            await note_merged(session, project, ticket.ticket_id, ticket.head_commit or "", run.commit)


async def _reopen(tools: Tools, ticket_id: str, reason: str) -> None:
    """Back to work on a new branch: the old one is merged and gone."""
    async with tools.database.transaction() as session:
        _, ticket = await queries.locked_with_project(session, ticket_id)
        if ticket.status == Column.DONE and ticket.merge_commit is not None and ticket.archived_at is None:
            await move_back(session, ticket, Column.BUILDING, how=How.REOPENED, by=QUEUE, reason=reason[:2000])
