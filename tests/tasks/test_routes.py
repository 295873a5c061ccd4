"""Tasks over HTTP: every endpoint, filters, pages, refusals; on real databases."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from shopfloor.auth import service as auth
from shopfloor.kit.db import Session
from shopfloor.tasks import service
from shopfloor.tasks.models import Task
from tests.tasks.world import World

DONE = {"status": "completed", "summary": "all done", "files_changed": [{"path": "a.py", "action": "modified"}]}


async def make(client: httpx.AsyncClient, expect: int = 201, **fields: Any) -> dict[str, Any]:
    answer = await client.post("/tasks", json={"project": "p", "description": "Do it. Now.", **fields})
    assert answer.status_code == expect, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def ask(client: httpx.AsyncClient, method: str, path: str, expect: int = 200, **options: Any) -> Any:
    answer = await client.request(method, path, **options)
    assert answer.status_code == expect, answer.text
    return answer.json()


@pytest.fixture
async def project(world: World) -> str:
    return await world.project()


async def ticket_of(client: httpx.AsyncClient) -> str:
    """A card in the backlog, whose tasks wait for it."""
    return str((await ask(client, "POST", "/tickets", 201, json={"project": "p", "title": "A card"}))["ticket_id"])


async def test_a_task_is_made_shown_and_changed(client: httpx.AsyncClient, project: str) -> None:
    """TSK-02"""
    made = await make(client, phase="PHASE_INITIAL", priority="HIGH", owned_paths=["./src/"])
    assert (made["title"], made["phase"], made["priority"]) == ("Do it", "analyzing", "high")
    assert (made["owned_paths"], made["workflow_type"]) == (["src"], "agent_workflow_plan")
    path = f"/tasks/{made['task_id']}"
    changed = await ask(client, "PATCH", path, json={"priority": "Critical", "title": "Other"})
    assert (changed["priority"], changed["title"], changed["rank"] < made["rank"]) == ("critical", "Other", True)
    assert await ask(client, "GET", path) == changed


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"project": "nothing"}, "project_not_found"),
        ({"phase": "deploying"}, "unknown_column"),
        ({"priority": "urgent"}, "unknown_priority"),
        ({"workflow_type": "dance"}, "unknown_workflow"),
        ({"agent": "nobody"}, "unknown_profile"),
        ({"owned_paths": ["../x"]}, "bad_path"),
        ({"depends_on": ["TSK-001"]}, "task_not_found"),
        ({"deadline": "2026-01-01T00:00:00"}, "malformed"),
        ({"deadline": "9999-12-31T23:59:59.999999Z"}, "malformed"),
        ({"deadline": "0001-01-01T00:00:00+14:00"}, "malformed"),
        ({"colour": "red"}, "malformed"),
    ],
)
async def test_a_bad_task_is_refused_with_what_to_do(
    client: httpx.AsyncClient, project: str, fields: dict[str, Any], code: str
) -> None:
    answer = await client.post("/tasks", json={"project": "p", "title": "x", **fields})
    assert (answer.status_code in {404, 422}, answer.json()["code"]) == (True, code), answer.text
    assert answer.json()["hint"]
    assert (await ask(client, "GET", "/tasks"))["total_count"] == 0


async def test_tasks_are_filtered_searched_and_sorted(client: httpx.AsyncClient, world: World, project: str) -> None:
    """TSK-01"""
    one = await make(client, title="Fix 100% of taxes", phase="testing")
    ticket = await ticket_of(client)
    two = await make(client, title="Fix the login", ticket_id=ticket)
    ran = await make(client, title="Write docs", priority="critical")
    assert await world.dispatched()
    await world.ends(ran["task_id"])

    async def ids(**query: Any) -> list[str]:
        return [task["task_id"] for task in (await ask(client, "GET", "/tasks", params=query))["tasks"]]

    assert await ids(sort="created_at") == [one["task_id"], two["task_id"], ran["task_id"]]
    assert await ids(status="completed") == [ran["task_id"]]
    assert await ids(phase_id="PHASE_INTEGRATION") == [one["task_id"]]
    assert await ids(has_sandbox=False) == [two["task_id"]]
    assert await ids(ticket=ticket, project="p") == [two["task_id"]]
    assert await ids(q="fix 100%") == [one["task_id"]]
    assert await ids(q="FIX", sort="title") == [one["task_id"], two["task_id"]]
    assert (await ask(client, "GET", "/tasks", 422, params={"sort": "colour"}))["code"] == "unknown_sort"


@pytest.mark.parametrize("sort", ["created_at", "-created_at", "title", "-rank"])
async def test_pages_by_cursor_show_every_task_once(client: httpx.AsyncClient, project: str, sort: str) -> None:
    made = {(await make(client, title="same"))["task_id"] for _ in range(7)}
    seen: list[str] = []
    cursor = None
    while True:
        page = await ask(
            client, "GET", "/tasks", params={"limit": 3, "sort": sort} | ({"cursor": cursor} if cursor else {})
        )
        seen += [task["task_id"] for task in page["tasks"]]
        if not (cursor := page["next_cursor"]):
            break
    assert (len(seen), set(seen)) == (7, made)


async def test_results_and_what_can_be_cancelled_are_filtered_searched_and_sorted(
    client: httpx.AsyncClient, world: World, project: str
) -> None:
    """RES-01, TSK-14"""
    await world.project("q")
    one, two = [(await make(client, title=title))["task_id"] for title in ("Saw b", "Saw a")]
    other = (await make(client, project="q", title="Saw c"))["task_id"]

    async def ids(path: str, name: str, **query: Any) -> list[str]:
        return [task["task_id"] for task in (await ask(client, "GET", path, params=query))[name]]

    async def both(**query: Any) -> list[list[str]]:
        return [await ids("/tasks/cancellable", "tasks", **query), await ids("/results", "results", **query)]

    async with world.database.transaction() as session:
        await session.execute(sa.update(Task).values(result=DONE))
    assert await both(project="p", sort="title") == [[two, one]] * 2
    assert await both(q="saw C") == [[other]] * 2


async def test_a_bad_cursor_is_refused(client: httpx.AsyncClient, project: str) -> None:
    for cursor in ("x", "bm8=", "WzEsMl0="):
        assert (await ask(client, "GET", "/tasks", 422, params={"cursor": cursor}))["code"] == "bad_cursor"


@pytest.mark.parametrize("path", ["/tasks/timed-out", "/tasks/cancellable"])
async def test_a_static_route_is_not_shadowed(client: httpx.AsyncClient, project: str, path: str) -> None:
    """W25"""
    assert "total_count" in await ask(client, "GET", path)


async def test_dependencies_are_read_added_replaced_removed_and_checked(
    client: httpx.AsyncClient, project: str
) -> None:
    """TSK-03…07"""
    one, two, three = [(await make(client))["task_id"] for _ in range(3)]
    path = f"/tasks/{one}/dependencies"
    added = await ask(client, "POST", path, json={"depends_on": [two]})
    assert (added["depends_on"], added["open_dependencies"]) == ([two], 1)
    assert (await ask(client, "GET", f"/tasks/{two}/dependencies"))["blocks"] == [one]
    checked = await ask(client, "POST", f"/tasks/{two}/check-circular", json={"depends_on": [one]})
    assert (checked["circular"], checked["circle"]) == (True, [two, one, two])
    assert (await ask(client, "POST", f"/tasks/{two}/check-circular", json={"depends_on": [three]}))[
        "circular"
    ] is False
    refused = await ask(client, "POST", f"/tasks/{two}/dependencies", 409, json={"depends_on": [one]})
    assert refused["code"] == "circular_dependency"
    assert (await ask(client, "PUT", path, json={"depends_on": [three]}))["depends_on"] == [three]
    assert (await ask(client, "DELETE", f"{path}/{three}"))["depends_on"] == []
    assert (await ask(client, "DELETE", f"{path}/{three}", 404))["code"] == "dependency_not_found"


@pytest.mark.parametrize("kind", ["project", "ticket", "task"])
async def test_there_is_no_graph_of_what_there_is_not(client: httpx.AsyncClient, project: str, kind: str) -> None:
    """OTH-01: an empty graph would say that nothing waits."""
    found = await ask(client, "GET", f"/graph/dependency-graph/{kind}/nothing", 404)
    assert found["code"] == f"{kind}_not_found"


async def test_a_ticket_without_tasks_has_an_empty_graph(client: httpx.AsyncClient, project: str) -> None:
    found = await ask(client, "GET", f"/graph/dependency-graph/ticket/{await ticket_of(client)}")
    assert found["nodes"] == []


async def test_what_waits_or_runs_can_be_cancelled(client: httpx.AsyncClient, project: str) -> None:
    """TSK-08, TSK-14"""
    task_id = (await make(client))["task_id"]
    assert (await ask(client, "GET", "/tasks/cancellable"))["total_count"] == 1
    assert (await ask(client, "POST", f"/tasks/{task_id}/cancel", json={"reason": "no"}))["status"] == "cancelled"
    assert (await ask(client, "POST", f"/tasks/{task_id}/cancel"))["reason"] == "no"
    assert (await ask(client, "GET", "/tasks/cancellable"))["total_count"] == 0
    assert (await ask(client, "POST", f"/tasks/{task_id}/retry"))["status"] == "pending"


async def test_a_time_limit_is_set_shown_and_kept(client: httpx.AsyncClient, world: World, project: str) -> None:
    """TSK-09, TSK-10, TSK-13, TSK-15"""
    task_id = (await make(client))["task_id"]
    assert (await ask(client, "GET", f"/tasks/{task_id}/timeout-status"))["running_seconds"] is None
    await world.dispatched()
    assert (await ask(client, "GET", "/tasks/timed-out"))["tasks"] == []
    status = await ask(client, "POST", f"/tasks/{task_id}/set-timeout", json={"timeout_seconds": 1e-6})
    assert status["timed_out"] is True
    late = (await ask(client, "GET", "/tasks/timed-out"))["tasks"]
    assert [one["task"]["task_id"] for one in late] == [task_id]
    assert (await ask(client, "POST", "/tasks/cleanup-timed-out"))["tasks"] == [task_id]
    assert (await ask(client, "GET", f"/tasks/{task_id}"))["stopping"] == "failed"


async def test_only_what_was_stopped_is_told_to_be(
    client: httpx.AsyncClient, world: World, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    late, ended = [(await make(client))["task_id"] for _ in range(2)]
    await world.dispatched()
    for task_id in (late, ended):
        await ask(client, "POST", f"/tasks/{task_id}/set-timeout", json={"timeout_seconds": 1e-6})
    real = service.time_out

    async def ends_just_before(session: Session, task_id: str, *, reason: str) -> Task:
        if task_id == ended:
            raise service.TaskEnded
        return await real(session, task_id, reason=reason)

    monkeypatch.setattr(service, "time_out", ends_just_before)
    assert (await ask(client, "POST", "/tasks/cleanup-timed-out"))["tasks"] == [late]


async def test_many_titles_are_made_in_a_transaction_each(
    client: httpx.AsyncClient, world: World, project: str
) -> None:
    """All in one held every row until the last: a task that completes under the graph's lock waited in a circle."""
    ids = [(await make(client, title="x"))["task_id"] for _ in range(3)]
    begun = 0
    real = world.database.transaction

    @contextlib.asynccontextmanager
    async def counted(*args: Any, **options: Any) -> AsyncIterator[Session]:
        nonlocal begun
        begun += 1
        async with real(*args, **options) as session:
            yield session

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(world.database, "transaction", counted)
        titled = await ask(client, "POST", "/tasks/generate-titles", json={"task_ids": ids})
    assert (begun, [one["task_id"] for one in titled["titles"]]) == (3, ids)


