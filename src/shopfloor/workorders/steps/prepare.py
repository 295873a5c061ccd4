"""Make everything ready for an attempt and start it: base commit, golden checkout, job, sandbox."""

import asyncio
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from shopfloor.agents import service as agents
from shopfloor.auth import service as auth
from shopfloor.events import log as events
from shopfloor.events.catalog.sandboxes import AgentRestarted
from shopfloor.forges import rules as branches
from shopfloor.forges.mirrors.mirror import Base
from shopfloor.gateway import service as gateway
from shopfloor.kit import log
from shopfloor.kit.clock import iso, now
from shopfloor.kit.db import Session
from shopfloor.projects import queries as projects
from shopfloor.projects import rules as naming
from shopfloor.sandboxes.port import Adapter, Checkout, Gate, Life, SandboxSpec, View
from shopfloor.workorders import queries, service
from shopfloor.workorders.models import Artifact, Attempt, WorkOrder
from shopfloor.workorders.rules import PHASE_OF_STEP, AttemptState, WorkflowType
from shopfloor.workorders.steps import Brief, Claimed, Tools, gate
from shopfloor.workorders.steps.handover import handed_over, recounted
from shopfloor.workorders.steps.run import TICK_SECONDS, called_off, finish, glance

logger = log.get(__name__)

WORKER = "/opt/shopfloor/worker.pyz"


async def prepare(tools: Tools, attempt_id: str) -> str:
    """Start the attempt's sandbox; `go`, or `stop` when the attempt is over: ended already, cancelled or out of time meanwhile."""
    starting = tools.early.pop(attempt_id, None) or asyncio.ensure_future(_start(tools, attempt_id))
    try:
        while not (await asyncio.wait({starting}, timeout=TICK_SECONDS))[0]:
            async with tools.database.reading() as session:
                end = called_off(await glance(session, attempt_id))
            if end and await finish(tools, attempt_id, *end, unless_result=True):
                return "stop"
        if not await starting:
            return "stop"
    finally:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
    async with tools.database.transaction() as session:
        order, attempt = await queries.locked_attempt(session, attempt_id)
        adapter = tools.sandboxes.adapter(order.sandbox_type)
        await tools.sandboxes.started(session, attempt.sandbox_id, await adapter.capabilities())
        if await service.step_attempt(session, attempt, AttemptState.RUNNING):
            await _announce_restart(session, order, attempt)
    logger.info(
        "workflow_execution_started",
        agent_work_order_id=order.agent_work_order_id,
        workflow_type=order.workflow_type,
        sandbox_id=attempt.sandbox_id,
    )
    return "go"


async def claim(tools: Tools, session: Session, engine_id: str) -> Claimed | None:
    """Take the oldest due order on to its preparation, all in one transaction; None when there is nothing to do or no place."""
    attempt = await service.claim(session, tools.sandboxes, engine_id)
    if attempt is None:
        return None
    await service.step_attempt(session, attempt, AttemptState.PREPARING)
    return Claimed(attempt, await queries.get(session, attempt.work_order_id), await _brief(tools, session, attempt))


def look_ahead(tools: Tools, repository_url: str, base_branch: str | None) -> asyncio.Future[Base]:
    """Begin to ask the origin for the base of an order that will be claimed at once."""
    looking = asyncio.ensure_future(tools.repositories.resolve(repository_url, base_branch))
    looking.add_done_callback(_heard)
    return looking


def start_early(tools: Tools, claimed: Claimed, looking: asyncio.Future[Base] | None) -> asyncio.Future[bool]:
    """Begin to start the sandbox of an attempt just claimed, before its workflow is written down; `prepare` takes over from here."""
    starting = asyncio.ensure_future(_create(tools, claimed, looking))
    starting.add_done_callback(_heard)
    tools.early[claimed.attempt.attempt_id] = starting
    return starting


def _heard(done: asyncio.Future[Any]) -> None:
    """A failure is told where the answer is asked for, not by the event loop."""
    _ = done.cancelled() or done.exception()


async def _start(tools: Tools, attempt_id: str) -> bool:
    """Start the sandbox, or find it running; False when the attempt is over already."""
    async with tools.database.reading() as session:
        attempt = await queries.attempt(session, attempt_id)
        order = await queries.get(session, attempt.work_order_id)
    if queries.ended(attempt):
        return False
    adapter = tools.sandboxes.adapter(order.sandbox_type)
    running = await adapter.get(attempt.sandbox_id)
    if running and running.life == Life.RUNNING:
        if order.base_commit:
            return True
        # started, but the crash came before its base was written down
        await tools.sandboxes.remove(attempt.sandbox_id, order.sandbox_type, reason="made anew after a crash")
    # Only now: the token of a sandbox that runs must stay what it is.
    async with tools.database.transaction() as session:
        brief = await _brief(tools, session, attempt)
    return await _create(tools, Claimed(attempt, order, brief), None)


