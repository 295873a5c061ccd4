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
from shopfloor.forges.mirrors.places import Place
from shopfloor.kit.db import Session
from shopfloor.kit.errors import Problem
from shopfloor.kit.git import GitFailed
from shopfloor.projects import queries as projects
from shopfloor.projects.models import Project
from shopfloor.tasks import queries as tasks
from shopfloor.tasks.models import Task
from shopfloor.workorders.steps import Tools

MOST_FILES = 20
"""Files that one glob of an artifact may have looked into."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What git says of one head to the gates of one column; it holds for that column, head and base only."""

    status: str = ""
    head_commit: str | None = None
    base_commit: str | None = None
    artifacts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    changed: Sequence[str] = ()
    unread: Mapping[str, Problem] = field(default_factory=dict)
    """Kind of gate -> why git could not say it."""

    def of(self, ticket: Ticket) -> bool:
        """Whether the ticket still stands where git was asked."""
        there = (ticket.status, ticket.head_commit, ticket.base_commit)
        return (self.status, self.head_commit, self.base_commit) == there


async def look(tools: Tools, project: Project, ticket: Ticket) -> Seen:
    """Read what the gates of the ticket's column want of its head: file names, their texts, what was changed.

    Raises nothing that git or the origin has against it: that is told of the gate, which a person may pass.
    """
    seen: dict[str, Any] = {}
    unread: dict[str, Problem] = {}
    gates = law.gates_of(project.gates, ticket.status) if ticket.head_commit else []
    for kind in law.READS_COMMIT & {gate["kind"] for gate in gates}:
        globs = [gate["path"] for gate in gates if gate["kind"] == kind and gate.get("path")]
        try:
            seen |= await _read(tools, project, ticket, kind, globs)
        except Problem as problem:
            unread[kind] = problem
    head, base = ticket.head_commit, ticket.base_commit
    return Seen(status=ticket.status, head_commit=head, base_commit=base, unread=unread, **seen)


async def _read(tools: Tools, project: Project, ticket: Ticket, kind: str, globs: Sequence[str]) -> dict[str, Any]:
    try:
        return await READERS[kind](tools.repositories.place(project.repository_url), ticket, globs)
    except (CommitNotFound, GitFailed):  # another host made it, or nothing of the origin is here yet
        await tools.repositories.sync(project.repository_url)
        return await READERS[kind](tools.repositories.place(project.repository_url), ticket, globs)


async def _artifacts(place: Place, ticket: Ticket, globs: Sequence[str]) -> dict[str, Any]:
    files = await reading.files(place, ticket.head_commit or "") if globs else {}
    found: dict[str, dict[str, str]] = {}
    for glob in globs:
        wanted = [path for path in files if matches(path, [glob])][:MOST_FILES]
        found[glob] = {path: await reading.blob_text(place, files[path]) for path in wanted}
    return {"artifacts": found}


async def _changes(place: Place, ticket: Ticket, _globs: Sequence[str]) -> dict[str, Any]:
    head, base = ticket.head_commit or "", ticket.base_commit
    found = (await reading.changed(place, base, head))[0] if base and base != head else []
    return {"changed": [one.path for one in found]}


READERS = {"artifact": _artifacts, "change": _changes}


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
        unread={kind: f"{problem.message} {problem.hint}"[:500] for kind, problem in seen.unread.items()},
    )


async def standing(tools: Tools, ticket_id: str) -> dict[str, Any]:
    """The gates of a ticket's column, and which of them do not hold, with what is missing."""
    async with tools.database.reading() as session:
        ticket = await queries.get(session, ticket_id)
        project = await projects.get(session, ticket.project_id)
    seen = await look(tools, project, ticket)
    async with tools.database.reading() as session:
        open_ = await findings(session, project, ticket, seen)
    return {
        "ticket_id": ticket_id,
        "status": ticket.status,
        "gates": law.gates_of(project.gates, ticket.status),
        "missing": [finding.document() for finding in open_],
    }
