"""The only file that names every feature."""

from fastapi import APIRouter

from shopfloor.agents import routes as agents
from shopfloor.board import routes as board
from shopfloor.events import routes as events
from shopfloor.evidence import routes as evidence
from shopfloor.forges import routes as forges
from shopfloor.gateway import routes as gateway
from shopfloor.messages import routes as messages
from shopfloor.projects import routes as projects
from shopfloor.sandboxes import routes as sandboxes
from shopfloor.tasks import result_routes as results
from shopfloor.tasks import routes as tasks
from shopfloor.workorders import gate_routes as git_gate
from shopfloor.workorders import pin_routes as pins
from shopfloor.workorders import routes as workorders

ROUTERS: tuple[APIRouter, ...] = (
    gateway.models,  # first: an agent waits for each of its calls
    workorders.router,
    pins.router,
    git_gate.router,
    events.router,
    messages.router,
    sandboxes.router,
    forges.router,
    forges.hooks,
    agents.router,
    projects.router,
    tasks.router,
    results.router,
    *board.ROUTERS,
    evidence.router,
    gateway.router,
)
