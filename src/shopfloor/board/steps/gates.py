"""What the gates of a ticket's column look at: git first, outside of any transaction, then the tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shopfloor.board import queries
from shopfloor.board.models import Ticket
from shopfloor.board.rules import gates as law
from shopfloor.board.rules.gates import Checked, Facts, Finding, TaskFact
from shopfloor.evidence import queries as evidence
from shopfloor.evidence.rules import matches
from shopfloor.forges.mirrors import reading
from shopfloor.forges.mirrors.bundles import CommitNotFound
from shopfloor.kit.db import Session
from shopfloor.projects import queries as projects
from shopfloor.projects.models import Project
from shopfloor.tasks import queries as tasks
from shopfloor.tasks.models import Task
from shopfloor.workorders.steps import Tools

MOST_FILES = 20
"""Files that one glob of an artifact may have looked into."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What git says of one head; it holds for that head and base only."""

    head_commit: str | None = None
    base_commit: str | None = None
    artifacts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    changed: Sequence[str] = ()

    def of(self, ticket: Ticket) -> bool:
        """Whether the ticket still stands where git was asked."""
        return (self.head_commit, self.base_commit) == (ticket.head_commit, ticket.base_commit)


async def look(tools: Tools, project: Project, ticket: Ticket) -> Seen:
    """Read what the gates of the ticket's column want of its head: file names, their texts, what was changed."""
    gates = law.gates_of(project.gates, ticket.status)
    ends: dict[str, Any] = {"head_commit": ticket.head_commit, "base_commit": ticket.base_commit}
    if ticket.head_commit is None or not law.wants_commit(gates):
        return Seen(**ends)
    try:
        return await _look(tools, project, ticket, gates, ends)
    except CommitNotFound:  # another host made it
        await tools.repositories.sync(project.repository_url)
        return await _look(tools, project, ticket, gates, ends)


async def _look(
    tools: Tools, project: Project, ticket: Ticket, gates: list[dict[str, Any]], ends: dict[str, Any]
) -> Seen:
    head = ticket.head_commit or ""
    place = tools.repositories.place(project.repository_url)
    artifacts: dict[str, dict[str, str]] = {}
    globs = [gate["path"] for gate in gates if gate["kind"] == "artifact" and gate.get("path")]
    names = await reading.paths(place, head) if globs else []
    for glob in globs:
        wanted = [path for path in names if matches(path, [glob])][:MOST_FILES]
        artifacts[glob] = {path: await reading.text(place, head, path) for path in wanted}
    changed: list[str] = []
    if ticket.base_commit and ticket.base_commit != head:
        found, _ = await reading.changed(place, ticket.base_commit, head)
        changed = [one.path for one in found]
    return Seen(**ends, artifacts=artifacts, changed=changed)


def _stand(task: Task) -> str:
    """What was made and is not in the ticket's branch yet is not done."""
    on_its_way = task.status == "completed" and not task.gathered
    return "on its way into the ticket's branch" if on_its_way else task.status


async def findings(session: Session, project: Project, ticket: Ticket, seen: Seen) -> list[Finding]:
    """The gates of the ticket's column that do not hold now."""
    gates = law.gates_of(project.gates, ticket.status)
    return law.judge(gates, await _facts(session, ticket, seen)) if gates else []


async def _facts(session: Session, ticket: Ticket, seen: Seen) -> Facts:
    standings = await evidence.standings(session, {ticket.ticket_id: ticket.head_commit})
    own = await tasks.of_ticket(session, ticket.ticket_id)
    return Facts(
        description=ticket.description,
        criteria=[
            Checked(text=one.criterion.text, verdict=str(one.verdict)) for one in standings.get(ticket.ticket_id, [])
        ],
        tasks=[
            TaskFact(task_id=task.task_id, title=task.title, status=_stand(task))
            for task in own
            if task.phase == ticket.status
        ],
        head_commit=ticket.head_commit,
        base_commit=ticket.base_commit,
        artifacts=seen.artifacts,
        changed=seen.changed,
    )


async def standing(tools: Tools, ticket_id: str) -> dict[str, Any]:
    """The gates of a ticket's column, and which of them do not hold, with what is missing."""
    async with tools.database.reading() as session:
        ticket = await queries.get(session, ticket_id)
        project = await projects.get(session, ticket.project_id)
    seen = await look(tools, project, ticket)
    async with tools.database.reading() as session:
        ticket = await queries.get(session, ticket_id)
        open_ = await findings(session, project, ticket, seen)
    return {
        "ticket_id": ticket_id,
        "status": ticket.status,
        "gates": law.gates_of(project.gates, ticket.status),
        "missing": [finding.document() for finding in open_],
    }
