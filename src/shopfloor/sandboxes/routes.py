"""The HTTP door of sandboxes (LIF-02…04, EVT-10)."""

from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import Field

from shopfloor.auth.guard import SANDBOX_ID, person
from shopfloor.kit import ids
from shopfloor.kit.db import db_time
from shopfloor.kit.errors import Conflict
from shopfloor.kit.http import Body, Schema, Timestamp
from shopfloor.sandboxes import queries
from shopfloor.sandboxes.models import SandboxRow
from shopfloor.sandboxes.port import SandboxSpec
from shopfloor.sandboxes.rules import LIVE, SandboxState, missed, verdict
from shopfloor.sandboxes.service import Sandboxes

router = APIRouter(prefix="/api/v1", tags=["sandboxes"], dependencies=[Depends(person)])
SandboxId = Annotated[str, Path(pattern=rf"^{SANDBOX_ID}$")]


class SandboxBusy(Conflict):
    """A work order runs in this sandbox."""

    hint = "Cancel the work order, or repeat with force=true: its attempt then counts as lost."


class SandboxElsewhere(Conflict):
    """The sandbox runs on another host."""

    hint = "Ask the API of that host, or cancel its work order from anywhere."


class Sandbox(Schema):
    """A sandbox."""

    sandbox_id: str
    sandbox_type: str
    state: SandboxState
    host_id: str
    work_order_id: str | None
    attempt_id: str | None
    task_id: str | None
    agent_id: str | None
    missed_heartbeats: int
    reason: str
    exit_code: int | None
    capabilities: dict[str, Any]
    created_at: Timestamp
    started_at: Timestamp | None
    ended_at: Timestamp | None


class SandboxList(Schema):
    """A page of sandboxes."""

    sandboxes: list[Sandbox]
    total_count: int
    has_more: bool


class SpawnRequest(Body):
    """An empty sandbox for manual use; work orders make their own."""

    sandbox_type: str | None = None
    argv: list[Annotated[str, Field(max_length=4096)]] = Field(
        default_factory=lambda: ["sleep", "3600"], min_length=1, max_length=100
    )
    task_id: str | None = Field(None, max_length=255)
    lease_seconds: float = Field(900, gt=0, le=86400)
    allow_no_isolation: bool = False


class Capacity(Schema):
    """Running against the maximum (LIF-04)."""

    running: int
    maximum: int
    available: int
    host_id: str


class Health(Schema):
    """Whether sandboxes can run here."""

    status: str
    live: int
    silent: list[str]
    sandbox_types: list[str]


class SandboxTask(Schema):
    """What a sandbox works on."""

    sandbox_id: str
    task_id: str | None
    work_order_id: str | None
    attempt_id: str | None


class Explanation(Schema):
    """Why a sandbox is in its state."""

    subject: str
    status: str
    since: Timestamp | None
    reason: str
    evidence: list[dict[str, Any]]
    what_would_change_it: list[str]


def sandboxes(request: Request) -> Sandboxes:
    """The sandboxes of this host."""
    found: Sandboxes = request.app.state.sandboxes
    return found


House = Annotated[Sandboxes, Depends(sandboxes)]


