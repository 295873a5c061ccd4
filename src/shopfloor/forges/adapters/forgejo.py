"""Forgejo and Gitea, by httpx: they speak GitHub's dialect with an accent."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import httpx
import orjson

from shopfloor.forges.adapters._pulls import PullRequests
from shopfloor.forges.adapters._shapes import Pull, Shape, read
from shopfloor.forges.adapters._trust import trust
from shopfloor.forges.adapters._wire import Answer, ForgeNotReached
from shopfloor.forges.port import Check, Connection, Draft, Forge, HostGit
from shopfloor.kit.errors import Misconfigured

DRAFT = "WIP: "
"""The beginning of a title by which Forgejo knows a draft."""


class ForgejoNotConnected(Misconfigured):
    """Forgejo needs a connection."""

    hint = 'Set kind and token_env below [forges."https://host"].'


def create(host: HostGit, connection: Connection | None = None) -> Forge:
    """The adapter."""
    if connection is None:
        raise ForgejoNotConnected
    return Forgejo(host, connection, _Wire(connection))


class _Wire:
    """One request, one connection; redirections are told, not followed."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    async def once(self, method: str, path: str, token: str | None, params: Mapping[str, Any], body: Any) -> Answer:
        headers = {"Accept": "application/json", "User-Agent": "shopfloor"}
        headers |= {"Authorization": f"token {token}"} if token else {}
        try:
            async with httpx.AsyncClient(verify=trust(self.connection.certificates), timeout=30) as client:
                url = self.connection.api_url.rstrip("/") + path
                said = await client.request(method, url, params=dict(params), json=body, headers=headers)
        except httpx.HTTPError as error:
            raise ForgeNotReached(f"{self.connection.api_url} does not answer: {type(error).__name__}") from error
        try:
            told = orjson.loads(said.content) if said.content else None
        except orjson.JSONDecodeError:
            told = None
        return Answer(said.status_code, said.headers, {} if told is None and said.is_success else told)


class _Status(Shape):
    context: str = ""
    status: str = ""
    target_url: str | None = None
    description: str | None = None


class _Statuses(Shape):
    statuses: list[_Status] | None = None


class Forgejo(PullRequests):
    """Any Forgejo or Gitea."""

    name = "forgejo"
    size = "limit"
    history = "timeline"
    issue_order: ClassVar[Mapping[str, str]] = {"type": "issues"}

    def offer(self, draft: Draft) -> dict[str, Any]:
        """A pull request; a draft says so in its title."""
        title = f"{DRAFT if self.connection.draft else ''}{draft.title[:240]}"
        return {"title": title, "head": draft.head_branch, "base": draft.base_branch, "body": draft.body}

    async def by_branch(self, draft: Draft) -> list[Pull]:
        """Forgejo cannot filter by branch: what moved last is enough, as ours was just made."""
        pulls = await self.listed(draft.repository_url, "/pulls", Pull, pages=4, state="all", sort="recentupdate")
        return [pull for pull in pulls if pull.head.ref == draft.head_branch]

    async def push_button(self, draft: Draft, pull: Pull, *, squash: bool) -> Answer:
        """POST with the head as the condition."""
        body: dict[str, Any] = {"Do": "squash" if squash else "merge", "head_commit_id": draft.head_commit}
        if squash:
            body["MergeTitleField"] = f"{draft.title[:200]} (#{pull.number})"
        body["MergeMessageField"] = f"Shopfloor-Order: {draft.work_order_id}"
        return await self.ask(draft.repository_url, "POST", f"/pulls/{pull.number}/merge", body)

    async def ready(self, draft: Draft, pull: Pull) -> None:
        """Take the sign out of the title."""
        await self._patch(draft, pull, {"title": pull.title.removeprefix(DRAFT)})

    async def checks(self, url: str, commit: str) -> Sequence[Check]:
        """Commit statuses, also those that Actions sets."""
        told = read(_Statuses, await self.get(url, f"/commits/{commit}/status"), "statuses")
        return [
            Check(
                name=one.context,
                state={"success": "passed", "warning": "passed", "pending": "pending"}.get(one.status, "failed"),
                url=one.target_url or "",
                summary=one.description or "",
            )
            for one in told.statuses or ()
        ]
