"""A desk whose project lives on a fake GitHub: tickets end as pull requests, and what happens to those is told as GitHub tells it."""

import json
import uuid
from typing import Any

import sqlalchemy as sa

from shopfloor.board.steps import react
from shopfloor.forges.models import Change, Delivery
from shopfloor.forges.signals import signature
from shopfloor.forges.steps import hear
from tests.board.desk import Desk
from tests.board.test_mover import CRITERION, end, rest, tasks
from tests.support.github_server import GitHubServer
from tests.support.hub_state import Repo

TOKEN, SECRET, NAME = "ghp_board0000000000000001", "hook-secret", "acme/demo"


class Town:
    """What a test does there."""

    def __init__(self, desk: Desk, github: GitHubServer) -> None:
        self.desk, self.github = desk, github

    @property
    def repo(self) -> Repo:
        """GitHub's side."""
        return self.github.repos[NAME]

    async def offered(self, **fields: Any) -> str:
        """A ticket that is done, with its pull request open."""
        await self.desk.project(autonomy=True)
        ticket = str(await self.desk.ticket(criteria=[CRITERION], **fields))
        await rest(self.desk, ticket)
        await self.worked(ticket)
        return ticket

    async def worked(self, ticket: str) -> str:
        """Every task of the ticket is done, its branch has a new commit, and that is proven and offered; answers the commit."""
        for task in await tasks(self.desk, ticket):
            if task["status"] == "pending":
                await end(self.desk, task)
        head = await self.desk.commit(ticket, {"work.txt": f"{uuid.uuid4()}\n"})
        await rest(self.desk, ticket)
        await self.desk.prove(ticket)
        await self.desk.end_runs()
        await rest(self.desk, ticket)
        assert await self.desk.status(ticket) == "done"
        return head

    async def change(self, ticket: str) -> Change:
        """The ticket's change."""
        async with self.desk.database.reading() as session:
            mine = sa.select(Change).where(Change.work_order_id == ticket).order_by(Change.created_at.desc())
            return (await session.scalars(mine.limit(1))).one()

    async def told(self, ticket: str, event: str, action: str, **facts: Any) -> None:
        """GitHub tells something; what is told is looked at and becomes a fact, which nobody answers yet."""
        place = {"html_url": f"http://{self.github.host}/{NAME}", "full_name": NAME}
        pull = {"number": (await self.change(ticket)).number}
        facts = {key: pull | value if key == "pull_request" else value for key, value in facts.items()}
        body = json.dumps({"action": action, "repository": place, "sender": {"login": "maintainer"}, **facts}).encode()
        headers = {"X-GitHub-Event": event, "X-GitHub-Delivery": str(uuid.uuid4())}
        headers["X-Hub-Signature-256"] = f"sha256={signature(SECRET, body)}"
        said = await self.desk.client.post("/api/v1/webhooks/github", content=body, headers=headers)
        assert said.status_code == 202, said.text
        await hear.handle_waiting(self.desk.database, self.desk.tools.repositories)

    async def reviewed(self, ticket: str, body: str = "Be polite.", *threads: str, at: str = "", **facts: Any) -> int:
        """Somebody submits a review with threads, of the head or an older commit; answers its id."""
        number, change = self.github.number(), await self.change(ticket)
        review = {"id": number, "state": "changes_requested", "body": body} | facts
        assert change.number
        self.repo.threads[change.number] = [
            {"id": 1000 * number + place, "body": text, "path": "work.txt", "line": 1, "pull_request_review_id": number}
            for place, text in enumerate(threads)
        ]
        head = {"ref": change.head_branch, "sha": at or change.head_commit}
        await self.told(ticket, "pull_request_review", "submitted", review=review, pull_request={"head": head})
        return number

    async def failed(self, ticket: str, name: str = "ci") -> None:
        """A check fails on the change's head."""
        head = (await self.change(ticket)).head_commit
        self.repo.checks.setdefault(head, []).append({"name": name, "status": "completed", "conclusion": "failure"})
        run = {"name": name, "conclusion": "failure", "head_sha": head}
        await self.told(ticket, "check_run", "completed", check_run=run)

    async def reactions(self) -> list[str]:
        """What became of the facts, oldest first."""
        async with self.desk.database.reading() as session:
            handled = sa.select(Delivery.reaction).where(Delivery.state == "handled")
            return list(await session.scalars(handled.order_by(Delivery.received_at)))

    async def answered(self, ticket: str) -> str:
        """Let the board answer; answers what became of the newest fact."""
        await react.answer(self.desk.tools, ticket)
        return (await self.reactions())[-1]

    def replies(self, number: int | None) -> list[tuple[int, str]]:
        """What we said in the threads of a pull request."""
        said = self.repo.threads.get(number or 0, [])
        return [(one["in_reply_to_id"], one["body"].partition(".")[0]) for one in said if "in_reply_to_id" in one]
