"""All live branches of a project merged together in memory, and its own check run on that, where the project asks for it."""

from dataclasses import dataclass, field

from shopfloor.board import merge_queries, merge_service
from shopfloor.board.models import Ticket
from shopfloor.board.rules.merging import DATE, MOST_RUNS
from shopfloor.evidence import service as checks
from shopfloor.kit.db import Session
from shopfloor.projects import queries as projects
from shopfloor.projects.models import Project
from shopfloor.workorders.steps import Tools

PURPOSE = "live branches"
MOST = 200


@dataclass
class Seen:
    """What each project's branches were when they were last merged together."""

    states: dict[str, object] = field(default_factory=dict)


async def check_together(tools: Tools, seen: Seen, project_id: str) -> None:
    """Have the project's check run on its live branches as they are now, one run at a time: the end of one brings us back.

    Raises what keeps the origin from being read.
    """
    async with tools.database.reading() as session:
        project = await projects.get(session, project_id)
        known = await merge_queries.union(session, project_id)
        tickets = (await merge_queries.live(session, project_id))[:MOST]
    if not (project.union_check and project.check_command and tickets) or (known and known[1].verdict is None):
        return
    base = await tools.repositories.resolve(project.repository_url, project.base_branch)
    state = base.commit, [(one.ticket_id, one.head_commit) for one in tickets], project.check_command
    if seen.states.get(project_id) == state:
        return
    mine = [one for one in tickets if one.base_branch in {None, base.branch}]
    commit, fitting = await _merged(tools, project, base.commit, mine)
    if fitting:
        async with tools.database.transaction() as session:
            await _request(session, project, commit, fitting, tools.sandboxes.host_id)
    seen.states[project_id] = state


async def _merged(tools: Tools, project: Project, base: str, tickets: list[Ticket]) -> tuple[str, list[str]]:
    """The commit of all that fit together, one after the other, and whose they are. Who clashes says so on its card."""
    commit, fitting = base, []
    for ticket in tickets:
        merged = await tools.repositories.mergeable(project.repository_url, commit, ticket.head_commit or "")
        if merged.clean and merged.adds:
            parents = (commit, ticket.head_commit or "")
            words = f"{ticket.ticket_id} with all others"
            commit = await tools.repositories.commit_merge(
                project.repository_url, merged.tree, parents, words, date=DATE
            )
            fitting.append(ticket.ticket_id)
    return commit, fitting


async def _request(session: Session, project: Project, commit: str, ticket_ids: list[str], host_id: str) -> None:
    """Once for a commit and a command; what could not be judged says nothing, and is tried again a few times."""
    wanted = {"kind": "command", "command": project.check_command}
    known = await merge_queries.union(session, project.project_id)
    same = known and known[0].commit == commit and known[1].checks[0]["check"] == wanted
    if known and same and (known[1].verdict != "error" or await merge_queries.runs_of(session, known[1]) >= MOST_RUNS):
        return
    run = await checks.request_run(
        session,
        subject_id=project.project_id,
        purpose=PURPOSE,
        project=project,
        base_commit=commit,  # what was changed to pass is judged on each ticket's own branch
        commit=commit,
        checks=[{"check": wanted}],
        host_id=host_id,
    )
    if run:
        await merge_service.set_union(session, project.project_id, commit, ticket_ids, run.run_id)
