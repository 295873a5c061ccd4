"""What an agent is told of the work before it, when it cannot go on with the conversation in which that was done."""

from typing import Any

from shopfloor.agents import service as agents
from shopfloor.kit.config import Settings
from shopfloor.kit.db import Session
from shopfloor.sandboxes import queries as sandboxes
from shopfloor.workorders import queries

MOST_EVENTS = 200


async def recounted(settings: Settings, session: Session, order_id: str) -> str:
    """The recorded course of an order's earlier attempts; empty when the agent remembers it or there is none."""
    order = await queries.get(session, order_id)
    spoken = await queries.newest_event(session, order_id, "agent.session", "agent.started")
    if spoken is None:
        return ""
    before = await sandboxes.find(session, spoken[0].sandbox_id) if spoken[0].sandbox_id else None
    changed = before is not None and before.agent_id != order.agent
    profile = agents.profile(settings, order.agent)
    if profile.adapter == "script" or not (changed or not agents.capability(profile).resume):
        return ""
    entries = await queries.newest_events(session, order_id, agents.TOLD_IN_RECOUNTS, MOST_EVENTS)
    return agents.recount(before.agent_id if before else None, entries)


def handed_over(steps: list[dict[str, Any]], recount: str) -> list[dict[str, Any]]:
    """The steps, with the recount before the first prompt that is still to be said."""
    first = next((step for step in steps if not step["done"]), None)
    if first and recount:
        first["prompt"] = f"{recount}\n\n{first['prompt']}"
    return steps
