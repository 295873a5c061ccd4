"""What a forge must do, and what it may ask of this host's git. GitHub, Forgejo or plain git: the rest of the house sees no difference."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from shopfloor.kit.errors import Conflict


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


class BaseGone(Conflict):
    """The branch that the change is meant for does not exist any more."""

    hint = "Create it again, or close the change."


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


@dataclass(frozen=True, kw_only=True)
class Access:
    """What we may do with a repository."""

    default_branch: str
    can_write: bool


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


@dataclass(frozen=True, kw_only=True)
class Published:
    """A change as its forge shows it."""

    url: str | None = None
    """Where people look at it; None when the forge has no pages."""


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


class Forge(Protocol):
    """Where changes are reviewed and merged. Each module in adapters/ has `create(host: HostGit) -> Forge`."""

    name: str

    async def verify(self, url: str) -> Access:
        """What we may do with the repository; raises what is in the way."""

    async def open_change(self, draft: Draft) -> Published:
        """Offer a pushed branch for review. Offering it again changes or confirms it, never doubles it."""

    async def merge(
        self, draft: Draft, *, squash: bool, planned: str | None, plan: Callable[[str], Awaitable[None]]
    ) -> str:
        """Merge the change; answers the commit on the base branch.

        `plan` is told the commit before it is pushed, and forbids the push by raising; after a crash the merge is
        repeated with that commit as `planned`.
        """

    async def landed(self, draft: Draft, planned: str) -> bool:
        """Whether a planned merge is on the base branch; raises Problem when the origin cannot be asked."""

    async def close(self, draft: Draft) -> None:
        """Withdraw the change."""
