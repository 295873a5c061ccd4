"""The working process: claims work orders and drives their attempts."""

import contextlib
import dataclasses
from collections.abc import AsyncIterator

from shopfloor.board.jobs import Mover
from shopfloor.board.steps.merge_queue import keep_merging
from shopfloor.board.steps.union import keep_checking
from shopfloor.evidence.jobs import Checks
from shopfloor.evidence.steps import Bench
from shopfloor.kit import log
from shopfloor.kit.background import Background
from shopfloor.kit.engine import Engine
from shopfloor.tasks.jobs import Dispatcher
from shopfloor.workorders.jobs import Jobs
from shopfloor.workorders.steps import Tools

logger = log.get(__name__)


@contextlib.asynccontextmanager
async def working(tools: Tools) -> AsyncIterator[Engine]:
    """An engine at work, for as long as the context lasts; what runs is left to whoever adopts it."""
    engine = Engine(tools.database, host_id=tools.sandboxes.host_id, lease_seconds=tools.settings.engine_lease_seconds)
    background = Background()
    jobs = Jobs(dataclasses.replace(tools, engine_id=engine.id), engine, background)
    jobs.register()
    await jobs.launch()
    await Checks(_bench(tools, engine), tools.hub, engine, background).launch()
    tools.engines.append(jobs)
    Dispatcher(jobs.tools, jobs, background).launch()
    Mover(jobs.tools, background).launch()
    background.keep("union_check", lambda: keep_checking(jobs.tools))
    background.keep("merge_queue", lambda: keep_merging(jobs.tools))
    logger.info("engine_started", engine_id=engine.id)
    try:
        yield engine
    finally:
        tools.engines.remove(jobs)
        await background.close()
        logger.info("engine_stopped", engine_id=engine.id)


def _bench(tools: Tools, engine: Engine) -> Bench:
    """What checks are made with, out of what orders are driven with."""
    return Bench(
        settings=tools.settings,
        database=tools.database,
        sandboxes=tools.sandboxes,
        repositories=tools.repositories,
        blobs=tools.blobs,
        engine_id=engine.id,
    )