async def test_titles_are_made_by_rule_unless_given(client: httpx.AsyncClient, project: str) -> None:
    """TSK-11, TSK-16"""
    task_id = (await make(client, title="x"))["task_id"]
    path = f"/tasks/{task_id}/generate-title"
    by_rule = {"task_id": task_id, "title": "Do it", "by": "rule", "work_order_id": None}
    assert await ask(client, "POST", path) == by_rule
    assert (await ask(client, "POST", path, json={"title": "Mine"}))["by"] == "given"
    titled = await ask(client, "POST", "/tasks/generate-titles", json={"task_ids": [task_id]})
    assert titled["titles"] == [by_rule]
    assert (await ask(client, "POST", "/tasks/generate-titles", json={}))["titles"] == []


async def test_dispatch_starts_a_task_of_a_project_without_autonomy(client: httpx.AsyncClient, world: World) -> None:
    await world.project(autonomy=False)
    task_id = (await make(client))["task_id"]
    why = (await ask(client, "GET", f"/tasks/{task_id}/explain"))["what_would_change_it"]
    assert "autonomy" in why[0]
    assert (await ask(client, "POST", f"/tasks/{task_id}/dispatch"))["forced"] is True
    assert await world.dispatched() == [task_id]
    assert (await ask(client, "POST", f"/tasks/{task_id}/dispatch", 409))["code"] == "task_running"


