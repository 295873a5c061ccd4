"""Tasks over a real database with the platform's own claim, but no sandbox is started: the test says how each attempt ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from fastapi import FastAPI

from shopfloor.app import assemble
from shopfloor.forges.mirrors.mirror import Base
from shopfloor.forges.rules import repository_url
from shopfloor.kit.config import Settings
from shopfloor.kit.db import Session
from shopfloor.projects import service as projects
from shopfloor.sandboxes.rules import SandboxState
from shopfloor.tasks import queries, service
from shopfloor.tasks.models import Task
from shopfloor.tasks.steps.dispatch import dispatch, follow
from shopfloor.workorders import queries as orders
from shopfloor.workorders import service as workorders
from shopfloor.workorders.rules import AttemptState
from shopfloor.workorders.steps import Claimed, Tools
from shopfloor.workorders.steps.conclude import decide
from shopfloor.workorders.steps.prepare import claim

DONE = (AttemptState.RUNNING, AttemptState.DELIVERING, AttemptState.DONE)


class Claims:
    """An engine that claims and starts nothing."""

    def __init__(self, tools: Tools, engine_id: str = "engine-1") -> None:
        self.tools, self.engine_id = tools, engine_id

    async def claim(self, session: Session) -> Claimed | None:
        return await claim(self.tools, session, self.engine_id)

    def start(self, claimed: Claimed, looking: asyncio.Future[Base] | None = None) -> None:
        if looking:
            looking.cancel()


class World:
    """A platform without an engine."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self.tools: Tools = app.state.tools
        self.database = self.tools.database
        self.claims = Claims(self.tools)

    async def project(self, name: str = "p", **columns: Any) -> str:
        given = {
            "name": name,
            "repository_url": repository_url(f"/nowhere/{name}"),
            "agent": "script",
            "autonomy": True,
        }
        async with self.database.transaction() as session:
            return (await projects.create(session, **given | columns)).project_id

    async def task(self, project_id: str, **fields: Any) -> str:
        async with self.database.transaction() as session:
            made = await service.create(
                session, project_id=project_id, scheduling=self.tools.settings.scheduling, **fields
            )
        return made.task_id

    async def show(self, task_id: str) -> Task:
        async with self.database.reading() as session:
            return await queries.get(session, task_id)

    async def statuses(self, *task_ids: str) -> list[str]:
        return [(await self.show(task_id)).status for task_id in task_ids]

    async def dispatched(self) -> list[str]:
        """Dispatch until nothing more starts; answers the tasks that run, in the order of their start."""
        while await dispatch(self.tools, self.claims):
            pass
        return await self.running()

    async def running(self) -> list[str]:
        async with self.database.reading() as session:
            query = sa.select(Task.task_id).where(Task.status == "running").order_by(Task.started_at)
            return list((await session.scalars(query)).all())

    async def ends(self, task_id: str, *path: AttemptState, reason: str = "because", heard: bool = True) -> Task:
        """The newest attempt at a running task leaves its place and ends; the order is decided and, when heard of, followed. May be repeated."""
        task = await self.show(task_id)
        assert task.work_order_id
        async with self.database.reading() as session:
            attempt = await orders.current_attempt(session, task.work_order_id)
            if attempt is None or orders.ended(attempt):
                return task
        await self.tools.leave(attempt.sandbox_id, SandboxState.TERMINATED)
        async with self.database.transaction() as session:
            order, attempt = await orders.locked_attempt(session, attempt.attempt_id)
            for state in path or DONE:
                await workorders.step_attempt(session, attempt, state, reason=reason)
            await decide(session, order, attempt)
        return await self.follow(task_id) if heard else task

    async def follow(self, task_id: str) -> Task:
        await follow(self.tools, self.claims, (await self.show(task_id)).work_order_id or "")
        return await self.show(task_id)


@asynccontextmanager
async def opened(url: str, folder: Path, **settings: Any) -> AsyncIterator[World]:
    """The platform over a database that has its tables."""
    given: dict[str, Any] = {
        "max_sandboxes": 4,
        "default_agent": "script",
        "database_url": url,
        "data_dir": folder / "data",
    }
    async with assemble(Settings(**given | settings)) as app:
        yield World(app)
