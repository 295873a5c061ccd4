"""The git gate: an agent's own `git fetch origin` and `git push origin HEAD`, for one repository and one branch.

A push is a bundle that came by another way: stored first, then imported with every check of one, then acknowledged. The
origin hears of it when the order is delivered.
"""

import asyncio
import shutil
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from shopfloor.forges.mirrors.lending import Lent, lent
from shopfloor.kit import log
from shopfloor.kit.errors import Conflict, Malformed, NotFound, TooLarge, Unavailable
from shopfloor.projects import queries as projects
from shopfloor.sandboxes.port import View, Workspace
from shopfloor.workorders import gate_rules as rules
from shopfloor.workorders import queries, service
from shopfloor.workorders.models import Artifact, Attempt, WorkOrder
from shopfloor.workorders.rules import AttemptState
from shopfloor.workorders.steps import Tools
from shopfloor.workorders.steps.receive import import_commits

logger = log.get(__name__)

MOST_PUSHES = 6
"""What one attempt may push in all, in uploads of the largest size; the worker's own are apart."""


class GateClosed(NotFound):
    """The git gate of this repository's project is closed: its agents do not push themselves."""

    hint = "There is no need to: commit, and the work is delivered at the end. People open it with 'shopfloor projects change PROJECT --git-gate'."


class NoSuchRepository(NotFound):
    """This sandbox has one repository, and this is not it."""

    hint = "'git remote -v' in the workspace names it."


class OrderOver(Conflict):
    """This attempt at the work order has ended: nothing more is taken from its sandbox."""

    hint = "What was committed or pushed before is not lost."


class NotYetOpen(Unavailable):
    """The work order is being written down."""


class AllowanceSpent(TooLarge):
    """This attempt has pushed all that it may."""


@dataclass(frozen=True)
class Guest:
    """Whose agent stands at the gate."""

    order: WorkOrder
    attempt: Attempt


async def admit(tools: Tools, sandbox_id: str, order_id: str) -> Guest:
    """Who asks, if it may; raises NoSuchRepository, GateClosed, OrderOver."""
    async with tools.database.reading() as session:
        attempt = await queries.find_attempt(session, sandbox_id)
        if attempt is None or attempt.work_order_id != order_id:
            raise NoSuchRepository
        order = await queries.get(session, order_id)
        project = await projects.of_repository(session, order.repository_url)
    if project is None or not project.git_gate:
        raise GateClosed
    _still_open(order, attempt)
    return Guest(order, attempt)


def _still_open(order: WorkOrder, attempt: Attempt) -> None:
    running = attempt.state in {AttemptState.PREPARING, AttemptState.RUNNING} and attempt.result is None
    if not running or order.attempts != attempt.number:
        raise OrderOver
    if not (order.base_commit and order.git_branch_name):
        raise NotYetOpen


def lending(tools: Tools, guest: Guest) -> AbstractAsyncContextManager[Lent]:
    """What the guest may see. Its own branch is where the database says that it was handed out to: only that is acknowledged."""
    order = guest.order
    assert order.base_commit
    assert order.git_branch_name
    return lent(
        tools.repositories.place(order.repository_url),
        branch=order.git_branch_name,
        base_branch=order.base_branch or "",
        base_commit=order.base_commit,
        tip=order.head_commit,
    )


async def push(tools: Tools, guest: Guest, view: Lent, body: BinaryIO, size: int) -> bytes:
    """Take in a push, whole or not at all; answers git's report. What it acknowledges is durable. Raises BadPush."""
    asked = rules.commands(body)
    why = rules.refusals(asked, view.ref)
    if asked and not why:
        why = {view.ref: await _taken(tools, guest, view, body, size, asked[0].new)}
    logger.info("git_push_received", agent_work_order_id=guest.order.agent_work_order_id, refused=any(why.values()))
    return rules.report(why) if asked else b""


async def _taken(tools: Tools, guest: Guest, view: Lent, body: BinaryIO, size: int, head: str) -> str:
    """Why the push is not taken; empty when it is."""
    try:
        if size > tools.settings.max_upload_bytes:
            raise TooLarge(f"the push is larger than {tools.settings.max_upload_bytes} bytes")
        if head == view.heads.get(view.ref):
            return ""
        async with tools.imports:
            bundle = await view.take(body, size, head)
        artifact = await _stored(tools, guest, bundle, head)
    except (Conflict, Malformed, TooLarge) as problem:
        return problem.message
    if await import_commits(tools, artifact) is not None:
        return ""
    async with tools.database.reading() as session:
        return (await session.get_one(Artifact, artifact.id)).note


async def _stored(tools: Tools, guest: Guest, bundle: Path, head: str) -> Artifact:
    """Keep the push as a bundle that was handed out, unless the attempt has ended meanwhile."""
    attempt_id, most = guest.attempt.attempt_id, MOST_PUSHES * tools.settings.max_upload_bytes
    async with tools.blobs.draft() as draft:
        await asyncio.to_thread(shutil.copyfile, bundle, draft)
        sha256, size = await tools.blobs.keep(draft)
    async with tools.database.transaction() as session:
        _still_open(*await queries.locked_attempt(session, attempt_id))
        if await queries.handed_out(session, attempt_id, pushed=True) + size > most:
            raise AllowanceSpent(f"this attempt has pushed all that it may, {most} bytes")
        return await service.add_artifact(
            session, guest.attempt.sandbox_id, name=queries.PUSHED, sha256=sha256, size=size, head_commit=head
        )


def show(job: dict[str, Any], order: WorkOrder, view: View, workspace: Workspace) -> None:
    """Let a sandbox's job name its origin, and its agent's git show the sandbox's token at that address alone."""
    url = f"{view.api_url}/git/{order.agent_work_order_id}.git"
    token, files = job["api"]["token"], job["agent"]["files"]
    told = f'[http "{url}"]\n\textraHeader = Authorization: Bearer {token}\n[push]\n\tdefault = current\n'
    if workspace == Workspace.WORKTREE:  # its repository is shared with other orders, whose origins are others
        told += f'[includeIf "onbranch:{order.git_branch_name}"]\n\tpath = origin\n'
        fetch = "+refs/heads/*:refs/remotes/origin/*"
        files[".config/git/origin"] = f'[remote "origin"]\n\turl = {url}\n\tfetch = {fetch}\n'
    else:
        job["origin"] = url
    files[".config/git/config"] = told
