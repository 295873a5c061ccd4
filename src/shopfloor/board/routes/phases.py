"""The HTTP door of phases: the columns, their other names, their gates (OTH-01, C8)."""

from typing import Annotated, Any

from fastapi import APIRouter, Path

from shopfloor.board import rules
from shopfloor.board.routes.common import Person, ProjectName, TicketId, Tooled
from shopfloor.board.rules import MOVES, ORDER, Column
from shopfloor.board.rules.gates import gates_of
from shopfloor.board.steps import gates
from shopfloor.projects import queries as projects
from shopfloor.projects.models import Project
from shopfloor.projects.rules import column
from shopfloor.workorders.steps import Tools

router = APIRouter(prefix="/api/v1/phases", tags=["board"], dependencies=[Person])
PhaseId = Annotated[str, Path(max_length=60)]


@router.get("")
async def list_phases(house: Tooled, project: ProjectName = None) -> dict[str, Any]:
    """The columns in their order, with what a ticket needs to leave each."""
    found = await _project(house, project)
    return {"phases": [_shown(name, found) for name in ORDER]}


@router.get("/{phase_id}")
async def get_phase(phase_id: PhaseId, house: Tooled, project: ProjectName = None) -> dict[str, Any]:
    """One column, by any of its names."""
    return _shown(column(phase_id), await _project(house, project))


@router.get("/{phase_id}/gates")
async def get_gates(phase_id: PhaseId, house: Tooled, project: ProjectName = None) -> dict[str, Any]:
    """What must hold before a ticket leaves a column."""
    shown = _shown(column(phase_id), await _project(house, project))
    return {"phase_id": shown["phase_id"], "gates": shown["gates"]}


@router.get("/gates/{ticket_id}")
async def get_gate_status(ticket_id: TicketId, house: Tooled) -> dict[str, Any]:
    """Which gates of a ticket's column do not hold now, and what is missing."""
    return await gates.standing(house, ticket_id)


async def _project(house: Tools, name: str | None) -> Project | None:
    if name is None:
        return None
    async with house.database.reading() as session:
        return await projects.get(session, name)


def _shown(name: str, project: Project | None) -> dict[str, Any]:
    return {
        "phase_id": name,
        "aliases": rules.aliases(name),
        "next": sorted(MOVES.moves[Column(name)], key=ORDER.index),
        "wip_limit": rules.wip_limit(project.wip_limits if project else {}, name),
        "gates": gates_of(project.gates if project else {}, name),
    }
