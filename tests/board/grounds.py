"""A ticket with work delivered to it: rows as the product writes them, commits as sandboxes hand them out, a real origin."""

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from shopfloor.board import models as _board  # noqa: F401 - its tables must exist
from shopfloor.board.models import Ticket
from shopfloor.events import models as _events  # noqa: F401 - its table must exist
from shopfloor.evidence import models as _evidence  # noqa: F401 - its tables must exist
from shopfloor.forges.service import Repositories
from shopfloor.kit.db import Database
from shopfloor.projects.models import Project
from shopfloor.tasks.models import Task
from shopfloor.workorders.models import WorkOrder
from shopfloor.workorders.steps import Tools
from tests.forges.support import Sandbox, bare, repository
from tests.support.platform import git


@dataclass
class Ground:
    """One project with its origin."""

    database: Database
    place: Path
    settings: dict[str, Any] = field(default_factory=dict)
    numbers: Any = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.work = repository(self.place / "work")
        self.origin = bare(self.work, self.place / "origin.git")
        self.house = Repositories(self.place / "repositories", protocols=frozenset({"file"}))
        here = SimpleNamespace(host_id="host-test")
        self.tools = cast("Tools", SimpleNamespace(database=self.database, repositories=self.house, sandboxes=here))

    async def project(self) -> None:
        """The project's row."""
        async with self.database.transaction() as session:
            session.add(
                Project(project_id="prj-1", name="one", repository_url=str(self.origin), allow=[], **self.settings)
            )

    async def ticket(self, name: str = "tkt-1", **columns: Any) -> None:
        """A ticket at work."""
        async with self.database.transaction() as session:
            row = {
                "title": f"Do {name}",
                "priority": "medium",
                "status": "building",
                "approval": "not_needed",
                "kind": "feat",
            }
            session.add(Ticket(ticket_id=name, project_id="prj-1", **(row | columns)))

    async def delivered(
        self, ticket: str = "tkt-1", files: dict[str, str] | None = None, base: str | None = None
    ) -> str:
        """A task of the ticket whose order pushed its branch; answers the task's id."""
        number = next(self.numbers)
        task_id, order_id = f"tsk-{number}", f"wo-{number}"
        url = str(self.origin)
        start = await self.house.resolve(url, base)
        box = Sandbox(await self.house.golden(url, start.commit), self.place / f"box-{number}", order_id)
        head = box.commit(f"work of {task_id}", files or {f"{task_id}.txt": "new\n"})
        await self.house.import_bundle(url, box.bundle(), **box.request())
        await self.house.push(url, head, box.branch)
        async with self.database.transaction() as session:
            session.add(self._order(order_id, task_id, ticket, box, head))
            session.add(
                Task(
                    task_id=task_id,
                    project_id="prj-1",
                    ticket_id=ticket,
                    phase="building",
                    status="completed",
                    priority="medium",
                    workflow_type="agent_workflow_build",
                    work_order_id=order_id,
                )
            )
        return task_id

    def _order(self, order_id: str, task_id: str, ticket: str, box: Sandbox, head: str) -> WorkOrder:
        return WorkOrder(
            agent_work_order_id=order_id,
            repository_url=str(self.origin),
            workflow_type="agent_workflow_build",
            sandbox_type="local",
            agent="script",
            agent_options={},
            prompts=[],
            project_id="prj-1",
            task_id=task_id,
            ticket_id=ticket,
            base_branch="main",
            base_commit=box.base,
            git_branch_name=box.branch,
            head_commit=head,
            status="completed",
            timeout_seconds=60,
        )

    async def card(self, ticket: str = "tkt-1") -> Ticket:
        """The ticket as it is now."""
        async with self.database.reading() as session:
            return await session.get_one(Ticket, ticket)

    def files(self, branch: str) -> set[str]:
        """What a branch of the origin holds."""
        return set(git("ls-tree", "-r", "--name-only", branch, cwd=self.origin).splitlines())

    def at(self, branch: str) -> str:
        """Where a branch of the origin stands."""
        return git("rev-parse", branch, cwd=self.origin)

    def push_as_person(self, branch: str, files: dict[str, str]) -> str:
        """Somebody works on a branch with plain git."""
        clone = self.place / f"person-{next(self.numbers)}"
        git("clone", "-q", "-b", branch, str(self.origin), str(clone), cwd=self.place)
        for name, text in files.items():
            (clone / name).write_text(text)
        git("add", "-A", cwd=clone)
        git("commit", "-qm", "by hand", cwd=clone)
        git("push", "-q", "origin", branch, cwd=clone)
        return git("rev-parse", "HEAD", cwd=clone)
