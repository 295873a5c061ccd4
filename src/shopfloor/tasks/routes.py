"""The HTTP door of tasks (TSK-01…16). Static routes stand before those with an id (W25)."""

import contextlib
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request

from shopfloor.agents import service as agents
from shopfloor.auth.guard import Caller, person, task_caller
from shopfloor.kit.db import Session
from shopfloor.kit.errors import Conflict, Malformed
from shopfloor.kit.paging import Cursor
from shopfloor.projects import queries as projects
from shopfloor.projects.models import Project
from shopfloor.projects.rules import column
from shopfloor.tasks import graph, queries, results, rules, service
from shopfloor.tasks.models import Task
from shopfloor.tasks.rules import TaskStatus
from shopfloor.tasks.schemas import (
    Cancel,
    Circular,
    CleanedUp,
    Conversation,
    CreateTask,
    Dependencies,
    DependencyRequest,
    Explanation,
    Retry,
    SetTimeout,
    TaskList,
    TaskPatch,
    TaskView,
    TimedOut,
    TimedOutList,
    TimeoutStatus,
    Titled,
    TitledList,
    TitleRequest,
    TitlesRequest,
)
from shopfloor.tasks.steps import explain as explaining
from shopfloor.tasks.steps.titles import ask_for_title, title_by_rule
from shopfloor.workorders.routes import Tooled
from shopfloor.workorders.rules import workflow_type
from shopfloor.workorders.steps import Tools

router = APIRouter(prefix="/api/v1/tasks", tags=["tasks"])
Person = Depends(person)
TaskId = Annotated[str, Path(max_length=40, pattern=r"^[A-Za-z0-9._-]+$")]
NEEDED = frozenset({"title", "description", "workflow_type", "priority", "agent_options", "owned_paths", "max_retries"})


async def views(session: Session, tasks: Sequence[Task]) -> list[TaskView]:
    """Tasks with what they wait for and what they cost."""
    shown = [task.task_id for task in tasks]
    waits, costs = await queries.dependency_ids(session, shown), await queries.costs_of_tasks(session, shown)
    derived = {"depends_on", "cost_usd"}
    return [
        TaskView(
            **{name: getattr(task, name) for name in TaskView.model_fields if name not in derived},
            depends_on=waits[task.task_id],
            cost_usd=costs.get(task.task_id),
        )
        for task in tasks
    ]


async def view(session: Session, task: Task) -> TaskView:
    """One task."""
    (only,) = await views(session, [task])
    return only


@router.post("", status_code=201, dependencies=[Person])
async def create_task(body: CreateTask, house: Tooled, request: Request) -> TaskView:
    """Make a task; it starts by itself when its project is autonomous. One of a ticket is held until its ticket lets it start."""
    _check_agent(house.settings, body.agent, body.agent_options)
    given = body.model_dump(exclude={"project", "workflow_type", "force", "ticket_id"})
    async with house.database.transaction() as session:
        project = await projects.get(session, body.project)
        whose = await _terms(session, request, project.project_id, body.ticket_id, body.phase)
        task = await service.create(
            session,
            project_id=project.project_id,
            ticket_id=body.ticket_id,
            workflow=body.workflow_type,
            forced=body.force,
            scheduling=house.settings.scheduling,
            **whose,
            **given,
        )
        return await view(session, task)


async def _terms(
    session: Session, request: Request, project_id: str, ticket_id: str | None, phase: str
) -> dict[str, Any]:
    """What its ticket gives a task that is to start. The board, above us, says so in `state.ticket_terms`; without it the task is held."""
    if ticket_id is None:
        return {}
    if asked := getattr(request.app.state, "ticket_terms", None):
        found: dict[str, Any] = await asked(session, project_id, ticket_id, column(phase))
        return found
    return {"held": True, "reason": "its ticket has not let it start"}


def _check_agent(settings: Any, agent: str | None, options: dict[str, Any] | None) -> None:
    """Refuse at once what can be seen to be wrong without knowing the project."""
    if agent:
        agents.checked_options(agents.profile(settings, agent), options or {})