async def test_explain_names_everything_that_stands_in_the_way(
    client: httpx.AsyncClient, world: World, project: str
) -> None:
    first = (await make(client, owned_paths=["src/**"], title="first"))["task_id"]
    await world.dispatched()
    ticket = await ticket_of(client)
    second = (await make(client, owned_paths=["src/a.py"], depends_on=[first], ticket_id=ticket))["task_id"]
    told = await ask(client, "GET", f"/tasks/{second}/explain")
    text = "\n".join(told["what_would_change_it"])
    assert ("it is held" in text, f"waits for {first}" in text, "same files" in text) == (True, True, True)
    assert told["evidence"][0]["event_type"] == "task.created"


async def sandbox(client: httpx.AsyncClient, world: World, task_id: str) -> dict[str, str]:
    """The headers of the sandbox that a task runs in."""
    task = await world.show(task_id)
    async with world.database.transaction() as session:
        token = await auth.issue(session, task.sandbox_id or "", 1)
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("form", ["sandbox", "sandboxes"])
async def test_a_sandbox_reports_its_tasks_result_and_the_delivery_completes_it(
    client: httpx.AsyncClient, world: World, project: str, form: str
) -> None:
    """RES-01, C1: recorded, acknowledged, repeatable; the task is completed when its work is delivered."""
    task_id = (await make(client))["task_id"]
    await world.dispatched()
    headers, path = await sandbox(client, world, task_id), f"/{form}/task/{task_id}/results"
    first = await ask(client, "POST", path, json=DONE, headers=headers)
    assert (first["status"], first["result"]) == ("running", DONE)
    assert await ask(client, "POST", path, json=DONE, headers=headers) == first
    await world.ends(task_id)
    assert (await ask(client, "POST", path, json=DONE, headers=headers))["status"] == "completed"
    refused = await ask(client, "POST", path, 409, json=DONE | {"status": "failed"}, headers=headers)
    assert refused["code"] == "result_differs"
    assert (await ask(client, "GET", f"/results/{task_id}"))["result"] == DONE
    assert (await ask(client, "GET", "/results"))["total_count"] == 1


