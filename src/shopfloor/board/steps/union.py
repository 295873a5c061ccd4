"""The union check: every live branch of a project, merged in memory with its base and with every other; nobody learns of a conflict at the merge."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shopfloor.board import merge_queries, queries, service
from shopfloor.board.models import Ticket
from shopfloor.board.steps.together import PURPOSE, Seen, check_together
from shopfloor.events import log as events
from shopfloor.forges.mirrors import reading
from shopfloor.forges.port import Refs
from shopfloor.kit import log
from shopfloor.kit.errors import Problem
from shopfloor.projects import queries as projects
from shopfloor.workorders.steps import Tools

logger = log.get(__name__)

LOOK_SECONDS = 20.0
"""How long people's own pushes, which nobody tells us of, may stay unseen."""
MOST_LIVE = 200
"""Live branches of a project that are looked at: each is merged with every other."""
REMEMBERED = MOST_LIVE * MOST_LIVE
MOVED = frozenset(
    {
        "ticket.head_moved",
        "change.merged",
        "change.closed",
        "ticket.archived",
        "project.changed",
        "check_run.state_changed",
    }
)

Pair = tuple[str, str, str]


@dataclass
class Unions:
    """What is known of pairs of commits, which never changes, and what each project's branches were when last looked at."""

    clashes: dict[Pair, tuple[str, ...]] = field(default_factory=dict)
    """(repository, commit, commit) -> files in conflict."""
    behind: dict[Pair, int] = field(default_factory=dict)
    seen: dict[str, object] = field(default_factory=dict)
    """Project -> its base and heads: as long as these stay, so do all answers."""

    async def clash(self, tools: Tools, url: str, one: str, other: str) -> tuple[str, ...]:
        """The files in which two commits do not merge."""
        key = (url, min(one, other), max(one, other))
        if key not in self.clashes:
            _make_room(self.clashes)
            merged = await tools.repositories.mergeable(*key)
            self.clashes[key] = () if merged.clean else tuple(merged.conflicts[:100])
        return self.clashes[key]

    async def lag(self, tools: Tools, url: str, base: str, head: str) -> int:
        """How many commits `base` has that `head` has not."""
        key = (url, base, head)
        if key not in self.behind:
            _make_room(self.behind)
            self.behind[key] = (await reading.compare(tools.repositories.place(url), base, head)).behind
        return self.behind[key]


def _make_room(known: dict[Any, Any]) -> None:
    if len(known) >= REMEMBERED:
        known.clear()


async def keep_checking(tools: Tools) -> None:
    """Check a project's branches whenever one moves, for ever."""
    known, seen, due = Unions(), Seen(), set[str]()
    async with tools.hub.subscribe(events.Filters(event_types=MOVED)) as feed:
        moves = aiter(feed)
        next_move = asyncio.ensure_future(anext(moves))
        try:
            while True:
                done, _ = await asyncio.wait({next_move}, timeout=0 if due else LOOK_SECONDS)
                if done:
                    due |= await _concerned(tools, seen, next_move.result())
                    next_move = asyncio.ensure_future(anext(moves))
                    continue
                async with tools.database.reading() as session:
                    due = due or set(await merge_queries.projects_alive(session))
                for project_id in due:
                    await _checked(tools, known, seen, project_id)
                due = set()
        finally:
            next_move.cancel()


async def _concerned(tools: Tools, seen: Seen, event: Any) -> set[str]:
    """The project whose branches an event is about; a change says whose it is by its repository."""
    if event.event_type == "check_run.state_changed":
        if event.payload.get("purpose") != PURPOSE or event.payload.get("verdict") is None:
            return set()
        seen.states.pop(str(event.payload["subject_id"]), None)
        return {str(event.payload["subject_id"])}
    if project_id := event.payload.get("project_id"):
        return {str(project_id)}
    async with tools.database.reading() as session:
        return set(await merge_queries.projects_alive(session))


