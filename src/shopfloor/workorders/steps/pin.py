"""Bring to safety what a stopped sandbox holds beyond what it handed out, before anything of it is removed.

Reports that did not arrive go into the log, commits under refs/shopfloor/pins/, files and the agent's own log into blobs; then one transaction says so.
"""

import asyncio
import functools
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shopfloor.forges.mirrors.keeping import Keeping
from shopfloor.forges.mirrors.salvage import Left as Repository
from shopfloor.forges.mirrors.salvage import Salvaged
from shopfloor.forges.rules import COMMIT
from shopfloor.kit import git, log, trees
from shopfloor.kit.trees import Entry
from shopfloor.sandboxes import queries as sandboxes
from shopfloor.sandboxes.models import SandboxRow
from shopfloor.sandboxes.port import Remains
from shopfloor.workorders import leftovers, queries, service
from shopfloor.workorders.leftovers import FILES, GIT, SPOOL, Ground
from shopfloor.workorders.models import Attempt, Pin, WorkOrder
from shopfloor.workorders.rules import PinKind
from shopfloor.workorders.steps import Tools
from shopfloor.workorders.steps.drain import OFFSET, OUTBOX, Drained, drain

logger = log.get(__name__)

OWN_STATE = frozenset({OFFSET, OUTBOX, b"worker.json", b"messages.jsonl"})
"""What a worker notes for itself, or is in the log."""
MOST_NOTE = 20_000
MOST_ASKED = 50
"""So many files of a spool are held against what was handed out; a worker leaves a handful."""
Part = tuple[str, Path, Iterable[Entry]]


@dataclass
class Case:
    """One sandbox that is about to go."""

    tools: Tools
    sandbox_id: str
    labels: Mapping[str, str]
    reason: str
    row: SandboxRow | None
    attempt: Attempt | None
    order: WorkOrder | None
    pins: list[Pin] = field(default_factory=list)

    def found(self, kind: PinKind, content: str = "", *, notes: Iterable[str] = (), **columns: Any) -> None:
        """Something is to be kept."""
        row = self.row
        self.pins.append(
            Pin(
                sandbox_id=self.sandbox_id,
                work_order_id=self.order.agent_work_order_id if self.order else row.work_order_id if row else None,
                attempt_id=self.attempt.attempt_id if self.attempt else None,
                kind=kind,
                content=content,
                reason=self.reason[:2000],
                note="\n".join(notes)[:MOST_NOTE],
                **{"refs": [], "facts": {}, "size": 0, **columns},
            )
        )

    async def store(self, kind: PinKind, parts: list[Part], notes: Iterable[str], facts: dict[str, Any]) -> None:
        """Keep files as one archive."""
        blobs, told = self.tools.blobs, {"sandbox_id": self.sandbox_id, **facts}
        async with blobs.draft() as place:
            unread = await asyncio.to_thread(leftovers.pack, place, parts, told)
            sha256, size = await blobs.keep(place)
        counts = {below: sum(1 for entry in entries if entry.kind != "folder") for below, _, entries in parts}
        few = {key: value for key, value in facts.items() if isinstance(value, str)}
        listed = {"gone": len(facts.get("gone", ())), **counts, **few}
        self.found(kind, sha256, size=size, notes=[*notes, *unread], facts=listed)


async def pin(tools: Tools, sandbox_id: str, sandbox_type: str, labels: Mapping[str, str], reason: str) -> None:
    """See `sandboxes.service.Keep`: everything durable, then written down. What only a check left is nobody's work."""
    if labels.get("purpose") == "check":
        return
    async with tools.database.reading() as session:
        row = await sandboxes.find(session, sandbox_id)
        attempt = await queries.find_attempt(session, sandbox_id)
        order = await queries.get(session, attempt.work_order_id) if attempt else None
    case = Case(tools, sandbox_id, labels, reason, row, attempt, order)
    if row and row.host_id != tools.sandboxes.host_id:
        if row.started_at:
            case.found(PinKind.NOTE, notes=[_elsewhere(row.host_id)])
    else:
        await _spool(case)
        adapter = tools.sandboxes.adapter(sandbox_type)
        if remains := adapter.remains(sandbox_id):
            made = list(case.pins)
            await _workspace(case, remains)
            if adapter.remains(sandbox_id) is None:  # another process was faster, and what we saw was going already
                case.pins = made
    if case.pins:
        async with tools.database.transaction() as session:
            await service.record_pins(session, case.pins)


def _elsewhere(host_id: str) -> str:
    return (
        f"its host {host_id} cannot be reached: what was not handed out lies there, and is pinned when a server runs there again. "
        "If that host is lost for good, so is this."
    )


async def _spool(case: Case) -> None:
    """The reports that did not arrive, and the agent's own log."""
    spool = case.tools.settings.data_dir / "spools" / case.sandbox_id
    if not await asyncio.to_thread(spool.is_dir):
        return
    drained = await drain(case.tools, spool, case.sandbox_id, case.attempt) if case.row else Drained(left=["all of it"])
    found = await asyncio.to_thread(trees.survey, spool)
    known = OWN_STATE - {OUTBOX} if drained.left else OWN_STATE
    kept = [entry for entry in found.files() if entry.path not in known and not entry.path.endswith(b".part")]
    asked = [entry for entry in kept if entry.size][:MOST_ASKED]
    same = {entry.path for entry in asked if await _uploaded(case, spool, entry)}
    kept = [entry for entry in kept if entry.size and entry.path not in same]
    if not kept:
        return
    left = leftovers.within(leftovers.Left(store=kept), case.tools.settings.retention.pin_bytes)
    notes = [*(f"not taken into the log: {why}" for why in drained.left[:50]), *left.out, *found.told()]
    await case.store(PinKind.SPOOL, [(SPOOL, spool, left.store)], notes, {"attempt_id": _attempt_id(case)})