async def _create(tools: Tools, claimed: Claimed, looking: asyncio.Future[Base] | None) -> bool:
    attempt, order, brief = claimed.attempt, claimed.order, claimed.brief
    if brief.bundle and not tools.blobs.has(brief.bundle.sha256):
        # Handed out at a host that is gone with its folder; a common blobs_dir keeps such work (README).
        logger.warning("bundle_not_found", agent_work_order_id=order.agent_work_order_id, sha256=brief.bundle.sha256)
        brief = replace(brief, bundle=None)
    if not (order.base_commit and order.git_branch_name):
        base = await (looking or tools.repositories.resolve(order.repository_url, order.base_branch))
        order.base_branch, order.base_commit = base.branch, base.commit
        order.git_branch_name = _branch(order, brief)
    spec = await _spec(tools, order, attempt, tools.sandboxes.adapter(order.sandbox_type), brief)
    both = _write_base(tools, order, attempt.sandbox_id), tools.sandboxes.start(order.sandbox_type, spec)
    for failure in await asyncio.gather(*both, return_exceptions=True):  # neither may go on behind a next try
        if failure is not None:
            raise failure
    return True


def _branch(order: WorkOrder, brief: Brief) -> str:
    template = brief.project.branch_template if brief.project else None
    name = naming.branch(
        template or naming.DEFAULT_TEMPLATE,
        type_="feat",
        issue=order.github_issue_number,
        slug=naming.slug(order.initial_prompt),
        order_id=order.agent_work_order_id,
    )
    return branches.our_branch(name)


async def _brief(tools: Tools, session: Session, attempt: Attempt) -> Brief:
    order_id, token = attempt.work_order_id, await auth.issue(session, attempt.sandbox_id, attempt.number)
    order = await queries.get(session, order_id)
    project = await projects.of_repository(session, order.repository_url)
    if order.account:
        await gateway.grant(
            session,
            attempt.sandbox_id,
            attempt_id=attempt.attempt_id,
            work_order_id=order_id,
            task_id=order.task_id,
            ticket_id=order.ticket_id,
            spec_id=order.spec_id,
            account=order.account,
            project_id=project.project_id if project else None,
            order_budget_usd=order.budget_usd,
            project_budget_usd=project.budget_usd if project else None,
        )
    if attempt.number == 1:
        return Brief(token=token, project=project, bundle=None, done=set(), spoken=None)
    bundle = await queries.newest_bundle(session, order_id)
    return Brief(
        token=token,
        project=project,
        bundle=bundle,
        done=await queries.steps_done(session, order_id, bundle),
        spoken=await queries.newest_event(session, order_id, "agent.session", "agent.started"),
        recount=await recounted(tools.settings, session, order_id),
    )


async def _write_base(tools: Tools, order: WorkOrder, sandbox_id: str) -> None:
    """Write down, once, from which commit the order starts and what its branch is called; the sandbox begins to be."""
    async with tools.database.transaction() as session:
        row = await queries.locked(session, order.agent_work_order_id)
        if not (row.base_commit and row.git_branch_name):
            row.base_branch, row.base_commit = order.base_branch, order.base_commit
            row.git_branch_name = order.git_branch_name
            logger.info(
                "git_branch_created", agent_work_order_id=order.agent_work_order_id, branch=order.git_branch_name
            )
        await tools.sandboxes.begin(session, sandbox_id)


async def _spec(tools: Tools, order: WorkOrder, attempt: Attempt, adapter: Adapter, brief: Brief) -> SandboxSpec:
    assert order.base_commit
    assert order.git_branch_name
    url, owner, data = order.repository_url, adapter.owner, tools.settings.data_dir
    golden = await tools.repositories.golden(url, order.base_commit, owner)
    await tools.repositories.pin(url, golden, attempt.sandbox_id)
    profile = agents.profile(tools.settings, order.agent)
    home = _folder(data / "homes" / order.agent_work_order_id, owner)
    spool = _folder(data / "spools" / attempt.sandbox_id, owner)
    inbox = _folder(data / "inboxes" / attempt.sandbox_id, owner)
    allow = frozenset([*profile.allow, *(brief.project.allow if brief.project else [])])
    spec = SandboxSpec(
        sandbox_id=attempt.sandbox_id,
        labels=_labels(order, attempt),
        checkout=Checkout(
            mirror=await tools.repositories.mirror(url),
            golden=golden,
            base_commit=order.base_commit,
            branch=order.git_branch_name,
        ),
        argv=("python3", "-I", "-S", WORKER, "/in/job.json"),
        env={},
        read_only={
            "/in": inbox,
            WORKER: await agents.worker_zipapp(data / "worker"),
            **agents.mounts(profile),
        },
        writable={"/home/agent": home, "/spool": spool},
        gate=Gate(api_socket=data / "door.sock", allow=allow, pipes=profile.pipes),
        lease_seconds=tools.settings.orphan_seconds,
        allow_no_isolation=order.allow_no_isolation,
    )
    view = adapter.view(spec)
    wired = _wired(profile, order, view, brief)
    job = await _job(tools, order, attempt, profile, inbox, brief)
    job["agent"]["files"], job["api"]["url"] = dict(wired.files), view.api_url
    if brief.project and brief.project.git_gate:
        gate.show(job, order, view, (await adapter.capabilities()).workspace)
    _write(inbox / "job.json", orjson.dumps(_translate(job, view)), owner)
    return replace(spec, env=agents.agent_environment(profile, wired))


