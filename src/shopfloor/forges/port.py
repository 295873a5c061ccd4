"""What a forge must do, and what it may ask of this host's git. GitHub, Forgejo or plain git: the rest of the house sees no difference."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from shopfloor.kit.errors import Conflict, NotFound


class BranchMoved(Conflict):
    """Somebody else changed this branch at the origin."""

    hint = "Look at what is there; then retry, or deliver to another branch. Nothing was overwritten."


class NotMergeable(Conflict):
    """The change and its base branch contradict each other."""

    hint = (
        "Merge the base branch into the change's branch, solve the conflicts named in 'conflicts', and deliver again."
    )


class NothingToMerge(Conflict):
    """The base branch already holds everything that this change brings."""

    hint = "Nothing was pushed. Close the change, or merge it without 'squash' to record that its branch was merged."


class HeadMoved(Conflict):
    """The change's branch is not where it was when it was looked at."""

    hint = "Look at the change again and merge what it is now."


class ChangeEnded(Conflict):
    """The change was merged, closed or delivered anew in the meantime."""

    hint = "Nothing was pushed. Look at the change again and decide anew."


class BaseGone(Conflict):
    """The branch that the change is meant for does not exist any more."""

    hint = "Create it again, or close the change."


class ChangeWithdrawn(Conflict):
    """The change was closed on its forge."""

    hint = "Open it again on the forge, or deliver anew."


class ChangeGone(NotFound):
    """The forge has no such change."""

    hint = "It may have been deleted there, or the credential may not see it. The branch and our row are untouched."


class NotOffered(Conflict):
    """This forge has no such thing."""

    status = 422
    hint = (
        "Plain git has branches only. Connect the repository to GitHub or Forgejo in [forges] for issues and reviews."
    )


@dataclass(frozen=True)
class Refs:
    """What an origin offers."""

    head: str | None
    """Its default branch; None when HEAD is detached."""
    head_commit: str | None
    heads: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    """The commits that tags name, annotated ones peeled."""


@dataclass(frozen=True)
class Mergeable:
    """Whether two commits merge by themselves."""

    clean: bool
    tree: str
    """The merged tree; with conflicts, one that holds their markers."""
    conflicts: list[str] = field(default_factory=list)
    adds: bool = True
    """False when the merged tree is the base's own."""

    @property
    def where(self) -> str:
        """Where they contradict each other, in words."""
        return ", ".join(self.conflicts[:5]) or "everything: they have no history in common"


@dataclass(frozen=True)
class Verdict:
    """Whether a change can be merged, at this moment."""

    mergeable: str
    conflicts: list[str]


UNKNOWN = Verdict("unknown", [])


@dataclass(frozen=True, kw_only=True)
class Access:
    """What we may do with a repository."""

    default_branch: str
    can_write: bool
    why_not: str = ""
    """Why we may not write, and what to do."""


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A delivered branch, to be offered for review."""

    work_order_id: str
    repository_url: str
    base_branch: str
    base_commit: str
    head_branch: str
    head_commit: str
    title: str
    body: str
    number: int | None = None
    """The forge's own number of it, once it was offered."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """A change as its forge shows it."""

    url: str | None = None
    """Where people look at it; None when the forge has no pages."""
    number: int | None = None


@dataclass(frozen=True, kw_only=True)
class Issue:
    """Something people want, as the forge tells it (AWM-14). All text in it is hostile."""

    number: int
    title: str
    body: str
    state: str
    url: str
    author: str
    labels: tuple[str, ...] = ()
    updated_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Comment:
    """Something said about an issue or change."""

    comment_id: int
    author: str
    body: str
    url: str = ""
    issue_number: int | None = None
    created_at: datetime | None = None
    path: str = ""
    line: int | None = None
    """Where in the change it stands, when it is about a place."""


@dataclass(frozen=True, kw_only=True)
class Review:
    """What a reviewer said in one go."""

    review_id: int
    author: str
    verdict: str
    """`approved`, `changes_requested` or `commented`."""
    body: str
    commit: str


@dataclass(frozen=True, kw_only=True)
class Check:
    """What a program thinks of a commit."""

    name: str
    state: str
    """`pending`, `passed` or `failed`."""
    url: str = ""
    summary: str = ""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How far two branches are apart."""

    base_commit: str
    head_commit: str
    ahead: int
    behind: int
    files: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Connection:
    """How a forge's API is reached: the operator's word, never a repository's."""

    origin: str
    """`https://host`, as repositories' addresses begin."""
    api_url: str
    token: Callable[[str], Awaitable[str | None]]
    """Asked for each call with the repository's address: what the API is shown."""
    draft: bool = True
    certificates: Path | None = None
    """A file of authorities to trust instead of the system's."""
    login: Callable[[], Awaitable[str]] | None = None
    """Who we are there, when the API cannot be asked: an App's token has no account."""