def _attempt_id(case: Case) -> str:
    return case.attempt.attempt_id if case.attempt else ""


async def _uploaded(case: Case, spool: Path, entry: Entry) -> bool:
    """Whether these very bytes were handed out."""
    if case.attempt is None:
        return False
    digest = await asyncio.to_thread(_sha256, spool, entry)
    async with case.tools.database.reading() as session:
        return await queries.same_artifact(session, case.attempt.attempt_id, None, digest)


def _sha256(root: Path, entry: Entry) -> str:
    digest = hashlib.sha256()
    try:
        with trees.opened(root, entry.path) as file:
            while chunk := file.read(trees.CHUNK):
                digest.update(chunk)
    except OSError:
        return ""
    return digest.hexdigest()


async def _workspace(case: Case, remains: Remains) -> None:
    """Commits, and what no commit holds."""
    ground, salvaged = await _ground(case, remains)
    raw = salvaged is None or bool(salvaged.missed)
    left, parts = await asyncio.to_thread(_compare, case, remains, ground, raw)
    if salvaged and salvaged.heads:
        commits = sorted(set(salvaged.heads.values()))
        content = hashlib.sha256("\n".join(commits).encode()).hexdigest()
        told = {"tip": ground.tip, "base": ground.base, "heads": salvaged.heads}
        notes = [f"{name}: {why}" for name, why in salvaged.missed.items()]
        case.found(PinKind.COMMITS, content, notes=notes, refs=salvaged.refs, facts=told)
    missed = [f"{name}: {why}; its raw objects are kept" for name, why in (salvaged.missed if salvaged else {}).items()]
    notes = [*missed, *left.out]
    if any(entries for _, _, entries in parts) or left.gone or left.back:
        facts: dict[str, Any] = {
            "tip": ground.tip,
            "base": ground.base,
            "gone": left.gone,
            "back": left.back,
            "out": notes,
        }
        await case.store(PinKind.FILES, parts, notes, {**facts, "attempt_id": _attempt_id(case)})
    elif notes:
        case.found(PinKind.NOTE, notes=notes)


async def _ground(case: Case, remains: Remains) -> tuple[Ground, Salvaged | None]:
    """What to compare with; and what became of the commits, None where there is no repository to keep them in."""
    base = (case.order.base_commit if case.order else None) or case.labels.get("base_commit", "")
    if case.order is None or not COMMIT.fullmatch(base):
        return Ground(), None
    keeping = case.tools.repositories.keeping(case.order.repository_url)
    if not keeping.holds_any():
        return Ground(), None
    try:
        return await _found(case, remains, keeping, case.order, base)
    except git.GitFailed:
        if await keeping.has(base):
            raise
        return Ground(), None


async def _found(
    case: Case, remains: Remains, keeping: Keeping, order: WorkOrder, base: str
) -> tuple[Ground, Salvaged | None]:
    """Rescue the commits; meanwhile list what the work tree is likely to stand on."""
    async with case.tools.database.reading() as session:
        have = await queries.imported_heads(session, order.agent_work_order_id)
    left = Repository(remains.git, remains.common, remains.shared, remains.since, branch=order.git_branch_name or "")
    guess = order.head_commit if order.head_commit in have else base
    salvaged, ground = await asyncio.gather(
        keeping.salvage(left, order_id=order.agent_work_order_id, sandbox_id=case.sandbox_id, base=base, have=have),
        _listed(keeping, guess or base, base),
    )
    tip = salvaged.tip or base
    if ground.tip == tip:
        return ground, salvaged
    try:
        return await _listed(keeping, tip, base), salvaged
    except (git.GitOutputTooLarge, git.GitTimedOut):  # a few trees can name more files than there are anywhere
        salvaged.missed[tip] = "has more files than can be listed; what differs from the base is kept"
        return await _listed(keeping, base, base), salvaged


async def _listed(keeping: Keeping, tip: str, base: str) -> Ground:
    files = await keeping.listing(
        tip
    )  # first: comparing takes memory for each file, and this says whether there are too many
    return Ground(tip, base, files, await keeping.other(tip, base))


def _compare(case: Case, remains: Remains, ground: Ground, raw: bool) -> tuple[leftovers.Left, list[Part]]:
    """What of the work tree is to be kept, and the repository as it lies there if its commits could not be. Blocks."""
    retention = case.tools.settings.retention
    leave = functools.partial(_left_out, frozenset(map(str.encode, retention.leave)), ground)
    found = trees.survey(remains.files, skip=leftovers.FOLDER_OF_GIT, leave=leave)
    left = leftovers.compare(found, ground, layered=remains.layered)
    inner = trees.survey(remains.common) if raw and not remains.shared else trees.Survey(remains.common)
    objects = [entry for entry in inner.files() if entry.mtime >= (remains.since - 1) * 10**9]
    room = leftovers.within(leftovers.Left(store=objects), retention.pin_bytes)
    leftovers.within(left, max(0, retention.pin_bytes - room.size))
    left.out += [f"{leftovers.FOLDER_OF_GIT.decode()}/{note}" for note in [*room.out, *inner.told()]]
    return left, [(FILES, remains.files, left.store), (GIT, remains.common, room.store)]


def _left_out(names: frozenset[bytes], ground: Ground, path: bytes) -> bool:
    """Whether policy leaves a folder out: by its name, unless the repository has files there."""
    return path.rpartition(b"/")[2] in names and path not in ground.folders
