"""Forges with pull requests and issues over a REST API. GitHub invented the dialect, Forgejo and Gitea speak most of it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

from shopfloor.forges.adapters._shapes import (
    CommentShape,
    Happening,
    IssueShape,
    Person,
    Pull,
    Ref,
    Repository,
    ReviewShape,
    Shape,
    ThreadShape,
    read,
)
from shopfloor.forges.adapters._wire import (
    Answer,
    ForgeFailed,
    ForgeNotReached,
    RepositoryHidden,
    RequestRefused,
    RightMissing,
    Wire,
    checked,
    send,
)
from shopfloor.forges.port import (
    Access,
    BaseGone,
    ChangeGone,
    ChangeWithdrawn,
    Comment,
    Connection,
    Draft,
    HeadMoved,
    HostGit,
    Issue,
    NotMergeable,
    Published,
    Review,
)
from shopfloor.kit import log
from shopfloor.kit.errors import Conflict

logger = log.get(__name__)

PAGE = 50
PAGES = 20
LOOKS = 6
"""How often a forge that still thinks about whether a change merges is asked again."""


class NothingToReview(Conflict):
    """The branch holds nothing that its base has not."""

    hint = "Nothing was offered. The base may hold the work already."


class MergeRefused(Conflict):
    """The forge's rules do not let the change be merged now."""

    hint = "Its own words are in 'detail': a review, a check or a right is missing. Nothing is ever forced."


