"""Give back what was pinned: as a bundle that holds it as a branch, or as the start of a retry."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from shopfloor.forges.mirrors.keeping import NothingKept, Work, Wrote
from shopfloor.kit.errors import Conflict
from shopfloor.sandboxes import queries as sandboxes
from shopfloor.workorders import queries, service
from shopfloor.workorders.leftovers import Archive, path_of
from shopfloor.workorders.models import Artifact, Pin, WorkOrder
from shopfloor.workorders.rules import OrderStatus, PinKind
from shopfloor.workorders.service import OrderFinished
from shopfloor.workorders.steps import Tools
from shopfloor.workorders.steps.receive import import_commits

BUNDLE = "checkpoint.bundle"


class PinGone(Conflict):
    """Policy has let this go."""

    status = 410
    hint = "[retention] in shopfloor.toml says how long such things are kept."


class KeptElsewhere(Conflict):
    """This is kept on another host."""

    hint = "Ask a server that runs there."


class NotRestorable(Conflict):
    """What was pinned cannot be continued from."""

    hint = "Restore it into a folder and look at it there."


@dataclass(frozen=True)
class Kept:
    """All that is kept of one sandbox's work tree."""

    order: WorkOrder
    commits: Pin | None
    files: Pin | None

    @property
    def tip(self) -> str:
        """The commit that the work tree stood on."""
        return next((str(pin.facts.get("tip") or "") for pin in (self.files, self.commits) if pin), "")


async def kept(tools: Tools, pin: Pin) -> Kept:
    """What is kept of the sandbox that a pin is of; raises PinGone, NothingKept."""
    if pin.gone_at is not None:
        raise PinGone(f"pin {pin.id} was let go at {pin.gone_at:%Y-%m-%d %H:%M} UTC")
    async with tools.database.reading() as session:
        all_of_it = await queries.pins_of_sandbox(session, pin.sandbox_id)
        order = await queries.get(session, pin.work_order_id) if pin.work_order_id else None
        row = await sandboxes.find(session, pin.sandbox_id)
    if row and row.host_id != tools.sandboxes.host_id:
        raise KeptElsewhere(
            f"the commits of {pin.sandbox_id} are kept on {row.host_id}, this is {tools.sandboxes.host_id}"
        )
    newest = {one.kind: one for one in reversed(all_of_it)} | {pin.kind: pin}
    found = newest.get(PinKind.COMMITS), newest.get(PinKind.FILES)
    if order is None or not any(found):
        raise NothingKept(f"pin {pin.id} holds no commits and no files of a repository")
    case = Kept(order, *found)
    if not case.tip or not order.base_commit:
        raise NothingKept(f"the repository of pin {pin.id} is not known")
    return case


@contextlib.asynccontextmanager
async def bundle(tools: Tools, case: Kept, branch: str, *, alone: bool = False) -> AsyncIterator[tuple[Path, str]]:
    """A bundle with the branch; `alone`: without the other commits that were kept. Answers the file and the branch's head."""
    assert case.order.base_commit
    work = await asyncio.to_thread(_work, tools, case) if case.files else None
    heads = [] if alone or case.commits is None else list(case.commits.facts.get("heads", {}).values())
    keeping = tools.repositories.keeping(case.order.repository_url)
    async with keeping.bundle(branch=branch, base=case.order.base_commit, tip=case.tip, heads=heads, work=work) as made:
        yield made


def _work(tools: Tools, case: Kept) -> Work | None:
    """What was not committed; None when it is nothing that a commit can hold. Blocks."""
    assert case.files
    archive = Archive(tools.blobs.path(case.files.content))
    facts = archive.facts()
    back = facts.get("back") or []
    return Work(
        wrote=_wrote(archive),
        gone=[path_of(path) for path in facts.get("gone", [])],
        back={
            path_of(path): (str(blob[0]), str(blob[1]))
            for path, blob in (back.items() if isinstance(back, dict) else back)
        },
        message=f"Recovered: what {case.files.sandbox_id} had not committed\n\nShopfloor-Order: {case.order.agent_work_order_id}\n",
        seconds=int(case.files.created_at.timestamp()),
    )


def _wrote(archive: Archive) -> Iterator[Wrote]:
    for member in archive.members():
        yield Wrote(member.path, member.mode, member.size, member.content)


async def start_from(tools: Tools, order: WorkOrder, pin_id: int) -> None:
    """Let the order's next attempt start from what was pinned: it becomes the newest bundle that was handed out, after the same checks."""
    if order.status not in {OrderStatus.FAILED, OrderStatus.CANCELLED}:
        raise OrderFinished(f"the order is {order.status}", hint="Only a failed or cancelled order can be retried.")
    async with tools.database.reading() as session:
        pin = await queries.pin(session, order.agent_work_order_id, pin_id)
    if pin.attempt_id is None or not order.git_branch_name:
        raise NotRestorable(f"pin {pin_id} belongs to no attempt")
    case = await kept(tools, pin)
    async with bundle(tools, case, order.git_branch_name, alone=True) as (place, head), tools.blobs.draft() as draft:
        await asyncio.to_thread(shutil.copyfile, place, draft)
        sha256, size = await tools.blobs.keep(draft)
    async with tools.database.transaction() as session:
        await queries.locked(session, order.agent_work_order_id)
        artifact = Artifact(
            work_order_id=order.agent_work_order_id,
            attempt_id=pin.attempt_id,
            name=BUNDLE,
            sha256=sha256,
            size=size,
            head_commit=head,
            imported=False,
            note="",
        )
        await service.add_restored(session, artifact)
    if await import_commits(tools, artifact) is None:
        async with tools.database.reading() as session:
            why = (await session.get_one(Artifact, artifact.id)).note
        raise NotRestorable(f"what was pinned is refused as a start: {why}")