def _wired(profile: agents.Profile, order: WorkOrder, view: View, brief: Brief) -> agents.Wiring:
    """How the agent reaches its model: at the gateway, the sandbox's token in the place of a key."""
    gateway = f"{view.api_url}/models/{order.account}" if order.account else None
    home = view.path("/home/agent")
    return agents.wired(profile, gateway=gateway, token=brief.token, home=home, model=order.model)


def _labels(order: WorkOrder, attempt: Attempt) -> dict[str, str]:
    return {
        "work_order_id": order.agent_work_order_id,
        "attempt_id": attempt.attempt_id,
        "base_commit": order.base_commit or "",
    }


async def _job(
    tools: Tools, order: WorkOrder, attempt: Attempt, profile: agents.Profile, inbox: Path, brief: Brief
) -> dict[str, Any]:
    bundle, spoken = brief.bundle, brief.spoken
    if bundle:
        owner = tools.sandboxes.adapter(order.sandbox_type).owner
        _hand_in(inbox / "resume.bundle", tools.blobs.path(bundle.sha256), owner)
    session_id = None if brief.recount else order.agent_session_id or (spoken[1].get("session_id") if spoken else None)
    return {
        "protocol": 1,
        "sandbox_id": attempt.sandbox_id,
        "work_order_id": order.agent_work_order_id,
        "attempt_id": attempt.attempt_id,
        "fencing": attempt.number,
        "api": {"url": "http://127.0.0.1:8787", "token": brief.token},
        "heartbeat_seconds": tools.settings.heartbeat_seconds,
        "server_away_seconds": tools.settings.orphan_seconds,
        "workspace": "/workspace",
        "home": "/home/agent",
        "spool": "/spool",
        "branch": order.git_branch_name,
        "base_commit": order.base_commit,
        "resume_bundle": "/in/resume.bundle" if bundle else None,
        "author": {"name": "Shopfloor", "email": "agent@shopfloor.invalid"},
        "agent": agents.job_agent(profile, model=order.model, options=order.agent_options, resume_session=session_id),
        "steps": handed_over(await _steps(tools, order, brief.done, bundle), brief.recount),
    }


async def _steps(tools: Tools, order: WorkOrder, done: set[str], bundle: Artifact | None) -> list[dict[str, Any]]:
    assert order.base_commit
    commands = agents.commands(await tools.repositories.commands(order.repository_url, order.base_commit))
    names = WorkflowType(order.workflow_type).steps
    finished = done & set(names) if bundle else set()
    if order.prompts and finished == set(names):
        finished.discard(names[-1])
    request = "\n\n".join(part for part in (_issue(order), order.initial_prompt, *order.prompts) if part)
    return [
        {
            "name": name,
            "phase": str(PHASE_OF_STEP[name]),
            "prompt": agents.render(commands[name], request, order_id=order.agent_work_order_id),
            "done": name in finished,
        }
        for name in names
    ]


def _issue(order: WorkOrder) -> str:
    return f"This is for issue #{order.github_issue_number}." if order.github_issue_number else ""


def _translate(value: Any, view: View) -> Any:
    """The job with every path as it is called where the worker runs; what is for the agent's eyes stays as it is."""
    if isinstance(value, str):
        return view.path(value)
    if isinstance(value, dict):
        return {key: item if key in {"prompt", "script"} else _translate(item, view) for key, item in value.items()}
    if isinstance(value, list):
        return [_translate(item, view) for item in value]
    return value


async def _announce_restart(session: Session, order: WorkOrder, attempt: Attempt) -> None:
    """Tell that this sandbox replaces a dead one (FLT-02, FLT-03)."""
    before = [a for a in await queries.attempts(session, attempt.work_order_id) if a.number == attempt.number - 1]
    if not before or before[0].state != AttemptState.LOST:
        return
    fact = AgentRestarted(
        sandbox_id=attempt.sandbox_id,
        agent_id=order.agent,
        reason=before[0].reason,
        graceful_attempt_ms=before[0].stop_ms or 0,
        forced=bool(before[0].stop_forced),
        spawned_sandbox_id=attempt.sandbox_id,
        old_sandbox_id=before[0].sandbox_id,
        occurred_at=iso(now()) or "",
    )
    await events.append(session, fact, work_order_id=attempt.work_order_id)


def _folder(path: Path, owner: tuple[int, int] | None) -> Path:
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if owner:
        os.chown(path, *owner)
    return path


def _write(path: Path, data: bytes, owner: tuple[int, int] | None) -> None:
    part = path.with_suffix(".part")
    part.write_bytes(data)
    part.chmod(0o600)
    if owner:
        os.chown(part, *owner)
    part.rename(path)


def _hand_in(path: Path, blob: Path, owner: tuple[int, int] | None) -> None:
    shutil.copyfile(blob, path)
    if owner:
        os.chown(path, *owner)
