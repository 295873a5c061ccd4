"""The HTTP door of tasks' results (RES-01, OTH-01) and of the graph of what waits for what."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from shopfloor.auth.guard import Caller, person, task_caller
from shopfloor.kit.paging import Cursor
from shopfloor.projects import queries as projects
from shopfloor.tasks import queries, results, rules
from shopfloor.tasks.models import Task
from shopfloor.tasks.rules import ENDED, TaskStatus
from shopfloor.tasks.schemas import Edge, Graph, Node, ResultList, ResultView, TaskResult
from shopfloor.workorders.routes import Tooled

router = APIRouter(prefix="/api/v1", tags=["results"])
TaskId = Annotated[str, Path(max_length=40, pattern=r"^[A-Za-z0-9._-]+$")]
MOST_NODES = 5000


@router.post("/sandbox/task/{task_id}/results")
@router.post("/sandboxes/task/{task_id}/results")
@router.post("/results/{task_id}")
async def report_result(
    task_id: TaskId, body: TaskResult, house: Tooled, caller: Annotated[Caller, Depends(task_caller)]
) -> ResultView:
    """Say how a task ended; saying the same again changes nothing."""
    async with house.database.transaction() as session:
        return _view(await results.report(session, task_id, caller, body.model_dump()))


@router.get("/results", dependencies=[Depends(person)])
async def list_results(
    house: Tooled,
    status: TaskStatus | None = None,
    project: Annotated[str | None, Query(max_length=100)] = None,
    ticket: Annotated[str | None, Query(max_length=40)] = None,
    q: Annotated[str, Query(max_length=200)] = "",
    sort: Annotated[str, Query(max_length=40)] = "-created_at",
    cursor: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> ResultList:
    """What tasks ended with, newest first unless sorted otherwise."""
    async with house.database.reading() as session:
        rows, following, total = await queries.listing(
            session,
            status=status,
            project_id=(await projects.get(session, project)).project_id if project else None,
            ticket_id=ticket,
            reported_only=True,
            q=q,
            sort=sort,
            cursor=cursor,
            limit=limit,
        )
    shown = [_view(task) for task in rows]
    return ResultList(results=shown, total_count=total, has_more=following is not None, next_cursor=following)


@router.get("/results/{task_id}", dependencies=[Depends(person)])
async def get_result(task_id: TaskId, house: Tooled) -> ResultView:
    """What a task ended with."""
    async with house.database.reading() as session:
        return _view(await queries.get(session, task_id))


def _view(task: Task) -> ResultView:
    if task.status in ENDED:
        note = "the task has ended"
    elif task.result is not None:
        note = f"recorded; the task ends when its work order {task.work_order_id} is delivered"
    else:
        note = "no result yet"
    return ResultView(
        task_id=task.task_id,
        ticket_id=task.ticket_id,
        phase=task.phase,
        status=TaskStatus(task.status),
        result=task.result,
        note=note,
    )


@router.get("/graph/dependency-graph/{kind}/{id_}", dependencies=[Depends(person)], response_model=Graph)
async def dependency_graph(
    kind: Literal["project", "ticket", "task"],
    id_: Annotated[str, Path(max_length=100)],
    house: Tooled,
    request: Request,
    shape: Annotated[Literal["json", "mermaid"], Query(alias="format")] = "json",
) -> Graph | Response:
    """What waits for what: of a project, of a ticket, or everything before and behind a task."""
    async with house.database.reading() as session:
        if kind == "project":
            id_ = (await projects.get(session, id_)).project_id
        elif kind == "task":
            await queries.get(session, id_)
        tasks, edges, more = await queries.graph(session, kind, id_, limit=MOST_NODES)
        # Without tasks it may be a ticket that nobody knows. The board, above us, says so in `state.ticket`.
        if kind == "ticket" and not tasks and (look := getattr(request.app.state, "ticket", None)):
            await look(session, id_)
    if shape == "mermaid":
        nodes = [(task.task_id, task.title, task.status) for task in tasks]
        return Response(rules.mermaid(nodes, edges), media_type="text/vnd.mermaid")
    return Graph(
        kind=kind,
        id=id_,
        nodes=[Node.model_validate(task) for task in tasks],
        edges=[Edge(task_id=one, depends_on=other) for one, other in edges],
        truncated=more,
    )
