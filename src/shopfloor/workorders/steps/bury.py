"""When a whole host is gone: its attempts are lost, and their orders go on elsewhere. Only with PostgreSQL and several hosts."""

import sqlalchemy as sa

from shopfloor.kit import log
from shopfloor.kit.db import Session, db_time
from shopfloor.kit.engine import EngineRow
from shopfloor.kit.errors import Problem, Unavailable
from shopfloor.sandboxes.models import SandboxRow
from shopfloor.workorders import queries
from shopfloor.workorders.models import Attempt
from shopfloor.workorders.rules import AttemptState
from shopfloor.workorders.steps import Tools
from shopfloor.workorders.steps.conclude import conclude
from shopfloor.workorders.steps.deliver import NeedsReview, arrived
from shopfloor.workorders.steps.run import finish

logger = log.get(__name__)

PATIENCE_SECONDS = 120.0
"""How long an origin may be away before what its dead host was delivering counts as lost."""


async def bury(tools: Tools, *, silent_seconds: float) -> None:
    """Give up the attempts of hosts without a living engine, but for what they had pushed. Their sandboxes, should they still run, are fenced by their number."""
    async with tools.database.reading() as session:
        abandoned = await _abandoned(session, tools.sandboxes.host_id, silent_seconds)
        patient = await _abandoned(session, tools.sandboxes.host_id, silent_seconds + PATIENCE_SECONDS)
    for attempt_id, host_id in abandoned:
        try:
            state, reason = await _end(tools, attempt_id, host_id)
        except Unavailable as error:
            logger.warning("burial_put_off", attempt_id=attempt_id, host_id=host_id, reason=error.message)
            if (attempt_id, host_id) not in patient:
                continue
            state = AttemptState.FAILED if isinstance(error, NeedsReview) else AttemptState.LOST
            reason = f"its host {host_id} is gone, and {error.message}"
        await finish(tools, attempt_id, state, reason)
        await conclude(tools, attempt_id)
        logger.warning("attempt_of_dead_host_ended", attempt_id=attempt_id, host_id=host_id)


async def _end(tools: Tools, attempt_id: str, host_id: str) -> tuple[AttemptState, str]:
    """How an attempt of a dead host has ended. Raises Unavailable when the origin or its forge cannot tell now."""
    async with tools.database.reading() as session:
        attempt = await queries.attempt(session, attempt_id)
        order = await queries.get(session, attempt.work_order_id)
    try:
        if delivered := await arrived(tools, order, attempt):
            return AttemptState.DONE, f"{delivered}, before its host {host_id} died"
    except Unavailable:
        raise
    except NeedsReview as problem:
        return AttemptState.FAILED, f"{problem.code}: {problem.message} {problem.hint}"
    except Problem as problem:
        logger.warning("delivery_not_taken_over", attempt_id=attempt_id, reason=problem.message)
    return AttemptState.LOST, f"its host {host_id} has had no living engine"


async def _abandoned(session: Session, here: str, silent_seconds: float) -> list[tuple[str, str]]:
    living = sa.exists().where(EngineRow.host_id == SandboxRow.host_id, EngineRow.seen_at > db_time(-silent_seconds))
    query = (
        sa.select(Attempt.attempt_id, SandboxRow.host_id)
        .join(SandboxRow, SandboxRow.sandbox_id == Attempt.sandbox_id)
        .where(Attempt.concluded.is_(False), SandboxRow.host_id != here, ~living)
    )
    return [(row[0], row[1]) for row in await session.execute(query)]