async def test_a_sandbox_reports_no_other_task(client: httpx.AsyncClient, world: World, project: str) -> None:
    """W30: nobody finishes another's task."""
    mine, other = (await make(client))["task_id"], (await make(client))["task_id"]
    await world.dispatched()
    headers = await sandbox(client, world, mine)
    refused = await ask(client, "POST", f"/sandboxes/task/{other}/results", 403, json=DONE, headers=headers)
    assert refused["code"] == "not_your_sandbox"
    assert (await ask(client, "POST", f"/tasks/{other}/cancel", 403, headers=headers))["code"] == "people_only"


async def test_a_replaced_sandboxs_result_changes_nothing(
    client: httpx.AsyncClient, world: World, project: str
) -> None:
    """W16: fenced by the attempt."""
    task_id = (await make(client))["task_id"]
    await world.dispatched()
    headers = await sandbox(client, world, task_id)
    async with world.database.transaction() as session:
        from shopfloor.workorders import queries as orders

        (await orders.locked(session, (await world.show(task_id)).work_order_id or "")).attempts = 2
    refused = await ask(client, "POST", f"/sandbox/task/{task_id}/results", 409, json=DONE, headers=headers)
    assert refused["code"] == "stale_fencing"
    assert (await ask(client, "GET", f"/results/{task_id}"))["result"] is None


async def test_a_person_ends_a_task_that_has_no_order(client: httpx.AsyncClient, world: World) -> None:
    """RES-01"""
    await world.project(autonomy=False)
    task_id = (await make(client))["task_id"]
    after = (await make(client, depends_on=[task_id]))["task_id"]
    path = f"/results/{task_id}"
    assert (await ask(client, "POST", path, json=DONE))["status"] == "completed"
    assert (await ask(client, "POST", path, json=DONE))["status"] == "completed"
    assert (await ask(client, "POST", path, 409, json=DONE | {"summary": "other"}))["code"] == "result_differs"
    assert (await ask(client, "GET", f"/tasks/{after}"))["open_dependencies"] == 0


async def test_a_person_does_not_end_what_an_agent_works_on(
    client: httpx.AsyncClient, world: World, project: str
) -> None:
    task_id = (await make(client))["task_id"]
    await world.dispatched()
    assert (await ask(client, "POST", f"/results/{task_id}", 409, json=DONE))["code"] == "order_decides"


async def test_a_conversation_is_bound_by_its_own_sandbox(
    client: httpx.AsyncClient, world: World, project: str
) -> None:
    """TSK-12, LIF-06"""
    task_id, other = (await make(client))["task_id"], (await make(client))["task_id"]
    await world.dispatched()
    headers, body = await sandbox(client, world, task_id), {"conversation_id": "c-1"}
    bound = await ask(client, "POST", f"/tasks/{task_id}/register-conversation", json=body, headers=headers)
    assert (bound["conversation_id"], bound["sandbox_id"]) == ("c-1", (await world.show(task_id)).sandbox_id)
    refused = await ask(client, "POST", f"/tasks/{other}/register-conversation", 403, json=body, headers=headers)
    assert refused["code"] == "not_your_sandbox"
    wrong = body | {"sandbox_id": "elsewhere"}
    assert (await ask(client, "POST", f"/tasks/{task_id}/register-conversation", 409, json=wrong))["code"]


async def test_a_project_with_tasks_is_not_forgotten(client: httpx.AsyncClient, project: str) -> None:
    await make(client)
    assert (await ask(client, "DELETE", "/projects/p", 409))["code"] == "project_in_use"


async def test_the_agents_api_says_that_it_goes(client: httpx.AsyncClient) -> None:
    """OTH-02, LIF-10"""
    old, new = await client.get("/agents/capabilities"), await client.get("/agent-capabilities")
    assert old.json() == new.json()
    assert (old.headers["Deprecation"], "Deprecation" in new.headers) == ("true", False)
