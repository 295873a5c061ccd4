"""The HTTP door of projects (OTH-01)."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request

from shopfloor.agents import service as agents
from shopfloor.auth.guard import person
from shopfloor.forges.rules import repository_url
from shopfloor.kit.db import Database
from shopfloor.kit.errors import Malformed
from shopfloor.kit.paging import Cursor
from shopfloor.projects import queries, service
from shopfloor.projects.models import Project
from shopfloor.projects.schemas import (
    FinishWork,
    MergeWork,
    ProjectList,
    ProjectPatch,
    ProjectRequest,
    ProjectView,
    StartWork,
    WorkOffered,
    WorkStarted,
)
from shopfloor.projects.steps import branches

router = APIRouter(prefix="/api/v1/projects", tags=["projects"], dependencies=[Depends(person)])
ProjectId = Annotated[str, Path(max_length=100)]
TicketId = Annotated[str, Path(max_length=40, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
NEEDED = (
    "name",
    "repository_url",
    "description",
    "allow",
    "autonomy",
    "approval",
    "wip_limits",
    "gates",
    "merge_queue",
    "union_check",
    "git_gate",
)


def database(request: Request) -> Database:
    """The database of this process."""
    found: Database = request.app.state.database
    return found


Stored = Annotated[Database, Depends(database)]


@router.post("", status_code=201)
async def create_project(body: ProjectRequest, request: Request, store: Stored) -> ProjectView:
    """Make a project of a repository."""
    columns = _checked(request, body.model_dump())
    async with store.transaction() as session:
        return ProjectView.model_validate(await service.create(session, **columns))


@router.get("")
async def list_projects(
    store: Stored,
    q: Annotated[str, Query(max_length=500)] = "",
    sort: Annotated[str, Query(max_length=40)] = "name",
    cursor: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    offset: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
) -> ProjectList:
    """Projects, by name unless sorted otherwise."""
    async with store.reading() as session:
        rows, following, total = await queries.listing(
            session, q=q, sort=sort, cursor=cursor, limit=limit, offset=offset
        )
    views = [ProjectView.model_validate(row) for row in rows]
    return ProjectList(projects=views, total_count=total, has_more=following is not None, next_cursor=following)


@router.get("/{project_id}")
async def get_project(project_id: ProjectId, store: Stored) -> ProjectView:
    """One project, by id or name."""
    async with store.reading() as session:
        return ProjectView.model_validate(await queries.get(session, project_id))


@router.patch("/{project_id}")
async def change_project(project_id: ProjectId, body: ProjectPatch, request: Request, store: Stored) -> ProjectView:
    """Change what is given; null takes a setting back."""
    given = body.model_dump(exclude_unset=True)
    if missing := next((name for name in NEEDED if name in given and given[name] is None), None):
        raise Malformed(f"{missing} cannot be null", hint="Leave it out to keep it as it is.")
    columns = _checked(request, given)
    async with store.transaction() as session:
        return ProjectView.model_validate(await service.change(session, project_id, **columns))


@router.delete("/{project_id}", status_code=204)
async def delete_project(project_id: ProjectId, store: Stored) -> None:
    """Forget a project; its work orders stay."""
    async with store.transaction() as session:
        await service.delete(session, project_id)


@router.post("/{project_id}/tickets/{ticket_id}/start")
async def start_work(project_id: ProjectId, ticket_id: TicketId, body: StartWork, request: Request) -> WorkStarted:
    """Make the ticket's branch, named as the project says (GIT-01); one that is there already is answered."""
    state = request.app.state
    project = await _project(state.database, project_id)
    return WorkStarted(**vars(await branches.start(state.repositories, project, ticket_id, **body.model_dump())))


@router.post("/{project_id}/tickets/{ticket_id}/finish")
async def finish_work(project_id: ProjectId, ticket_id: TicketId, body: FinishWork, request: Request) -> WorkOffered:
    """Offer the ticket's branch for review (GIT-02)."""
    state = request.app.state
    project = await _project(state.database, project_id)
    return WorkOffered.model_validate(
        await branches.finish(state.database, state.repositories, project, ticket_id, **body.model_dump())
    )


@router.post("/{project_id}/tickets/{ticket_id}/merge")
async def merge_work(project_id: ProjectId, ticket_id: TicketId, body: MergeWork, request: Request) -> WorkOffered:
    """Merge the ticket's change and delete its branch (GIT-03)."""
    state = request.app.state
    project = await _project(state.database, project_id)
    return WorkOffered.model_validate(
        await branches.merge(state.database, state.repositories, project, ticket_id, **body.model_dump())
    )


async def _project(store: Database, project_id: str) -> Project:
    async with store.reading() as session:
        return await queries.get(session, project_id)


def _checked(request: Request, given: dict[str, Any]) -> dict[str, Any]:
    """What a project names must exist. Raises what is in the way."""
    state = request.app.state
    if given.get("repository_url"):
        given["repository_url"] = repository_url(given["repository_url"])
    if given.get("agent"):
        agents.profile(state.settings, given["agent"])
    if given.get("sandbox_type"):
        state.sandboxes.adapter(given["sandbox_type"])
    return given
