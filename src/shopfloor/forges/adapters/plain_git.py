"""The forge without a server: a change is a row of ours, a merge is a commit made in memory and pushed under a lease."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

from shopfloor.forges.port import (
    Access,
    BaseGone,
    BranchMoved,
    Check,
    Comment,
    Connection,
    Draft,
    Forge,
    HeadMoved,
    HostGit,
    Issue,
    NothingToMerge,
    NotMergeable,
    NotOffered,
    Published,
    Review,
)

WHY_NOT = "A push would be refused: give this server a credential that may push (origin_tokens, or [forges]), or the person's own clone as repository."
TRIES = 3
"""How often a merge is made anew because the base branch moved meanwhile."""


def create(host: HostGit, connection: Connection | None = None) -> Forge:
    """The adapter; it needs no connection."""
    del connection
    return PlainGit(host)


class PlainGit:
    """Any repository that git can push to."""

    name = "plain_git"
    pages = False

    def __init__(self, host: HostGit) -> None:
        self.host = host

    async def verify(self, url: str) -> Access:
        """Read its references, then try a push that pushes nothing."""
        refs = await self.host.look(url, timeout=15)
        branch = refs.head or next((name for name in ("main", "master", *refs.heads) if name in refs.heads), "main")
        can_write = await self.host.can_write(url)
        return Access(default_branch=branch, can_write=can_write, why_not="" if can_write else WHY_NOT)

    async def open_change(self, draft: Draft) -> Published:
        """Nothing to do: the pushed branch and our row are the change."""
        del draft
        return Published()

    async def merge(
        self, draft: Draft, *, squash: bool, planned: str | None, plan: Callable[[str], Awaitable[None]]
    ) -> str:
        """Merge in memory and push with the base's old commit as the condition."""
        for last in (*(False,) * (TRIES - 1), True):
            base = await self._base(draft)
            if done := await self._merged_already(draft, base, planned):
                return done
            commit = await self._commit(draft, base, squash=squash)
            await plan(commit)
            planned = commit
            try:
                await self.host.push(draft.repository_url, commit, draft.base_branch, expected_old=base)
            except BranchMoved:
                if last:
                    raise
            else:
                return commit
        raise AssertionError

    async def landed(self, draft: Draft, planned: str | None) -> str | None:
        """Ask the base branch itself, once a merge was planned."""
        if planned is None:
            return None
        base = (await self.host.sync(draft.repository_url)).heads.get(draft.base_branch)
        there = base is not None and await self.host.contains(draft.repository_url, base, planned)
        return planned if there else None

    async def withdrawn(self, draft: Draft) -> bool:
        """Only we can close it."""
        del draft
        return False

    async def base_of_others(self, draft: Draft) -> bool:
        """Nobody but us knows of changes here, and our table is asked first (see `queries.needed`)."""
        del draft
        return False

    async def _base(self, draft: Draft) -> str:
        """Where the base branch stands, once the change's own branch is seen to stand where it should."""
        heads = (await self.host.sync(draft.repository_url)).heads
        if (base := heads.get(draft.base_branch)) is None:
            raise BaseGone(f"{draft.repository_url} has no branch {draft.base_branch!r}")
        if (head := heads.get(draft.head_branch)) not in {None, draft.head_commit}:
            raise HeadMoved(f"{draft.head_branch} stands at {(head or '')[:12]}, not at {draft.head_commit[:12]}")
        return base

    async def _merged_already(self, draft: Draft, base: str, planned: str | None) -> str | None:
        if planned and await self.host.contains(draft.repository_url, base, planned):
            return planned
        return base if await self.host.contains(draft.repository_url, base, draft.head_commit) else None

    async def _commit(self, draft: Draft, base: str, *, squash: bool) -> str:
        merged = await self.host.mergeable(draft.repository_url, base, draft.head_commit)
        if not merged.clean:
            raise NotMergeable(
                f"conflicts with {draft.base_branch} in {merged.where}", conflicts=merged.conflicts[:100]
            )
        if squash and not merged.adds:
            raise NothingToMerge(f"{draft.base_branch} already holds everything that {draft.head_branch} brings")
        trailer = f"Shopfloor-Order: {draft.work_order_id}"
        parents: tuple[str, ...] = (base,) if squash else (base, draft.head_commit)
        if squash:
            message = f"{draft.title}\n\n{draft.body.strip()}\n\n{trailer}\n"
        else:
            message = f"Merge {draft.head_branch}: {draft.title}\n\n{trailer}\n"
        return await self.host.commit_merge(draft.repository_url, merged.tree, parents, message)

    async def close(self, draft: Draft) -> None:
        """Nothing to do: the row says it."""
        del draft

    async def issue(self, url: str, number: int) -> Issue:
        """There are none."""
        raise NotOffered(f"{url} is reached by git alone: it has no issue #{number}")

    async def issues(self, url: str, *, since: datetime | None = None, label: str | None = None) -> Sequence[Issue]:
        """There are none."""
        del url, since, label
        return ()

    async def comments(self, url: str, number: int) -> Sequence[Comment]:
        """There are none."""
        raise NotOffered(f"{url} is reached by git alone: nobody can comment on #{number}")

    async def comment(self, url: str, number: int, text: str, *, marker: str) -> Comment:
        """There is no place for it."""
        del text, marker
        raise NotOffered(f"{url} is reached by git alone: nobody can comment on #{number}")

    async def comments_since(self, url: str, since: datetime) -> Sequence[Comment]:
        """There are none."""
        del url, since
        return ()

    async def labeled(self, url: str, number: int, label: str) -> tuple[str, str]:
        """Nobody did."""
        del url, number, label
        return "", ""

    async def ended(self, url: str, number: int) -> tuple[str, str] | None:
        """Our table says it."""
        del url, number
        return None

    async def reviews(self, url: str, number: int) -> Sequence[Review]:
        """Reviews of plain git are rows of ours."""
        del url, number
        return ()

    async def threads(self, url: str, number: int, review_id: str) -> Sequence[Comment]:
        """There are none."""
        del url, number, review_id
        return ()

    async def reply(self, url: str, number: int, comment_id: int, text: str, *, marker: str) -> None:
        """There is no place for it."""
        del comment_id, text, marker
        raise NotOffered(f"{url} is reached by git alone: nobody can answer on #{number}")

    async def checks(self, url: str, commit: str) -> Sequence[Check]:
        """There are none."""
        del url, commit
        return ()

    async def login(self, url: str) -> str:
        """Nobody has a name."""
        del url
        return ""

    async def may_write(self, url: str, login: str) -> bool:
        """Git alone knows nobody by name."""
        del url, login
        return False
