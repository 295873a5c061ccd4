"""What an order takes from the facts its sandboxes tell."""

from shopfloor.kit.db import Session
from shopfloor.workorders import queries, service
from shopfloor.workorders.models import WorkOrder
from shopfloor.workorders.rules import OrderStatus, Phase


async def reflect(session: Session, order: WorkOrder) -> None:
    """Bring phase and conversation of a locked order up to date. Events are an agent's word: only a phase we know and
    a session id that can be kept are taken from them.
    """
    order_id = order.agent_work_order_id
    phase = await queries.newest_event(session, order_id, "workflow.phase_started")
    spoken = await queries.newest_event(session, order_id, "agent.session", "agent.started")
    named = phase[1].get("phase") if phase else None
    if named in tuple(Phase) and named != Phase.COMPLETED and order.status == OrderStatus.RUNNING:
        await service.enter_phase(session, order, str(named))
    session_id = spoken[1].get("session_id") if spoken else None
    if isinstance(session_id, str) and session_id.isprintable() and session_id.isascii():
        order.agent_session_id = session_id[:255]