async def _checked(tools: Tools, known: Unions, seen: Seen, project_id: str) -> None:
    try:
        await check_union(tools, known, project_id)
        await check_together(tools, seen, project_id)
    except Problem as problem:
        logger.warning("union_check_failed", project_id=project_id, code=problem.code, reason=problem.message)


async def check_union(tools: Tools, known: Unions, project_id: str) -> None:
    """Look at every live branch of a project and write down what it does not merge with. Raises what keeps the origin from being read."""
    async with tools.database.reading() as session:
        project = await projects.get(session, project_id)
        tickets = await merge_queries.live(session, project_id)
    if not tickets:
        return
    refs = await tools.repositories.glance(project.repository_url)
    heads = {one.ticket_id: await _seen_head(tools, project.repository_url, one, refs) for one in tickets[:MOST_LIVE]}
    bases = {one.base_branch: refs.heads.get(one.base_branch or refs.head or "") for one in tickets[:MOST_LIVE]}
    if known.seen.get(project_id) == (heads, bases):
        return
    if len(tickets) > MOST_LIVE:
        logger.warning("union_check_limited", project_id=project_id, live=len(tickets), checked=MOST_LIVE)
    whole = True
    for ticket in tickets[:MOST_LIVE]:
        whole &= await _noted(tools, known, project.repository_url, ticket, heads, refs)
    if whole:
        known.seen[project_id] = (heads, bases)


async def _noted(tools: Tools, known: Unions, url: str, ticket: Ticket, heads: Mapping[str, str], refs: Refs) -> bool:
    """Write down how one branch stands; False when git could not tell, or it moved meanwhile."""
    try:
        behind, clashes = await _of(tools, known, url, ticket, heads, refs)
    except Problem as problem:
        logger.warning("union_check_failed", ticket_id=ticket.ticket_id, code=problem.code, reason=problem.message)
        return False
    if (ticket.head_commit, ticket.behind, ticket.conflicts) == (heads[ticket.ticket_id], behind, clashes):
        return True
    async with tools.database.transaction() as session:
        row = await queries.locked(session, ticket.ticket_id)
        if row.head_commit != heads[ticket.ticket_id]:
            return False
        await service.set_union(session, row, behind=behind, conflicts=clashes)
    return True


async def _seen_head(tools: Tools, url: str, ticket: Ticket, refs: Refs) -> str:
    """Where a ticket's branch stands at the origin: what people pushed there counts as its head from now on."""
    there, noted = refs.heads.get(ticket.branch or ""), ticket.head_commit or ""
    if there is None or there == noted:
        return noted
    base = refs.heads.get(ticket.base_branch or refs.head or "")
    fork = await reading.fork(tools.repositories.place(url), base, there) if base else None
    async with tools.database.transaction() as session:
        row = await queries.locked(session, ticket.ticket_id)
        if row.head_commit != noted:
            return row.head_commit or ""
        await service.set_head(
            session,
            row,
            branch=row.branch or "",
            base_branch=row.base_branch or "",
            base_commit=fork or row.base_commit or "",
            head_commit=there,
            why="somebody pushed to its branch",
        )
    return there


async def _of(
    tools: Tools, known: Unions, url: str, ticket: Ticket, heads: Mapping[str, str], refs: Refs
) -> tuple[int, Sequence[dict[str, Any]]]:
    """How far a ticket's branch is behind its base, and with what it clashes: the base by name, tickets by id."""
    mine, base_name = heads[ticket.ticket_id], ticket.base_branch or refs.head or ""
    others = {other: head for other, head in heads.items() if other != ticket.ticket_id}
    behind = 0
    if base := refs.heads.get(base_name):
        behind = await known.lag(tools, url, base, mine)
        others = {base_name: base, **others}
    found = [(name, await known.clash(tools, url, mine, head)) for name, head in others.items()]
    return behind, [{"with": name, "paths": list(paths)} for name, paths in found if paths]
