"""Long-running tasks of a process: held by reference, logged when they die, restarted with back-off, ended together."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from shopfloor.kit import log

logger = log.get(__name__)


class Background:
    """The background tasks of one process."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `work` once; a failure is logged, never lost."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def keep(self, name: str, loop: Callable[[], Awaitable[None]], *, longest_pause: float = 30.0) -> asyncio.Task[Any]:
        """Run `loop` for ever; when it fails, log it and start it again after 0.1 s, doubling to `longest_pause` seconds."""

        async def guarded() -> None:
            pause = 0.1
            while True:
                began = asyncio.get_running_loop().time()
                try:
                    await loop()
                    return
                except Exception:
                    logger.exception("background_loop_failed", loop=name, retry_in_seconds=pause)
                if asyncio.get_running_loop().time() - began > longest_pause:
                    pause = 0.1
                await asyncio.sleep(pause)
                pause = min(pause * 2, longest_pause)

        return self.start(name, guarded())

    async def close(self) -> None:
        """Cancel everything and wait until it has ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            logger.error("background_task_failed", task=task.get_name(), exc_info=error)