@router.get("/sandboxes")
async def list_sandboxes(
    house: House,
    state: SandboxState | None = None,
    work_order_id: Annotated[str | None, Query(max_length=40)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    offset: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
) -> SandboxList:
    """Sandboxes, newest first."""
    async with house.database.reading() as session:
        rows, total = await queries.listing(
            session, state=state, work_order_id=work_order_id, limit=limit, offset=offset
        )
    found = [Sandbox.model_validate(row) for row in rows]
    return SandboxList(sandboxes=found, total_count=total, has_more=offset + len(found) < total)


@router.get("/sandboxes/capacity")
async def capacity(house: House) -> Capacity:
    """How many sandboxes run and may run."""
    async with house.database.reading() as session:
        running = await queries.live_count(session, house.host_id)
    maximum = house.settings.max_sandboxes
    return Capacity(running=running, maximum=maximum, available=max(0, maximum - running), host_id=house.host_id)


@router.get("/sandboxes/health")
async def health(house: House) -> Health:
    """Whether every live sandbox has been heard of."""
    async with house.database.reading() as session:
        rows, _ = await queries.listing(session, state=SandboxState.RUNNING, work_order_id=None, limit=500, offset=0)
        live = await queries.live_count(session, house.host_id)
    silent = [row.sandbox_id for row in rows if row.missed_heartbeats]
    return Health(status="degraded" if silent else "healthy", live=live, silent=silent, sandbox_types=house.names())


@router.post("/sandboxes", status_code=201)
async def spawn_sandbox(body: SpawnRequest, house: House) -> Sandbox:
    """Start an empty sandbox without network; it ends with its program, its lease or a DELETE."""
    sandbox_type = body.sandbox_type or house.settings.default_sandbox
    house.adapter(sandbox_type)
    sandbox_id = ids.new(sandbox_type.replace("_", "-"))
    async with house.database.transaction() as session:
        await house.reserve(session, sandbox_id, sandbox_type, task_id=body.task_id)
        await house.begin(session, sandbox_id)
    spec = SandboxSpec(
        sandbox_id=sandbox_id,
        labels={"owner": "manual"},
        checkout=None,
        argv=tuple(body.argv),
        env={},
        lease_seconds=body.lease_seconds,
        allow_no_isolation=body.allow_no_isolation,
    )
    try:
        await house.start(sandbox_type, spec)
    except Exception as error:
        await house.move(sandbox_id, SandboxState.FAILED, reason=str(error))
        raise
    capabilities = await house.adapter(sandbox_type).capabilities()
    async with house.database.transaction() as session:
        await house.started(session, sandbox_id, capabilities)
    return await _one(house, sandbox_id)


@router.get("/sandboxes/{sandbox_id}")
async def get_sandbox(sandbox_id: SandboxId, house: House) -> Sandbox:
    """One sandbox."""
    return await _one(house, sandbox_id)


@router.delete("/sandboxes/{sandbox_id}")
async def delete_sandbox(
    sandbox_id: SandboxId,
    house: House,
    force: bool = False,
    grace_seconds: Annotated[float, Query(ge=0, le=60)] = 10,
) -> Sandbox:
    """Stop a sandbox gracefully, for so many seconds (0: kill it), then remove it; `force` also where a work order runs."""
    async with house.database.reading() as session:
        row = await queries.get(session, sandbox_id)
    if row.work_order_id and row.state in LIVE and not force:
        raise SandboxBusy(f"work order {row.work_order_id} runs in sandbox {sandbox_id}")
    if row.state in LIVE and row.host_id != house.host_id:
        raise SandboxElsewhere(f"sandbox {sandbox_id} runs on {row.host_id}, this is {house.host_id}")
    await house.terminate(sandbox_id, reason="deleted by a person", grace_seconds=grace_seconds)
    return await _one(house, sandbox_id)


@router.get("/sandboxes/{sandbox_id}/task")
async def sandbox_task(sandbox_id: SandboxId, house: House) -> SandboxTask:
    """What the sandbox works on."""
    async with house.database.reading() as session:
        return SandboxTask.model_validate(_fields(await queries.get(session, sandbox_id)))


@router.get("/sandboxes/{sandbox_id}/explain")
async def explain_sandbox(sandbox_id: SandboxId, house: House) -> Explanation:
    """Why the sandbox is in its state, since when, and what would change it."""
    async with house.database.reading() as session:
        row = await queries.get(session, sandbox_id)
        facts = await queries.facts(session, sandbox_id)
        heard = await queries.last_heard(session, sandbox_id)
        here = await session.scalar(sa.select(db_time()))
    here_too = row.host_id == house.host_id
    found = await house.info(row) if row.state in LIVE and here_too else None
    interval = house.settings.heartbeat_seconds
    silent = (here - (heard or row.started_at or row.created_at)).total_seconds() if here else 0.0
    outlook: list[str] = []
    if row.state == SandboxState.RUNNING:
        rung = verdict(missed(silent, interval))
        outlook = [
            f"last heard {silent:.0f} s ago: {rung}; restart after {4 * interval:.0f} s of silence",
            f"the operating system says: {found.life if found else 'not there'}"
            if here_too
            else f"it runs on {row.host_id}; only a server there can look at it",
            "its program's end, its lease's end, DELETE",
        ]
    since = next((f["at"] for f in facts if f["event_type"] == "sandbox.state_changed"), row.created_at)
    return Explanation(
        subject=sandbox_id,
        status=row.state,
        since=since,
        reason=row.reason,
        evidence=[{**fact, "at": fact["at"].isoformat()} for fact in facts],
        what_would_change_it=outlook,
    )


async def _one(house: Sandboxes, sandbox_id: str) -> Sandbox:
    async with house.database.reading() as session:
        return Sandbox.model_validate(await queries.get(session, sandbox_id))


def _fields(row: SandboxRow) -> dict[str, str | None]:
    return {name: getattr(row, name) for name in SandboxTask.model_fields}