class PullRequests:
    """What GitHub and Forgejo have in common."""

    name = ""
    pages = True
    size = "per_page"
    """The parameter for the length of a page."""

    def __init__(self, host: HostGit, connection: Connection, wire: Wire) -> None:
        self.host, self.connection, self.wire = host, connection, wire
        self._login: str | None = None

    async def ask(self, url: str, method: str, path: str, body: Any = None, **params: Any) -> Answer:
        """Call the API about a repository; `path` is below it. Any status below 500 is answered."""
        token = await self.connection.token(url)
        query = {name: value for name, value in params.items() if value is not None}
        return await send(self.wire, method, f"/repos/{full_name(url)}{path}", token, params=query, body=body)

    async def get(self, url: str, path: str, **params: Any) -> Any:
        """The JSON of something that must be there."""
        return checked(await self.ask(url, "GET", path, **params), f"{full_name(url)}{path}")

    async def listed[S: Shape](
        self, url: str, path: str, shape: type[S], *, pages: int = PAGES, **params: Any
    ) -> list[S]:
        """All of a list, as far as anybody wants to read."""
        found: list[S] = []
        before: Any = None
        for page in range(1, pages + 1):
            part = await self.get(url, path, **{self.size: PAGE}, page=page, **params)
            found += [read(shape, one, path) for one in part or ()] if part != before else []
            if len(part or ()) < PAGE or part == before:  # or it does not come in pages
                break
            before = part
        return found

    async def verify(self, url: str) -> Access:
        """Ask the API what the token may do, then try a push that pushes nothing."""
        seen = read(Repository, await self.get(url, ""), full_name(url))
        why = ""
        if seen.archived:
            why = "The repository is archived: unarchive it in its settings, or work on a fork."
        elif seen.permissions is not None and not seen.permissions.push:
            why = "The token may read and not write: give it contents, pull requests and issues with write access."
        elif not await self.host.can_write(url):
            why = "A push would be refused: give the token write access to 'contents' of this repository."
        return Access(default_branch=seen.default_branch, can_write=not why, why_not=why)

    async def open_change(self, draft: Draft) -> Published:
        """Find the change by its branch, else make it. Ours is one that is open, or that holds this very commit."""
        pull = await self._found(draft)
        if pull is None:
            answer = await self._create(draft)
            if answer.status in {409, 422}:
                pull = await self._found(draft)
            if pull is None:
                made = read(Pull, self._made(answer, draft), "the new change")
                logger.info("github_pull_request_created", url=made.html_url, agent_work_order_id=draft.work_order_id)
                return Published(url=made.html_url, number=made.number)
        if pull.state == "open" and (pull.body or "") != (text := self.retold(pull.body or "", draft.body)):
            await self._patch(draft, pull, {"body": text})
        return Published(url=pull.html_url, number=pull.number)

    async def _create(self, draft: Draft) -> Answer:
        try:
            return await self.ask(draft.repository_url, "POST", "/pulls", self.offer(draft))
        except (ForgeNotReached, ForgeFailed):
            if await self._found(draft) is None:
                raise
            return Answer(409, {})

    def _made(self, answer: Answer, draft: Draft) -> Any:
        low = answer.words.lower()
        if answer.status in {409, 422} and ("no commits between" in low or "no changes" in low):
            raise NothingToReview(answer.words)
        if answer.status == 422 and "base" in low:
            raise BaseGone(f"{draft.repository_url} has no branch {draft.base_branch!r}: {answer.words}")
        return checked(answer, f"a change for {draft.head_branch}")

    async def _found(self, draft: Draft) -> Pull | None:
        if draft.number is not None:
            return await self.pull(draft)
        mine = [
            pull
            for pull in await self.by_branch(draft)
            if pull.head.ref == draft.head_branch and same(pull.head, draft)
        ]
        alive = [pull for pull in mine if pull.state == "open"]
        return next(iter(alive or [pull for pull in mine if pull.head.sha == draft.head_commit]), None)

    async def pull(self, draft: Draft) -> Pull:
        """The change as it stands; raises ChangeGone."""
        number = draft.number
        if number is None:
            if (found := await self._found(draft)) is None:
                raise ChangeGone(f"{full_name(draft.repository_url)} has no change for {draft.head_branch}")
            number = found.number
        try:
            body = await self.get(draft.repository_url, f"/pulls/{number}")
        except RepositoryHidden as error:
            raise ChangeGone(
                f"{full_name(draft.repository_url)} has no change {number}, or the token may not see it"
            ) from error
        return read(Pull, body, f"change {number}")

    async def merge(
        self, draft: Draft, *, squash: bool, planned: str | None, plan: Callable[[str], Awaitable[None]]
    ) -> str:
        """Let the forge merge exactly the head that was looked at. Repeating it finds what it did."""
        del planned
        pull = await self._decided(draft)
        if pull.is_merged:
            return pull.merge_commit_sha or draft.head_commit
        self._check(pull, draft)
        if pull.mergeable is False:
            await self._conflicts(draft)
        await plan(draft.head_commit)
        if pull.draft:
            await self.ready(draft, pull)
        try:
            answer = await self.push_button(draft, pull, squash=squash)
        except (ForgeNotReached, ForgeFailed):
            answer = Answer(409, {}, {"message": "the answer was lost"})
        after = await self.pull(draft)
        if after.is_merged:
            return after.merge_commit_sha or draft.head_commit
        self._check(after, draft)
        if answer.status >= 300 and answer.status not in {405, 409}:
            checked(answer, f"the merge of change {pull.number}")
        raise MergeRefused(f"change {pull.number}: {answer.words or answer.status}")

    def _check(self, pull: Pull, draft: Draft) -> None:
        if pull.state != "open":
            raise ChangeWithdrawn(f"change {pull.number} is {pull.state} on its forge")
        if pull.head.sha != draft.head_commit:
            raise HeadMoved(f"change {pull.number} stands at {pull.head.sha[:12]}, not at {draft.head_commit[:12]}")

    async def _decided(self, draft: Draft) -> Pull:
        """The change, once the forge knows whether it merges; it may take a few seconds after a push."""
        pull = await self.pull(draft)
        for look in range(LOOKS):
            if pull.mergeable is not None or pull.is_merged or pull.state != "open":
                break
            await asyncio.sleep(0.3 * (look + 1))
            pull = await self.pull(draft)
        return pull

    async def _conflicts(self, draft: Draft) -> None:
        """Name the files, as our own git sees them; the forge only says no."""
        base = (await self.host.sync(draft.repository_url)).heads.get(draft.base_branch)
        if base is None:
            raise BaseGone(f"{draft.repository_url} has no branch {draft.base_branch!r}")
        seen = await self.host.mergeable(draft.repository_url, base, draft.head_commit)
        if not seen.clean:
            raise NotMergeable(f"conflicts with {draft.base_branch} in {seen.where}", conflicts=seen.conflicts[:100])

    async def landed(self, draft: Draft, planned: str | None) -> str | None:
        """Ask the forge; it also tells of merges that people made there."""
        del planned
        pull = await self.pull(draft)
        return (pull.merge_commit_sha or draft.head_commit) if pull.is_merged else None

    async def withdrawn(self, draft: Draft) -> bool:
        """Whether it was closed there."""
        pull = await self.pull(draft)
        return pull.state != "open" and not pull.is_merged

    async def close(self, draft: Draft) -> None:
        """Close it; one that is not open is left alone."""
        try:
            pull = await self.pull(draft)
        except ChangeGone:
            return
        if pull.state == "open":
            await self._patch(draft, pull, {"state": "closed"})

    async def _patch(self, draft: Draft, pull: Pull, body: Mapping[str, Any]) -> None:
        answer = await self.ask(draft.repository_url, "PATCH", f"/pulls/{pull.number}", dict(body))
        checked(answer, f"change {pull.number}")

    async def base_of_others(self, draft: Draft) -> bool:
        """Whether an open change wants to be merged into this branch."""
        pulls = await self.listed(draft.repository_url, "/pulls", Pull, state="open")
        return any(pull.base.ref == draft.head_branch for pull in pulls)

    async def issue(self, url: str, number: int) -> Issue:
        """One issue; raises IssueNotFound."""
        try:
            return read(IssueShape, await self.get(url, f"/issues/{number}"), f"issue {number}").plain()
        except RepositoryHidden as error:
            raise RepositoryHidden(f"{full_name(url)} has no issue {number}, or the token may not see it") from error

    async def issues(self, url: str, *, since: datetime | None = None, label: str | None = None) -> Sequence[Issue]:
        """Open issues; what is a change is left out."""
        wanted: dict[str, Any] = {
            "state": "open",
            "since": moment(since) if since else None,
            "labels": label,
            **self.issue_order,
        }
        found = await self.listed(url, "/issues", IssueShape, **wanted)
        return sorted((one.plain() for one in found if one.pull_request is None), key=lambda one: str(one.updated_at))

    issue_order: ClassVar[Mapping[str, str]] = {}
    history = "events"
    """Where an issue's history is told."""

    async def comments(self, url: str, number: int) -> Sequence[Comment]:
        """What was said."""
        return [one.plain(number) for one in await self.listed(url, f"/issues/{number}/comments", CommentShape)]

    async def comment(self, url: str, number: int, text: str, *, marker: str) -> Comment:
        """Edit our own comment with the marker, or say it for the first time. A marker in somebody else's comment is nothing."""
        body = text if marker in text else f"{text}\n\n{marker}"
        mine = await self._said(url, number, marker)
        if mine is None:
            try:
                answer = await self.ask(url, "POST", f"/issues/{number}/comments", {"body": body})
            except (ForgeNotReached, ForgeFailed):
                if (mine := await self._said(url, number, marker)) is None:
                    raise
                return mine
            made = read(CommentShape, checked(answer, f"a comment on {number}"), "the new comment").plain(number)
            logger.info("github_issue_commented", issue_number=number, url=made.url)
            return made
        if mine.body == body:
            return mine
        answer = await self.ask(url, "PATCH", f"/issues/comments/{mine.comment_id}", {"body": body})
        return read(CommentShape, checked(answer, f"our comment on {number}"), "the comment").plain(number)

    async def comments_since(self, url: str, since: datetime) -> Sequence[Comment]:
        """What was said in issues and changes alike."""
        found = await self.listed(url, "/issues/comments", CommentShape, since=moment(since))
        return [one.plain() for one in found]

    async def labeled(self, url: str, number: int, label: str) -> tuple[str, str]:
        """Read the issue's history."""
        happened = await self.listed(url, f"/issues/{number}/{self.history}", Happening)
        mine = [one for one in happened if one.labels(label)]
        return (mine[-1].by, mine[-1].created_at or "") if mine else ("", "")

    async def ended(self, url: str, number: int) -> tuple[str, str] | None:
        """As the change itself says."""
        pull = read(Pull, await self.get(url, f"/pulls/{number}"), f"change {number}")
        if pull.state == "open":
            return None
        return ("merged" if pull.is_merged else "closed"), (pull.closed_at or "")

    async def _said(self, url: str, number: int, marker: str) -> Comment | None:
        me = await self.login(url)
        said = await self.comments(url, number)
        return next((one for one in said if marker in one.body and one.author == me), None)

    async def login(self, url: str) -> str:
        """Who we are there."""
        if self._login is None:
            if self.connection.login is not None:
                self._login = await self.connection.login()
            else:
                answer = await send(self.wire, "GET", "/user", await self.connection.token(url))
                self._login = read(Person, checked(answer, "our own account"), "our own account").login
        return self._login

    async def reviews(self, url: str, number: int) -> Sequence[Review]:
        """What reviewers said."""
        found = await self.listed(url, f"/pulls/{number}/reviews", ReviewShape)
        return [one.plain() for one in found if one.state.upper() not in {"PENDING", "REQUEST_REVIEW"}]

    async def threads(self, url: str, number: int, review_id: str) -> Sequence[Comment]:
        """Forgejo lists them by review."""
        path = f"/pulls/{number}/reviews/{quote(review_id, safe='')}/comments"
        return [read(ThreadShape, one, path).plain(number) for one in await self.get(url, path) or ()]

    async def reply(self, url: str, number: int, comment_id: int, text: str, *, marker: str) -> None:
        """Forgejo has no call for it."""
        del comment_id
        await self.comment(url, number, text, marker=marker)

    async def may_write(self, url: str, login: str) -> bool:
        """Whether a person may write; who the forge does not know may not."""
        try:
            told = await self.get(url, f"/collaborators/{quote(login, safe='')}/permission")
        except (RepositoryHidden, RightMissing, RequestRefused):
            return False
        return isinstance(told, dict) and told.get("permission") in {"admin", "write", "owner", "maintain"}

    def offer(self, draft: Draft) -> dict[str, Any]:
        """The body that makes a change."""
        raise NotImplementedError

    def retold(self, there: str, ours: str) -> str:
        """The change's text with what we know now; what people wrote around it stays."""
        rest = ours.partition(EVIDENCE)[2]
        ours_block = rest.partition(EVIDENCE_END)[0]
        head, found, tail = there.partition(EVIDENCE)
        if not rest or not found:
            return there
        return head + EVIDENCE + ours_block + EVIDENCE_END + tail.partition(EVIDENCE_END)[2]

    async def by_branch(self, draft: Draft) -> list[Pull]:
        """Changes of the draft's branch, of any state, newest first; others among them do no harm."""
        raise NotImplementedError

    async def push_button(self, draft: Draft, pull: Pull, *, squash: bool) -> Answer:
        """Merge, if the head is the one we looked at."""
        raise NotImplementedError

    async def ready(self, draft: Draft, pull: Pull) -> None:
        """Take the change out of its draft state."""
        raise NotImplementedError


EVIDENCE, EVIDENCE_END = "<!-- shopfloor:evidence -->", "<!-- /shopfloor:evidence -->"


def moment(at: datetime) -> str:
    """As forges write it."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def full_name(url: str) -> str:
    """`owner/name` of a repository's address, fit for a path."""
    path = urlsplit(url).path.strip("/").removesuffix(".git")
    return quote(path)


def same(head: Ref, draft: Draft) -> bool:
    """Whether the head is a branch of the repository itself and not of a fork, be that deleted meanwhile."""
    name = head.repo and head.repo.full_name.lower()
    return name in {"", full_name(draft.repository_url).lower()} if name is not None else head.sha == draft.head_commit
