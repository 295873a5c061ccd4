"""The whole API in this process, over a real database and a real repository; no engine, so nothing moves but what a test moves."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa
from fastapi import FastAPI

from shopfloor.app import assemble
from shopfloor.board import queries, service
from shopfloor.evidence import queries as evidence_queries
from shopfloor.evidence import rules as evidence_rules
from shopfloor.evidence import service as evidence
from shopfloor.evidence.models import CheckRun
from shopfloor.kit import schema
from shopfloor.kit.config import Settings
from shopfloor.kit.db import Database
from shopfloor.workorders.steps import Tools
from tests.support.platform import git, sample_repository


class Desk:
    """What a test does at the board."""

    def __init__(self, app: FastAPI, client: httpx.AsyncClient, origin: Path) -> None:
        self.app, self.client, self.origin, self.url = app, client, origin, str(origin)
        self.tools: Tools = app.state.tools
        self.database: Database = app.state.database
        self.project_id = ""

    async def call(self, method: str, path: str, body: Any = None, *, expect: int = 200, **query: Any) -> Any:
        """A request below /api/v1, and the JSON it answers."""
        answer = await self.client.request(method, f"/api/v1{path}", json=body, params=query)
        assert answer.status_code == expect, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    async def get(self, path: str, **query: Any) -> Any:
        """GET."""
        return await self.call("GET", path, **query)

    async def post(self, path: str, body: Any = None, *, expect: int = 200) -> Any:
        """POST."""
        return await self.call("POST", path, body, expect=expect)

    async def patch(self, path: str, body: Any, *, expect: int = 200) -> Any:
        """PATCH."""
        return await self.call("PATCH", path, body, expect=expect)

    async def project(self, **settings: Any) -> str:
        """The one project of the origin, made or changed."""
        if self.project_id:
            await self.patch(f"/projects/{self.project_id}", settings)
        else:
            body = {"name": "p", "repository_url": self.url, "agent": "script", **settings}
            self.project_id = (await self.post("/projects", body, expect=201))["project_id"]
        return self.project_id

    async def ticket(self, title: str = "Mend the gate", *, expect: int = 201, **fields: Any) -> Any:
        """Make a ticket; answers its id, or the problem."""
        body = {"project": self.project_id, "title": title, "force_create": True, **fields}
        made = await self.post("/tickets", body, expect=expect)
        return made["ticket_id"] if expect == 201 else made

    async def show(self, ticket_id: str) -> Any:
        """The ticket."""
        return await self.get(f"/tickets/{ticket_id}")

    async def status(self, ticket_id: str) -> str:
        """Its column."""
        return str((await self.show(ticket_id))["status"])

    async def commit(self, ticket_id: str, files: dict[str, str]) -> str:
        """Somebody commits to the ticket's branch and pushes; the ticket learns of it."""
        branch = f"work-{ticket_id}"
        clone = self.origin.parent / f"clone-{ticket_id}"
        if not clone.exists():
            git("clone", "-q", str(self.origin), str(clone), cwd=self.origin.parent)
            git("checkout", "-qb", branch, cwd=clone)
        for name, content in files.items():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            (clone / name).write_text(content)
        git("add", "-A", cwd=clone)
        git("commit", "--allow-empty", "-qm", "work", cwd=clone)
        git("push", "-q", "origin", branch, cwd=clone)
        head = git("rev-parse", "HEAD", cwd=clone)
        base = git("rev-parse", "main", cwd=self.origin)
        await self.tools.repositories.sync(self.url)
        await self.set_head(ticket_id, head, base=base, branch=branch)
        return head

    async def set_head(self, ticket_id: str, head: str, *, base: str = "0" * 40, branch: str = "b") -> None:
        """Let the ticket's branch stand somewhere."""
        async with self.database.transaction() as session:
            ticket = await queries.locked(session, ticket_id)
            await service.set_head(
                session, ticket, branch=branch, base_branch="main", base_commit=base, head_commit=head, why="a test"
            )

    async def prove(self, ticket_id: str, verdict: str = "passed", *, commit: str | None = None) -> None:
        """Write down the same verdict for every criterion, as a check would."""
        async with self.database.transaction() as session:
            ticket = await queries.get(session, ticket_id)
            for criterion in await evidence_queries.criteria(session, ticket_id):
                await evidence.record(
                    session,
                    criterion_id=criterion.criterion_id,
                    commit=commit or ticket.head_commit or "",
                    check_hash=evidence_rules.check_hash(criterion.check, criterion.text),
                    finding=evidence_queries.Finding(evidence_rules.Verdict(verdict), "because"),
                    said_by="check",
                )

    async def end_runs(self) -> None:
        """The runs of checks that were asked for are over."""
        async with self.database.transaction() as session:
            await session.execute(sa.update(CheckRun).values(state="done", verdict="passed"))

    async def pass_runs(self) -> None:
        """Write down of every check of the runs that were asked for that it passed, as the engine would."""
        async with self.database.transaction() as session:
            for run in await session.scalars(sa.select(CheckRun).where(CheckRun.state == "queued").with_for_update()):
                run.state, run.attempts = "running", 1
                for item in run.checks:
                    passed = evidence_queries.Finding(evidence_rules.Verdict.PASSED)
                    await evidence.record_finding(session, run.run_id, 1, item, passed)
                await evidence.end_run(session, run.run_id, 1)

    async def to_testing(self, ticket_id: str) -> str:
        """Bring a ticket with a criterion to testing, through every gate; answers its head."""
        for _ in range(2):
            await self.post(f"/tickets/{ticket_id}/progress")
        head = await self.commit(ticket_id, {"new.txt": "new\n"})
        for _ in range(2):
            await self.post(f"/tickets/{ticket_id}/progress")
        assert await self.status(ticket_id) == "testing"
        return head

    async def facts(self, ticket_id: str) -> list[dict[str, Any]]:
        """What the log tells of a ticket, oldest first."""
        page = await self.get("/events", entity_ids=ticket_id, limit=500)
        return list(page["events"])


@contextlib.asynccontextmanager
async def desk(database_url: str, folder: Path, **settings: Any) -> AsyncIterator[Desk]:
    """A desk with an empty database and a sample repository."""
    house = Settings(data_dir=folder / "data", database_url=database_url, default_agent="script", **settings)
    database = Database(database_url)
    await asyncio.to_thread(schema.upgrade, database)
    await database.close()
    async with assemble(house) as app:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=120) as client:
            yield Desk(app, client, sample_repository(folder))