class HostGit(Protocol):
    """This host's own git, as far as a forge needs it."""

    async def look(self, url: str, *, timeout: float = 60) -> Refs:
        """What the origin has right now; nothing is stored."""

    async def sync(self, url: str) -> Refs:
        """Bring the mirror up to date."""

    async def can_write(self, url: str) -> bool:
        """Whether a push would be let in."""

    async def contains(self, url: str, newer: str, older: str) -> bool:
        """Whether `newer` contains `older`."""

    async def mergeable(self, url: str, base: str, head: str) -> Mergeable:
        """Merge two commits in memory."""

    async def commit_merge(self, url: str, tree: str, parents: tuple[str, ...], message: str) -> str:
        """Write a commit of a merged tree; answers its hash."""

    async def push(self, url: str, commit: str, branch: str, *, expected_old: str | None = None) -> object:
        """Let the origin's branch stand at a commit, under a lease; raises BranchMoved."""

    async def delete_branch(self, url: str, branch: str, expected: str) -> None:
        """Remove the origin's branch if it stands at `expected`; one that is gone is fine. Raises BranchMoved."""


class Forge(Protocol):
    """Where changes are reviewed and merged. Each module in adapters/ has `create(host: HostGit, connection: Connection | None) -> Forge`."""

    name: str
    pages: bool
    """Whether people look at changes there: then a change's text is made for them."""

    async def verify(self, url: str) -> Access:
        """What we may do with the repository; raises what is in the way."""

    async def open_change(self, draft: Draft) -> Published:
        """Offer a pushed branch for review. Offering it again changes or confirms it, never doubles it."""

    async def merge(
        self, draft: Draft, *, squash: bool, planned: str | None, plan: Callable[[str], Awaitable[None]]
    ) -> str:
        """Merge the change; answers the commit on the base branch.

        `plan` is told, before anything is merged, the commit that will be pushed (or the head, where the forge makes the
        merge), and forbids it by raising; after a crash the merge is repeated with that commit as `planned`.
        """

    async def landed(self, draft: Draft, planned: str | None) -> str | None:
        """The commit by which the change is on its base branch, as far as the forge or the plan can tell; raises Problem when it cannot be asked."""

    async def withdrawn(self, draft: Draft) -> bool:
        """Whether somebody closed the change on the forge itself."""

    async def close(self, draft: Draft) -> None:
        """Withdraw the change."""

    async def base_of_others(self, draft: Draft) -> bool:
        """Whether another open change wants to be merged into this one's branch: then it must stay."""

    async def issue(self, url: str, number: int) -> Issue:
        """One issue."""

    async def issues(self, url: str, *, since: datetime | None = None, label: str | None = None) -> Sequence[Issue]:
        """Open issues, changes left out, oldest change first."""

    async def comments(self, url: str, number: int) -> Sequence[Comment]:
        """What was said about an issue or change, oldest first."""

    async def comment(self, url: str, number: int, text: str, *, marker: str) -> Comment:
        """Say something once: a comment of ours that holds the hidden `marker` is edited in place instead of doubled."""

    async def comments_since(self, url: str, since: datetime) -> Sequence[Comment]:
        """What was said anywhere in the repository since then."""

    async def labeled(self, url: str, number: int, label: str) -> tuple[str, str]:
        """Who put a label on an issue last, and when; empty when it cannot be told."""

    async def ended(self, url: str, number: int) -> tuple[str, str] | None:
        """`merged` or `closed` and when, once a change is not open any more."""

    async def reviews(self, url: str, number: int) -> Sequence[Review]:
        """What reviewers said about a change, oldest first."""

    async def threads(self, url: str, number: int, review_id: str) -> Sequence[Comment]:
        """What a review says about single places."""

    async def reply(self, url: str, number: int, comment_id: int, text: str, *, marker: str) -> None:
        """Answer such a place once; where a forge cannot, the change itself is commented on."""

    async def checks(self, url: str, commit: str) -> Sequence[Check]:
        """What programs think of a commit."""

    async def login(self, url: str) -> str:
        """Who we are there; empty where nobody has a name."""

    async def may_write(self, url: str, login: str) -> bool:
        """Whether a person may write to the repository: only they may set us to work. False in doubt."""
