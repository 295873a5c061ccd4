"""Work on a ticket as branches: begun, offered for review, merged (GIT-01…03). Each may be asked for twice and happens once."""

from dataclasses import dataclass

from shopfloor.forges import queries as changes
from shopfloor.forges import rules as forge_rules
from shopfloor.forges.models import Change
from shopfloor.forges.service import Evidence, Repositories
from shopfloor.forges.steps import merge as merging
from shopfloor.kit import log
from shopfloor.kit.db import Database
from shopfloor.kit.errors import Conflict, NotFound
from shopfloor.projects import rules
from shopfloor.projects.models import Project

logger = log.get(__name__)


class BranchInTheWay(Conflict):
    """A branch of the repository makes this one's name impossible."""

    hint = "Delete that branch, or give the project another branch_template."


class BranchNotFound(NotFound):
    """The repository has no such branch."""

    hint = "Start the work first; a branch that was merged or deleted cannot be finished again."


class NothingToOffer(Conflict):
    """The branch brings nothing that its base does not have."""

    hint = "Commit something to it first."


class NothingToMerge(NotFound):
    """No change was offered for this ticket."""

    hint = "Finish the work first."


@dataclass(frozen=True, kw_only=True)
class Started:
    """A branch to work on."""

    branch: str
    base_branch: str
    commit: str
    """Where it stands."""
    created: bool
    """False: it was there already."""


def branch_name(project: Project, ticket_id: str, *, title: str, kind: str = "feat", issue: int | None = None) -> str:
    """What the ticket's branch is called."""
    template, slug = project.branch_template or rules.DEFAULT_TEMPLATE, rules.slug(title)
    named = rules.branch(template, type_=kind, issue=issue, slug=slug, order_id=ticket_id.lower())
    return forge_rules.our_branch(named)


async def start(
    repositories: Repositories,
    project: Project,
    ticket_id: str,
    *,
    title: str,
    kind: str = "feat",
    issue: int | None = None,
    base_branch: str | None = None,
) -> Started:
    """Make the ticket's branch at its base. Raises BranchInTheWay, or what the origin has against it."""
    url = project.repository_url
    base, refs = await repositories.resolve(url, base_branch), await repositories.sync(url)
    name = branch_name(project, ticket_id, title=title, kind=kind, issue=issue)
    if there := refs.heads.get(name):
        return Started(branch=name, base_branch=base.branch, commit=there, created=False)
    if blocking := [one for one in refs.heads if one.startswith(f"{name}/") or name.startswith(f"{one}/")]:
        raise BranchInTheWay(f"{name!r} cannot be made while there is {blocking[0]!r}")
    await repositories.push(url, base.commit, name)
    logger.info("git_branch_created", ticket_id=ticket_id, branch=name, commit=base.commit)
    return Started(branch=name, base_branch=base.branch, commit=base.commit, created=True)


async def finish(
    database: Database,
    repositories: Repositories,
    project: Project,
    ticket_id: str,
    branch: str,
    *,
    title: str,
    body: str = "",
    issue: int | None = None,
    base_branch: str | None = None,
    evidence: Evidence = (),
) -> Change:
    """Offer the ticket's branch for review. Raises BranchNotFound, NothingToOffer, PolicyRefused, or what the forge has against it."""
    url = project.repository_url
    base, refs = await repositories.resolve(url, base_branch), await repositories.sync(url)
    if (head := refs.heads.get(branch)) is None:
        raise BranchNotFound(f"{url} has no branch {branch[:100]!r}")
    if await repositories.contains(url, base.commit, head):
        raise NothingToOffer(f"{branch} holds nothing that {base.branch} does not have")
    await repositories.check_policy(url, base.commit, head)
    return await repositories.forge(url).open_change(
        database,
        work_order_id=ticket_id,
        repository_url=url,
        base_branch=base.branch,
        base_commit=base.commit,
        head_branch=branch,
        head_commit=head,
        title=title,
        body=body,
        issue=issue,
        evidence=evidence,
    )


async def merge(
    database: Database,
    repositories: Repositories,
    project: Project,
    ticket_id: str,
    *,
    expected_head: str | None = None,
    squash: bool = True,
) -> Change:
    """Merge the ticket's newest change, then delete its branch. Never by force: conflicts, reviews and moved heads are told."""
    url = project.repository_url
    async with database.reading() as session:
        found, _ = await changes.listing(
            session, state=None, work_order_id=ticket_id, repository_url=url, limit=1, offset=0
        )
    if not found:
        raise NothingToMerge(f"ticket {ticket_id!r} has no change in {url}")
    newest = found[0].change_id
    return await merging.merge(
        database, repositories, newest, expected_head=expected_head, squash=squash, delete_branch=True
    )
