"""What clients, and the board itself, do to a ticket; each may be killed anywhere."""

import contextlib
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from shopfloor.board import queries, service
from shopfloor.board.rules import ORDER
from shopfloor.board.steps.advance import advance
from shopfloor.board.steps.merge_queue import note_merged
from shopfloor.evidence import queries as evidence
from shopfloor.kit.errors import Problem
from shopfloor.projects import queries as projects
from tests.board.desk import Desk

CRITERION = {"text": "It holds", "check": {"kind": "command", "command": "true"}}
HEADS = ["a" * 40, "b" * 40, "c" * 40]
"""Git is asked elsewhere: here heads are only names."""
Deed = Callable[[Desk, str, int], Coroutine[Any, Any, None]]
"""Something done to a ticket; the number picks among ways of doing it."""


async def over_http(desk: Desk, method: str, path: str, body: Any = None) -> None:
    """One wish; a refusal is an answer, a failure is not."""
    answer = await desk.client.request(method, f"/api/v1{path}", json=body)
    assert answer.status_code < 500, answer.text


async def _advance(desk: Desk, ticket: str, _pick: int) -> None:
    with contextlib.suppress(Problem):
        await advance(desk.tools, ticket)


async def _head(desk: Desk, ticket: str, pick: int) -> None:
    await desk.set_head(ticket, HEADS[pick % len(HEADS)])


async def _passed(desk: Desk, ticket: str, _pick: int) -> None:
    await desk.prove(ticket, "passed")


async def _failed(desk: Desk, ticket: str, _pick: int) -> None:
    await desk.prove(ticket, "failed")


async def _run(desk: Desk, _ticket: str, _pick: int) -> None:
    await desk.pass_runs()


async def _end_tasks(desk: Desk, ticket: str, status: str) -> None:
    for task in (await desk.get("/tasks", ticket=ticket))["tasks"]:
        await over_http(desk, "POST", f"/results/{task['task_id']}", {"status": status, "summary": "said"})


async def _complete(desk: Desk, ticket: str, _pick: int) -> None:
    await _end_tasks(desk, ticket, "completed")


async def _fail(desk: Desk, ticket: str, _pick: int) -> None:
    await _end_tasks(desk, ticket, "failed")


async def _to_first_criterion(desk: Desk, ticket: str, method: str, body: Any = None) -> None:
    async with desk.database.reading() as session:
        found = await evidence.criteria(session, ticket)
    if found:
        await over_http(desk, method, f"/criteria/{found[0].criterion_id}", body)


async def _change(desk: Desk, ticket: str, pick: int) -> None:
    check = {"kind": "command", "command": "true" if pick % 2 else "true; true"}
    await _to_first_criterion(desk, ticket, "PATCH", {"check": check})


async def _retire(desk: Desk, ticket: str, _pick: int) -> None:
    await _to_first_criterion(desk, ticket, "DELETE")


async def _union(desk: Desk, ticket: str, pick: int) -> None:
    conflicts = [{"with": "main", "paths": ["a.txt"]}] if pick % 2 else []
    async with desk.database.transaction() as session:
        await service.set_union(session, await queries.locked(session, ticket), behind=pick, conflicts=conflicts)


async def _merge(desk: Desk, ticket: str, pick: int) -> None:
    """What is done was offered, and somebody merged it."""
    async with desk.database.transaction() as session:
        row = await queries.locked(session, ticket)
        if row.status == "done" and row.merge_commit is None and row.head_commit:
            await service.set_change(session, row, f"change-{pick}", "")
            project = await projects.get(session, row.project_id)
            await note_merged(session, project, ticket, row.head_commit, "d" * 40)


def _wish(method: str, path: str, body: Callable[[str, str], Any] = lambda _ticket, _column: None) -> Deed:
    async def wished(desk: Desk, ticket: str, pick: int) -> None:
        await over_http(desk, method, path.format(ticket), body(ticket, ORDER[pick % len(ORDER)]))

    return wished


DEEDS: Mapping[str, Deed] = {
    "progress": _wish("POST", "/tickets/{}/progress"),
    "transition": _wish("POST", "/tickets/{}/transition", lambda _, to: {"to_status": to}),
    "board": _wish("POST", "/board/move", lambda ticket, to: {"ticket_id": ticket, "target_phase": to}),
    "patch": _wish("PATCH", "/tickets/{}", lambda _, to: {"status": to, "title": f"Of {to}"}),
    "regress": _wish("POST", "/tickets/{}/regress"),
    "approve": _wish("POST", "/tickets/approve", lambda ticket, _: {"ticket_id": ticket}),
    "reject": _wish("POST", "/tickets/reject", lambda ticket, _: {"ticket_id": ticket}),
    "block": _wish("POST", "/tickets/{}/block"),
    "unblock": _wish("POST", "/tickets/{}/unblock"),
    "archive": _wish("DELETE", "/tickets/{}"),
    "criteria": _wish("POST", "/tickets/{}/criteria", lambda *_: [CRITERION]),
    "task": _wish(
        "POST", "/tasks", lambda ticket, at: {"project": "p", "ticket_id": ticket, "phase": at, "title": "do"}
    ),
    "advance": _advance,
    "head": _head,
    "passed": _passed,
    "failed": _failed,
    "run": _run,
    "complete": _complete,
    "fail": _fail,
    "change": _change,
    "retire": _retire,
    "union": _union,
    "merge": _merge,
}
OFTEN = ["advance", "passed", "complete"]
