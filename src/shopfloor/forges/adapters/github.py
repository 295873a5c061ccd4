"""GitHub, through githubkit: its authentication, transport and error types; shapes and retries are our own (docs/decisions/0013)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from shopfloor.forges.adapters._pulls import MergeRefused, PullRequests, full_name
from shopfloor.forges.adapters._shapes import Pull, Shape, ThreadShape, read
from shopfloor.forges.adapters._wire import Answer, ForgeNotReached, checked, send
from shopfloor.forges.port import Check, Comment, Connection, Draft, Forge, HostGit
from shopfloor.kit.errors import Misconfigured

if TYPE_CHECKING:
    from githubkit import GitHub

VERSION = "2022-11-28"
"""Of the API; servers of companies know no newer one."""
READY = "mutation($id: ID!) { markPullRequestReadyForReview(input: {pullRequestId: $id}) { pullRequest { isDraft } } }"
GOOD = frozenset({"success", "neutral", "skipped"})


class GitHubNotConnected(Misconfigured):
    """GitHub needs a connection."""

    hint = 'Set token_env, gh_login or app_id below [forges."https://github.com"].'


def create(host: HostGit, connection: Connection | None = None) -> Forge:
    """The adapter."""
    if connection is None:
        raise GitHubNotConnected
    return GitHubForge(host, connection, _Wire(connection))


class _Wire:
    """githubkit's client with everything clever switched off: no retries, no redirections, no cache."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._clients: dict[str | None, GitHub[Any]] = {}

    def _client(self, token: str | None) -> "GitHub[Any]":
        if token not in self._clients:
            from githubkit import GitHub, TokenAuthStrategy, UnauthAuthStrategy

            from shopfloor.forges.adapters._trust import trust

            self._clients = {
                token: GitHub(
                    TokenAuthStrategy(token) if token else UnauthAuthStrategy(),
                    base_url=self.connection.api_url,
                    auto_retry=False,
                    follow_redirects=False,
                    http_cache=False,
                    timeout=30,
                    ssl_verify=trust(self.connection.certificates),
                    user_agent="shopfloor",
                )
            }
        return self._clients[token]

    async def once(self, method: str, path: str, token: str | None, params: Mapping[str, Any], body: Any) -> Answer:
        from githubkit.exception import RequestError, RequestFailed

        url = self.connection.api_url.rstrip("/") + path
        if path == "/graphql":
            url = url.replace("/api/v3/graphql", "/api/graphql")
        try:
            said = await self._client(token).arequest(
                method, url, params=dict(params) or None, json=body, headers={"X-GitHub-Api-Version": VERSION}
            )
        except RequestFailed as refused:
            said = refused.response
        except RequestError as error:
            reason = type(error.exc).__name__
            raise ForgeNotReached(f"{self.connection.api_url} does not answer: {reason} {error.exc}"[:300]) from error
        return Answer(said.status_code, said.headers, _json(said.content))


def _json(content: bytes) -> Any:
    import orjson

    try:
        return orjson.loads(content) if content else None
    except orjson.JSONDecodeError:
        return None


class _Run(Shape):
    name: str = ""
    status: str = ""
    conclusion: str | None = None
    html_url: str | None = None
    output: dict[str, Any] | None = None


class _Runs(Shape):
    check_runs: list[_Run] = Field(default_factory=list)


class _Status(Shape):
    context: str = ""
    state: str = ""
    target_url: str | None = None
    description: str | None = None


class _Statuses(Shape):
    statuses: list[_Status] = Field(default_factory=list)


class GitHubForge(PullRequests):
    """github.com, or a company's own GitHub."""

    name = "github"
    issue_order: ClassVar[Mapping[str, str]] = {"sort": "updated", "direction": "asc"}

    def offer(self, draft: Draft) -> dict[str, Any]:
        """A pull request, as a draft unless the operator says otherwise."""
        return {
            "title": draft.title[:250],
            "head": draft.head_branch,
            "base": draft.base_branch,
            "body": draft.body[:65000],
            "draft": self.connection.draft,
            "maintainer_can_modify": True,
        }

    async def by_branch(self, draft: Draft) -> list[Pull]:
        """GitHub filters by `owner:branch` itself."""
        owner = full_name(draft.repository_url).partition("/")[0]
        head = f"{owner}:{draft.head_branch}"
        return await self.listed(draft.repository_url, "/pulls", Pull, pages=2, state="all", head=head)

    async def push_button(self, draft: Draft, pull: Pull, *, squash: bool) -> Answer:
        """PUT with the head as the condition."""
        body: dict[str, Any] = {"sha": draft.head_commit, "merge_method": "squash" if squash else "merge"}
        if squash:
            body |= {"commit_title": f"{draft.title[:200]} (#{pull.number})"}
        trailer = f"Shopfloor-Order: {draft.work_order_id}"
        body["commit_message"] = trailer
        return await self.ask(draft.repository_url, "PUT", f"/pulls/{pull.number}/merge", body)

    async def ready(self, draft: Draft, pull: Pull) -> None:
        """Only GraphQL can do it."""
        token = await self.connection.token(draft.repository_url)
        asked = {"query": READY, "variables": {"id": pull.node_id}}
        answer = await send(self.wire, "POST", "/graphql", token, body=asked)
        if answer.status >= 300 or (isinstance(answer.body, dict) and answer.body.get("errors")):
            raise MergeRefused(
                f"change {pull.number} is a draft: {answer.words}",
                hint="Mark it ready for review on GitHub, then merge.",
            )

    async def threads(self, url: str, number: int, review_id: str) -> Sequence[Comment]:
        """GitHub lists them by change."""
        found = await self.listed(url, f"/pulls/{number}/comments", ThreadShape)
        return [one.plain(number) for one in found if str(one.pull_request_review_id) == review_id]

    async def reply(self, url: str, number: int, comment_id: int, text: str, *, marker: str) -> None:
        """In the thread itself, unless it has our answer already."""
        me = await self.login(url)
        there = await self.listed(url, f"/pulls/{number}/comments", ThreadShape)
        if any(
            one.in_reply_to_id == comment_id and marker in (one.body or "") and one.plain().author == me
            for one in there
        ):
            return
        body = {"body": f"{text}\n\n{marker}"}
        answer = await self.ask(url, "POST", f"/pulls/{number}/comments/{comment_id}/replies", body)
        checked(answer, f"an answer on change {number}")

    async def checks(self, url: str, commit: str) -> Sequence[Check]:
        """Check runs and the older commit statuses."""
        runs = read(_Runs, await self.get(url, f"/commits/{commit}/check-runs", per_page=100), "check runs")
        old = read(_Statuses, await self.get(url, f"/commits/{commit}/status", per_page=100), "statuses")
        return [
            *(
                Check(name=run.name, state=_state(run), url=run.html_url or "", summary=_summary(run))
                for run in runs.check_runs
            ),
            *(
                Check(
                    name=one.context,
                    state={"success": "passed", "pending": "pending"}.get(one.state, "failed"),
                    url=one.target_url or "",
                    summary=one.description or "",
                )
                for one in old.statuses
            ),
        ]


def _state(run: _Run) -> str:
    if run.status != "completed":
        return "pending"
    return "passed" if run.conclusion in GOOD else "failed"


def _summary(run: _Run) -> str:
    told = run.output or {}
    return "\n".join(str(told[key]) for key in ("title", "summary", "text") if told.get(key))[:10000]
