"""A ticket's branch: what its tasks delivered is gathered there, and offered for review as one change."""

from collections.abc import Sequence
from dataclasses import dataclass

from shopfloor.board import merge_queries, queries, service
from shopfloor.board.models import Ticket
from shopfloor.board.rules import LONGEST_TASK, shortened
from shopfloor.forges.mirrors import reading
from shopfloor.forges.port import BranchMoved, Refs
from shopfloor.kit import log
from shopfloor.kit.db import Session
from shopfloor.kit.errors import Unavailable
from shopfloor.projects import queries as projects
from shopfloor.projects.models import Project
from shopfloor.projects.steps import branches
from shopfloor.tasks import graph
from shopfloor.tasks import queries as task_queries
from shopfloor.tasks import service as tasks
from shopfloor.tasks.models import Task
from shopfloor.workorders.models import WorkOrder
from shopfloor.workorders.steps import Tools

logger = log.get(__name__)

TRIES = 5
"""How often a merge into a ticket's branch is made anew because the branch moved meanwhile."""


class BranchKeepsMoving(Unavailable):
    """Somebody moves the ticket's branch faster than work can be merged into it."""

    hint = "It is tried again; nothing is lost."


@dataclass(frozen=True)
class Work:
    """A task's delivered commit, on its way into its ticket's branch."""

    ticket: Ticket
    project: Project
    order: WorkOrder
    commit: str

    @property
    def branch(self) -> str:
        """The ticket's branch, made or not."""
        ticket = self.ticket
        return ticket.branch or branches.branch_name(
            self.project, ticket.ticket_id, title=ticket.title, kind=ticket.kind, issue=ticket.github_issue_number
        )


async def take_in(tools: Tools, ticket_id: str, task_id: str) -> None:
    """Bring what a task delivered into its ticket's branch; work that does not merge there is done anew from there. Idempotent."""
    clashes = await integrate(tools, ticket_id, task_id)
    async with tools.database.transaction() as session:
        await queries.locked(session, ticket_id)  # before the graph, as who moves or decides about a ticket does
        task = await graph.locked(session, task_id)
        if task.gathered:
            return
        if clashes:
            again = await _anew(tools, session, task, clashes)
            for waiting in await task_queries.dependents(session, task_id):
                if waiting.status == "pending":
                    await graph.depend(session, waiting, [again.task_id])
        await tasks.note_gathered(session, task_id)


async def _anew(tools: Tools, session: Session, task: Task, clashes: Sequence[str]) -> Task:
    """The same task once more, told what its first work did not merge with; held as any new one of its ticket is. That work stays on its own branch."""
    logger.warning("task_work_conflicts", task_id=task.task_id, ticket_id=task.ticket_id, paths=list(clashes[:10]))
    told = (
        "This was done before, and does not merge with what others did meanwhile in "
        f"{', '.join(clashes[:20])[:4000]}. Do it again on what is there now."
    )
    ticket_id = task.ticket_id or ""
    begins = await service.terms(session, task.project_id, ticket_id, task.phase)
    return await tasks.create(
        session,
        project_id=task.project_id,
        ticket_id=ticket_id,
        phase=task.phase,
        title=task.title,
        description=f"{shortened(task.description, f'task {task.task_id}', LONGEST_TASK - len(told) - 2)}\n\n{told}",
        workflow=task.workflow_type,
        priority=task.priority,
        owned_paths=task.owned_paths,
        **begins | {"reason": begins["reason"] or f"{task.task_id} conflicts with its ticket's branch"},
        scheduling=tools.settings.scheduling,
        agent=task.agent,
        model=task.model,
        agent_options=task.agent_options,
        base_branch=(await queries.get(session, ticket_id)).branch,
    )


async def integrate(tools: Tools, ticket_id: str, task_id: str) -> list[str]:
    """Bring what a task delivered into its ticket's branch; answers the files that stand in the way, then nothing was done.

    Idempotent. A task that delivered nothing brings nothing. Raises what the origin has against the push.
    """
    for _ in range(TRIES):
        async with tools.database.reading() as session:
            ticket, order = await queries.get(session, ticket_id), await merge_queries.work_of(session, task_id)
            project = await projects.get(session, ticket.project_id)
        if order is None or order.head_commit is None:
            return []
        work = Work(ticket, project, order, order.head_commit)
        try:
            return await _bring_in(tools, work)
        except BranchMoved:
            continue
    raise BranchKeepsMoving(f"the branch of {ticket_id} was moved {TRIES} times by others")


async def _bring_in(tools: Tools, work: Work) -> list[str]:
    url, repositories = work.project.repository_url, tools.repositories
    refs = await repositories.sync(url)
    there = refs.heads.get(work.branch)
    merged = await _merged(tools, work, there or work.ticket.head_commit)
    if isinstance(merged, list):
        return merged
    if merged != there:
        await repositories.push(url, merged, work.branch, expected_old=there or "")
    await _note_head(tools, work, merged, refs)
    return []


async def _merged(tools: Tools, work: Work, now: str | None) -> str | list[str]:
    """The commit that holds the branch as it is and the work; or the files in conflict."""
    url, repositories = work.project.repository_url, tools.repositories
    if now is None or await repositories.contains(url, work.commit, now):
        return work.commit
    if await repositories.contains(url, now, work.commit):
        return now
    both = await repositories.mergeable(url, now, work.commit)
    if not both.clean:
        return both.conflicts[:100]
    words = f"Merge {work.order.git_branch_name} of {work.order.task_id}\n\n{work.ticket.title}"
    return await repositories.commit_merge(url, both.tree, (now, work.commit), words)


async def _note_head(tools: Tools, work: Work, head: str, refs: Refs) -> None:
    """Write the branch's new head down. Its base commit is where it left the base, which a merge of newer work moves on."""
    ticket, order = work.ticket, work.order
    base_branch = ticket.base_branch or work.project.base_branch or refs.head or order.base_branch or ""
    base = refs.heads.get(base_branch)
    place = tools.repositories.place(work.project.repository_url)
    fork = await reading.fork(place, base, head) if base else None
    async with tools.database.transaction() as session:
        row = await queries.locked(session, ticket.ticket_id)
        if row.head_commit != ticket.head_commit:
            raise BranchMoved("somebody else noted another head meanwhile")
        await service.set_head(
            session,
            row,
            branch=work.branch,
            base_branch=base_branch,
            base_commit=fork or ticket.base_commit or order.base_commit or "",
            head_commit=head,
            why=f"{order.task_id} delivered {order.agent_work_order_id}",
        )
        await tasks.set_waiting(session, ticket.ticket_id, base_branch=work.branch)