@router.get("", dependencies=[Person])
async def list_tasks(
    house: Tooled,
    status: TaskStatus | None = None,
    phase_id: Annotated[str | None, Query(max_length=40)] = None,
    has_sandbox: bool | None = None,
    project: Annotated[str | None, Query(max_length=100)] = None,
    ticket: Annotated[str | None, Query(max_length=40)] = None,
    q: Annotated[str, Query(max_length=200)] = "",
    sort: Annotated[str, Query(max_length=40)] = "-created_at",
    cursor: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> TaskList:
    """Tasks, newest first unless sorted otherwise (TSK-01)."""
    async with house.database.reading() as session:
        project_id = (await projects.get(session, project)).project_id if project else None
        rows, following, total = await queries.listing(
            session,
            status=status,
            phase=column(phase_id) if phase_id else None,
            has_sandbox=has_sandbox,
            project_id=project_id,
            ticket_id=ticket,
            q=q,
            sort=sort,
            cursor=cursor,
            limit=limit,
        )
        shown = await views(session, rows)
    return TaskList(tasks=shown, total_count=total, has_more=following is not None, next_cursor=following)


@router.get("/timed-out", dependencies=[Person])
async def timed_out(house: Tooled) -> TimedOutList:
    """Running tasks whose time is up (TSK-13); their work orders stop them by themselves."""
    async with house.database.reading() as session:
        late = await queries.overtime(session)
        shown = await views(session, [task for task, _ in late])
    found = [TimedOut(task=one, running_seconds=ran) for one, (_, ran) in zip(shown, late, strict=True)]
    return TimedOutList(tasks=found, total_count=len(found))


@router.get("/cancellable", dependencies=[Person])
async def cancellable(
    house: Tooled,
    project: Annotated[str | None, Query(max_length=100)] = None,
    q: Annotated[str, Query(max_length=200)] = "",
    sort: Annotated[str, Query(max_length=40)] = "-created_at",
    cursor: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> TaskList:
    """Tasks that wait or run (TSK-14)."""
    async with house.database.reading() as session:
        project_id = (await projects.get(session, project)).project_id if project else None
        rows, following, total = await queries.listing(
            session, project_id=project_id, open_only=True, q=q, sort=sort, cursor=cursor, limit=limit
        )
        shown = await views(session, rows)
    return TaskList(tasks=shown, total_count=total, has_more=following is not None, next_cursor=following)


@router.post("/cleanup-timed-out", dependencies=[Person])
async def clean_up_timed_out(house: Tooled) -> CleanedUp:
    """Stop every task whose time is up; it fails once its agent has stopped (TSK-15)."""
    async with house.database.reading() as session:
        late = await queries.overtime(session)
    stopped = []
    for task, ran in late:
        with contextlib.suppress(service.TaskEnded):  # it has, since we looked
            async with house.database.transaction() as session:
                await service.time_out(session, task.task_id, reason=f"ran {ran:.0f} s, longer than allowed")
            stopped.append(task.task_id)
        house.tell(task.work_order_id or "")
    return CleanedUp(tasks=stopped)


@router.post("/generate-titles", dependencies=[Person])
async def generate_titles(body: TitlesRequest, house: Tooled, request: Request) -> TitledList:
    """Make titles by rule of the descriptions (TSK-16), or ask an agent for each: for all that are named or none, else for those whose ticket lets it."""
    async with house.database.reading() as session:
        wanted = [await queries.get(session, one) for one in body.task_ids or await queries.untitled(session)]
    if not body.agent:  # in a transaction each: many rows locked at once are in the way of tasks that complete
        made = [(one.task_id, await title_by_rule(house, one.task_id)) for one in wanted]
        return TitledList(titles=[Titled(task_id=task_id, title=title, by="rule") for task_id, title in made])
    may = [one for one in wanted if await _may_ask(house, request, one, must=bool(body.task_ids))]
    return TitledList(titles=[await _asked(house, one, body.agent) for one in may])


async def _may_ask(house: Tools, request: Request, task: Task, *, must: bool = True) -> bool:
    """Whether an agent may be asked about a task; `must`: raises what its ticket has against it. The board, above us, says so in `state.ticket_allows`."""
    if task.ticket_id and (allows := getattr(request.app.state, "ticket_allows", None)):
        try:
            async with house.database.transaction() as session:
                await allows(session, task.ticket_id)
        except Conflict:
            if must:
                raise
            return False
    return True


async def _asked(house: Tools, task: Task, agent: str) -> Titled:
    """Ask an agent for a task's title; its order's answer becomes the title."""
    async with house.database.reading() as session:
        project = await session.get_one(Project, task.project_id)
    order = await ask_for_title(house, task, project, agent)
    return Titled(task_id=task.task_id, title=task.title, by="agent", work_order_id=order.agent_work_order_id)


@router.get("/{task_id}", dependencies=[Person])
async def get_task(task_id: TaskId, house: Tooled) -> TaskView:
    """One task (TSK-02)."""
    async with house.database.reading() as session:
        return await view(session, await queries.get(session, task_id))


@router.patch("/{task_id}", dependencies=[Person])
async def change_task(task_id: TaskId, body: TaskPatch, house: Tooled) -> TaskView:
    """Change what is given; null takes a setting back."""
    given = body.model_dump(exclude_unset=True)
    if missing := sorted(name for name in NEEDED & given.keys() if given[name] is None):
        raise Malformed(f"{missing[0]} cannot be null", hint="Leave it out to keep it as it is.")
    if "workflow_type" in given:
        given["workflow_type"] = str(workflow_type(given["workflow_type"]))
    if "priority" in given:
        given["priority"] = rules.priority(given["priority"])
    if "owned_paths" in given:
        given["owned_paths"] = [rules.path_glob(path) for path in given["owned_paths"]]
    _check_agent(house.settings, given.get("agent"), given.get("agent_options"))
    longest = house.settings.work_order_timeout_seconds
    async with house.database.transaction() as session:
        task = await service.change(session, task_id, house.settings.scheduling, longest=longest, **given)
        answer = await view(session, task)
    house.tell(task.work_order_id or "")
    return answer


@router.get("/{task_id}/dependencies", dependencies=[Person])
async def get_dependencies(task_id: TaskId, house: Tooled) -> Dependencies:
    """What a task waits for, and what waits for it (TSK-03)."""
    async with house.database.reading() as session:
        return await _dependencies(session, await queries.get(session, task_id))


@router.post("/{task_id}/dependencies", dependencies=[Person])
async def add_dependencies(task_id: TaskId, body: DependencyRequest, house: Tooled) -> Dependencies:
    """Let a task wait for others too (TSK-04)."""
    async with house.database.transaction() as session:
        task = await graph.locked(session, task_id)
        await graph.depend(session, task, body.depends_on)
        await graph.tell(session, task)
        return await _dependencies(session, task)


@router.put("/{task_id}/dependencies", dependencies=[Person])
async def replace_dependencies(task_id: TaskId, body: DependencyRequest, house: Tooled) -> Dependencies:
    """Let a task wait for exactly these (TSK-05)."""
    async with house.database.transaction() as session:
        task = await graph.locked(session, task_id)
        await graph.replace(session, task, body.depends_on)
        return await _dependencies(session, task)


@router.delete("/{task_id}/dependencies/{other}", dependencies=[Person])
async def remove_dependency(task_id: TaskId, other: TaskId, house: Tooled) -> Dependencies:
    """Let a task wait for one less (TSK-06)."""
    async with house.database.transaction() as session:
        task = await graph.locked(session, task_id)
        await graph.remove(session, task, other)
        return await _dependencies(session, task)


@router.post("/{task_id}/check-circular", dependencies=[Person])
async def check_circular(task_id: TaskId, body: DependencyRequest, house: Tooled) -> Circular:
    """Whether waiting for these too would close a circle (TSK-07); nothing is changed."""
    async with house.database.reading() as session:
        await queries.get(session, task_id)
        way = await graph.circle(session, task_id, body.depends_on)
    return Circular(task_id=task_id, circular=bool(way), circle=way)


async def _dependencies(session: Session, task: Task) -> Dependencies:
    return Dependencies(
        task_id=task.task_id,
        depends_on=[one.task_id for one in await queries.dependencies(session, task.task_id)],
        open_dependencies=task.open_dependencies,
        blocks=[one.task_id for one in await queries.dependents(session, task.task_id)],
    )


@router.post("/{task_id}/cancel", dependencies=[Person])
async def cancel_task(task_id: TaskId, house: Tooled, body: Cancel | None = None) -> TaskView:
    """Cancel: a running task ends once its agent has been stopped gracefully; what it committed stays (TSK-08)."""
    async with house.database.transaction() as session:
        task = await service.cancel(session, task_id, reason=(body or Cancel(reason="cancelled")).reason)
        answer = await view(session, task)
    house.tell(task.work_order_id or "")
    return answer


@router.post("/{task_id}/retry", dependencies=[Person])
async def retry_task(task_id: TaskId, house: Tooled, request: Request, body: Retry | None = None) -> TaskView:
    """Let a failed or cancelled task wait for its turn again; held, if its ticket does not let it start."""
    wish = body or Retry(reason="retry asked for", afresh=False)
    async with house.database.transaction() as session:
        seen = await queries.get(session, task_id)
        whose = await _terms(session, request, seen.project_id, seen.ticket_id, seen.phase)
        task = await service.retry(
            session,
            task_id,
            reason=whose.get("reason") or wish.reason,
            afresh=wish.afresh,
            held=whose.get("held", False),
            scheduling=house.settings.scheduling,
        )
        return await view(session, task)


@router.post("/{task_id}/dispatch", dependencies=[Person])
async def dispatch_task(task_id: TaskId, house: Tooled) -> TaskView:
    """Start a waiting task though its project is not autonomous, as soon as its dependencies, its ticket and a free place allow."""
    async with house.database.transaction() as session:
        return await view(session, await service.force(session, task_id))


@router.get("/{task_id}/explain", dependencies=[Person])
async def explain_task(task_id: TaskId, house: Tooled) -> Explanation:
    """Why the task stands where it stands, since when, and what would change it."""
    return Explanation.model_validate(await explaining.explain(house, task_id))


@router.get("/{task_id}/timeout-status", dependencies=[Person])
async def timeout_status(task_id: TaskId, house: Tooled) -> TimeoutStatus:
    """How a task stands to its time limit (TSK-09)."""
    async with house.database.reading() as session:
        return await _timeout(session, await queries.get(session, task_id), house.settings.work_order_timeout_seconds)


@router.post("/{task_id}/set-timeout", dependencies=[Person])
async def set_timeout(task_id: TaskId, body: SetTimeout, house: Tooled) -> TimeoutStatus:
    """Let each of a task's sandboxes run so long, the present one too (TSK-10)."""
    async with house.database.transaction() as session:
        given = body.model_dump()
        task = await service.change(session, task_id, house.settings.scheduling, **given)
        answer = await _timeout(session, task, body.timeout_seconds)
    house.tell(task.work_order_id or "")
    return answer


async def _timeout(session: Session, task: Task, otherwise: float) -> TimeoutStatus:
    allowed = await queries.allowed_seconds(session, task, otherwise)
    ran = await queries.running_seconds(session, task)
    return TimeoutStatus(
        task_id=task.task_id,
        status=TaskStatus(task.status),
        timeout_seconds=allowed,
        running_seconds=ran,
        left_seconds=None if ran is None else max(0.0, allowed - ran),
        timed_out=ran is not None and ran > allowed,
    )


@router.post("/{task_id}/generate-title", dependencies=[Person])
async def generate_title(task_id: TaskId, house: Tooled, request: Request, body: TitleRequest | None = None) -> Titled:
    """Take the title that is given, else make one of the description: by an agent where one is named, by rule without (TSK-11)."""
    if body and body.agent and not body.title:
        async with house.database.reading() as session:
            task = await queries.get(session, task_id)
        await _may_ask(house, request, task)
        return await _asked(house, task, body.agent)
    if not (body and body.title):
        return Titled(task_id=task_id, title=await title_by_rule(house, task_id), by="rule")
    async with house.database.transaction() as session:
        await service.change(session, task_id, house.settings.scheduling, title=body.title)
    return Titled(task_id=task_id, title=body.title, by="given")


@router.post("/{task_id}/register-conversation")
async def register_conversation(
    task_id: TaskId, body: Conversation, house: Tooled, caller: Annotated[Caller, Depends(task_caller)]
) -> TaskView:
    """Bind the agent's conversation to its task (TSK-12); a sandbox binds its own, with itself."""
    async with house.database.transaction() as session:
        task = await results.converse(session, task_id, caller, body.conversation_id, body.sandbox_id)
        return await view(session, task)
