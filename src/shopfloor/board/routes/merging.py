"""The HTTP door of a project's merge queue and union check."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request

from shopfloor.auth.guard import person
from shopfloor.board import merge_queries, merge_service, queries
from shopfloor.board.rules.merging import QUEUED, MergeState
from shopfloor.kit.errors import Conflict, NotFound
from shopfloor.kit.http import Body, Schema, Timestamp
from shopfloor.projects import queries as projects
from shopfloor.workorders.steps import Tools

router = APIRouter(prefix="/api/v1/projects", tags=["merge queue"], dependencies=[Depends(person)])
ProjectId = Annotated[str, Path(max_length=100)]
TicketId = Annotated[str, Path(max_length=40, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class NotReady(Conflict):
    """Only a ticket that is done, with a branch of its own, can be merged."""

    hint = "Prove its criteria first: GET /api/v1/tickets/{id}/explain tells what is missing."


class NotQueued(NotFound):
    """The ticket is not in the queue."""


class BeingMerged(Conflict):
    """The ticket is being merged at this moment."""

    hint = "Send its ticket back to keep it from being merged, if it is not yet: POST /api/v1/tickets/{id}/regress."


class QueueRequest(Body):
    """A ticket to merge when its turn comes."""

    ticket_id: str


class QueuedView(Schema):
    """A ticket in the queue, or how it left."""

    ticket_id: str
    head_commit: str
    state: MergeState
    reason: str
    candidate: str | None
    run_id: str | None
    created_at: Timestamp
    ended_at: Timestamp | None


class QueueView(Schema):
    """The queue, first come first; then those who left it last."""

    waiting: list[QueuedView]
    left: list[QueuedView]


class UnionCard(Schema):
    """What one live branch does not merge with."""

    ticket_id: str
    branch: str | None
    head_commit: str | None
    behind: int
    conflicts: list[dict[str, Any]]


class UnionView(Schema):
    """Every live branch of a project, as of the newest check."""

    branches: list[UnionCard]


def tools(request: Request) -> Tools:
    """The tools of this process."""
    found: Tools = request.app.state.tools
    return found


Tooled = Annotated[Tools, Depends(tools)]


@router.get("/{project_id}/merge-queue")
async def get_queue(project_id: ProjectId, house: Tooled) -> QueueView:
    """What waits to be merged, and how the last ones fared."""
    async with house.database.reading() as session:
        project = await projects.get(session, project_id)
        waiting = await merge_queries.queue(session, project.project_id)
        left = await merge_queries.left_queue(session, project.project_id)
    return QueueView(
        waiting=[QueuedView.model_validate(row) for row in waiting],
        left=[QueuedView.model_validate(row) for row in left],
    )


@router.post("/{project_id}/merge-queue", status_code=202)
async def enqueue(project_id: ProjectId, body: QueueRequest, house: Tooled) -> QueuedView:
    """Let a done ticket be merged when its turn comes; asked twice it is queued once."""
    async with house.database.transaction() as session:
        project = await projects.get(session, project_id)
        ticket = await queries.locked(session, body.ticket_id)
        if ticket.project_id != project.project_id:
            raise queries.TicketNotFound(f"project {project.name!r} has no ticket {body.ticket_id[:40]!r}")
        if ticket.status != "done" or ticket.head_commit is None or ticket.merge_commit is not None:
            state = "merged already" if ticket.merge_commit else ticket.status
            raise NotReady(f"{ticket.ticket_id} is {state}" + ("" if ticket.head_commit else " and has no branch"))
        if found := await queries.unproven(session, ticket):
            named = "; ".join(f"{one.criterion.text[:80]!r} is {one.verdict}" for one in found[:5])
            raise NotReady(f"{ticket.ticket_id} is not proven on its head: {named}")
        return QueuedView.model_validate(await merge_service.enqueue(session, ticket))


@router.delete("/{project_id}/merge-queue/{ticket_id}")
async def leave_queue(project_id: ProjectId, ticket_id: TicketId, house: Tooled) -> QueuedView:
    """Take a ticket out of the queue; one that is being merged at this moment stays."""
    async with house.database.transaction() as session:
        project = await projects.get(session, project_id)
        row = await merge_queries.queued(session, ticket_id)
        if row is None or row.state not in QUEUED or row.project_id != project.project_id:
            raise NotQueued(f"{ticket_id} is not in the queue of {project.name!r}")
        if row.state == MergeState.MERGING:
            raise BeingMerged(f"{ticket_id} is being merged")
        await merge_service.step_merge(session, row, MergeState.LEFT, "taken out by a person")
        return QueuedView.model_validate(row)


@router.get("/{project_id}/union")
async def get_union(project_id: ProjectId, house: Tooled) -> UnionView:
    """What the live branches of a project do not merge with."""
    async with house.database.reading() as session:
        project = await projects.get(session, project_id)
        tickets = await merge_queries.live(session, project.project_id)
    return UnionView(branches=[UnionCard.model_validate(ticket) for ticket in tickets])
