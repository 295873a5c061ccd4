"""The HTTP door of work orders (AWA-01…07) and of what sandboxes hand in."""

import asyncio
import re
from datetime import datetime
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Header, Path, Query, Request
from sqlalchemy.exc import IntegrityError

from shopfloor.agents import rules as agent_rules
from shopfloor.agents import service as agents
from shopfloor.auth.guard import SANDBOX_ID, person, sandbox_or_person
from shopfloor.events.models import EventRow
from shopfloor.forges.mirrors.bundles import CommitNotFound
from shopfloor.forges.mirrors.reading import GitProgress as Counted
from shopfloor.gateway import queries as gateway
from shopfloor.kit.clock import iso
from shopfloor.kit.db import Session
from shopfloor.kit.errors import Malformed
from shopfloor.messages import service as messages
from shopfloor.workorders import queries, service
from shopfloor.workorders.models import WorkOrder
from shopfloor.workorders.rules import FINISHED, AttemptState, OrderStatus
from shopfloor.workorders.schemas import (
    AgentWorkOrder,
    AgentWorkOrderList,
    AgentWorkOrderResponse,
    ArtifactResponse,
    CreateAgentWorkOrderRequest,
    Explanation,
    GitProgress,
    LogPage,
    PhaseHistory,
    PromptRequest,
    PromptResponse,
    ResultRequest,
    ResultResponse,
    RetryRequest,
)
from shopfloor.workorders.steps import Tools
from shopfloor.workorders.steps.explain import explain
from shopfloor.workorders.steps.prepare import look_ahead
from shopfloor.workorders.steps.receive import import_commits
from shopfloor.workorders.steps.recover import start_from
from shopfloor.workorders.steps.terms import paying, terms

router = APIRouter(prefix="/api/v1", tags=["work orders"])
Person = Depends(person)
OrderId = Annotated[str, Path(max_length=40, pattern=r"^[A-Za-z0-9._-]+$")]
SandboxId = Annotated[str, Path(pattern=rf"^{SANDBOX_ID}$")]
ARTIFACT_NAME = re.compile(r"^[a-z][a-z0-9._-]{0,99}$")

MOST_UPLOADS = 8
"""What one attempt may hand out in all, in uploads of the largest size."""


def tools(request: Request) -> Tools:
    """The tools of this process."""
    found: Tools = request.app.state.tools
    return found


Tooled = Annotated[Tools, Depends(tools)]


@router.post("/agent-work-orders", status_code=201, dependencies=[Person])
async def create_work_order(
    body: CreateAgentWorkOrderRequest,
    house: Tooled,
    idempotency_key: Annotated[str | None, Header(max_length=200)] = None,
) -> AgentWorkOrderResponse:
    """Accept a piece of work; it starts by itself."""
    columns = await terms(house, body)
    try:
        return await _accepted(house, idempotency_key, columns)
    except IntegrityError:  # the same key at the same moment: by now the other request has made the order
        return await _accepted(house, idempotency_key, columns)


async def _accepted(house: Tools, key: str | None, columns: dict[str, Any]) -> AgentWorkOrderResponse:
    """Store the order, and claim one in the same transaction if this process has an engine with a place."""
    claimer, claimed = house.claimer(), None
    looking = look_ahead(house, columns["repository_url"], columns["base_branch"]) if claimer else None
    async with house.database.transaction() as session:
        if order := await service.repeated(session, key, **columns):
            return await _answer(session, order)
        order = await service.create(session, **columns, idempotency_key=key)
        if claimer:
            claimed = await claimer.claim(session)
            await session.refresh(order)
        answer = await _answer(session, order)
    if claimer and claimed:
        claimer.start(claimed, looking if claimed.order is order else None)
    else:
        house.claimable.set()
    return answer


@router.get("/agent-work-orders", dependencies=[Person])
async def list_work_orders(
    house: Tooled,
    status: OrderStatus | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    offset: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
) -> AgentWorkOrderList:
    """Work orders, newest first."""
    async with house.database.reading() as session:
        rows, total = await queries.listing(session, status=status, limit=limit, offset=offset)
        views = await _views(session, *rows)
    return AgentWorkOrderList(agent_work_orders=views, total_count=total, has_more=offset + len(rows) < total)


@router.get("/agent-work-orders/{order_id}", dependencies=[Person])
async def get_work_order(order_id: OrderId, house: Tooled) -> AgentWorkOrderResponse:
    """One work order, its git numbers as of its newest commit."""
    async with house.database.reading() as session:
        return await _answer(session, await queries.get(session, order_id))


@router.post("/agent-work-orders/{order_id}/prompt", dependencies=[Person])
async def prompt_work_order(order_id: OrderId, body: PromptRequest, house: Tooled) -> PromptResponse:
    """Say something to the order's agent: while it runs it is steered, before it starts it is told at the start."""
    if body.agent_work_order_id not in {None, order_id}:
        raise Malformed("agent_work_order_id differs from the one in the path")
    async with house.database.transaction() as session:
        order = await queries.locked(session, order_id)
        attempt = await queries.current_attempt(session, order_id)
        if order.status in FINISHED or (attempt and attempt.state == AttemptState.DELIVERING):
            raise service.OrderFinished(
                "the agent has finished" if order.status not in FINISHED else f"the order is {order.status}",
                hint="Use retry with a prompt to continue it, or create a new one.",
            )
        if order.status == OrderStatus.PENDING or attempt is None or queries.ended(attempt):
            order.prompts = [*order.prompts, body.prompt_text]
            note, message_id = "kept for the start", None
        else:
            can = agents.capability(agents.profile(house.settings, order.agent))
            agent_rules.check_message(order.agent, can, interrupt=False)
            message = await messages.queue(session, attempt.sandbox_id, body.prompt_text)
            note, message_id = "queued for the running agent", message.id
    return PromptResponse(agent_work_order_id=order_id, prompt_accepted=True, message=note, message_id=message_id)


@router.post("/agent-work-orders/{order_id}/cancel", dependencies=[Person])
async def cancel_work_order(order_id: OrderId, house: Tooled) -> AgentWorkOrderResponse:
    """Cancel: the agent is stopped gracefully, what it committed stays."""
    async with house.database.transaction() as session:
        order = await queries.locked(session, order_id)
        await service.request_cancel(session, order)
        await session.refresh(order)
        answer = await _answer(session, order)
    house.tell(order_id)
    return answer


@router.post("/agent-work-orders/{order_id}/retry", dependencies=[Person])
async def retry_work_order(
    order_id: OrderId, house: Tooled, request: Request, body: RetryRequest | None = None
) -> AgentWorkOrderResponse:
    """Continue a failed or cancelled order from its last commit and conversation, if its ticket lets it."""
    wish = body or RetryRequest()
    profile = agents.profile(house.settings, wish.agent) if wish.agent else None
    if wish.pin is not None:
        async with house.database.transaction() as session:
            order = await queries.get(session, order_id)
            await _check_ticket(session, request, order)
        await start_from(house, order, wish.pin)
    async with house.database.transaction() as session:
        await _check_ticket(session, request, await queries.get(session, order_id))
        order = await queries.locked(session, order_id)
        now = profile or agents.profile(house.settings, order.agent)
        agent_rules.check_model(now.name, agents.capability(now), wish.model)
        if profile and wish.agent != order.agent:
            agents.checked_options(profile, order.agent_options)
            wish.model = wish.model or profile.model
        account = paying(house, profile or agents.profile(house.settings, order.agent))
        await service.retry(session, order, prompt=wish.prompt, agent=wish.agent, model=wish.model, account=account)
        order.budget_usd = wish.budget_usd or order.budget_usd
        await session.flush()
        await session.refresh(order)
        answer = await _answer(session, order)
    house.claimable.set()
    return answer


async def _check_ticket(session: Session, request: Request, order: WorkOrder) -> None:
    """The board, above us, says in `state.ticket_allows` whether an order of a ticket may go on; it locks the ticket, so it is asked first."""
    if order.ticket_id and (asked := getattr(request.app.state, "ticket_allows", None)):
        await asked(session, order.ticket_id, order.agent_work_order_id)


@router.get("/agent-work-orders/{order_id}/git-progress", dependencies=[Person])
async def git_progress(order_id: OrderId, house: Tooled) -> GitProgress:
    """The branch as git sees it now (AWA-05)."""
    async with house.database.reading() as session:
        order = await queries.get(session, order_id)
        bundle = await queries.newest_bundle(session, order_id)
        here = await queries.moment(session)
    head = order.head_commit
    if bundle and not bundle.imported:
        head = await import_commits(house, bundle) or head
    try:
        numbers = await house.repositories.progress(order.repository_url, head, order.base_commit)
    except CommitNotFound:  # its commits lie at another host, which counted them
        counts = ("git_commit_count", "git_files_changed", "git_lines_added", "git_lines_removed")
        numbers = Counted(**{name: getattr(order, name) for name in counts}, latest_commit_sha=head)
    return GitProgress(
        agent_work_order_id=order_id,
        current_phase=order.current_phase or "planning",
        git_commit_count=numbers.git_commit_count,
        git_files_changed=numbers.git_files_changed,
        git_lines_added=numbers.git_lines_added,
        git_lines_removed=numbers.git_lines_removed,
        latest_commit_message=numbers.latest_commit_message,
        latest_commit_sha=numbers.latest_commit_sha,
        snapshot_timestamp=here,
        phase_history=[PhaseHistory.model_validate(entry) for entry in numbers.phase_history],
    )


@router.get("/agent-work-orders/{order_id}/logs", dependencies=[Person])
async def work_order_logs(
    order_id: OrderId,
    house: Tooled,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
) -> LogPage:
    """Everything that happened to an order, oldest first."""
    async with house.database.reading() as session:
        await queries.get(session, order_id)
        rows, total = await queries.timeline(session, order_id, limit=limit, offset=offset)
    return LogPage(
        agent_work_order_id=order_id,
        log_entries=[_entry(row) for row in rows],
        total_count=total,
        has_more=offset + len(rows) < total,
    )


@router.get("/agent-work-orders/{order_id}/explain", dependencies=[Person])
async def explain_work_order(order_id: OrderId, house: Tooled) -> Explanation:
    """Why the order is in its status, since when, and what would change it."""
    return Explanation.model_validate(await explain(house, order_id))


@router.put("/sandboxes/{sandbox_id}/artifacts/{name}", dependencies=[Depends(sandbox_or_person)])
async def put_artifact(
    sandbox_id: SandboxId,
    name: str,
    request: Request,
    house: Tooled,
    x_head_sha: Annotated[str | None, Header(pattern=r"^[0-9a-f]{40,64}$")] = None,
) -> ArtifactResponse:
    """Take in a bundle of commits, a transcript or another file; durable before it is answered."""
    if not ARTIFACT_NAME.match(name):
        raise Malformed("an artifact's name is lower case letters, digits, dots, dashes")
    most = house.settings.max_upload_bytes
    async with house.uploads.setdefault(sandbox_id, asyncio.Lock()):
        async with house.database.reading() as session:
            attempt = await queries.attempt_of_sandbox(session, sandbox_id)
            left = MOST_UPLOADS * most - await queries.handed_out(session, attempt.attempt_id)
        sha256, size = await house.blobs.put(request.stream(), limit=max(0, min(most, left)))
        async with house.database.transaction() as session:
            artifact = await service.add_artifact(
                session, sandbox_id, name=name, sha256=sha256, size=size, head_commit=x_head_sha
            )
    if name in queries.BUNDLES:
        request.app.state.background.start("import_commits", import_commits(house, artifact))
    return ArtifactResponse(name=name, sha256=sha256, size=size)


@router.post("/sandboxes/{sandbox_id}/results", dependencies=[Depends(sandbox_or_person)])
async def submit_result(sandbox_id: SandboxId, body: ResultRequest, house: Tooled) -> ResultResponse:
    """A worker hands in how its attempt ended (WRK-04); a repeated post changes nothing."""
    async with house.database.transaction() as session:
        first = await service.submit_result(session, sandbox_id, body.model_dump())
        attempt = await queries.attempt_of_sandbox(session, sandbox_id)
    house.tell(attempt.work_order_id)
    return ResultResponse(recorded=first)


async def _views(session: Session, *orders: WorkOrder) -> list[AgentWorkOrder]:
    """The orders with what the gateway knows of them: their cost, and whether their account is paused."""
    counted = [order.agent_work_order_id for order in orders if order.account]
    costs = await gateway.costs_of_orders(session, counted) if counted else {}
    pauses = {row.account: row.paused_until for row in await gateway.pauses(session)} if counted else {}
    return [_view(order, costs.get(order.agent_work_order_id), pauses.get(order.account or "")) for order in orders]


def _view(order: WorkOrder, cost: float | None, paused_until: datetime | None) -> AgentWorkOrder:
    derived = {"error_message", "cost_usd", "paused_until"}
    return AgentWorkOrder(
        **{name: getattr(order, name) for name in AgentWorkOrder.model_fields if name not in derived},
        error_message=order.reason if order.status == OrderStatus.FAILED else None,
        cost_usd=order.cost_usd if cost is None else cost,
        paused_until=None if order.status in FINISHED else paused_until,
    )


async def _answer(session: Session, order: WorkOrder) -> AgentWorkOrderResponse:
    (view,) = await _views(session, order)
    return AgentWorkOrderResponse(
        agent_work_order=view, logs_url=f"/api/v1/agent-work-orders/{order.agent_work_order_id}/logs"
    )


def _entry(row: EventRow) -> dict[str, Any]:
    payload = orjson.loads(row.payload)
    payload.pop("raw", None)
    kind = row.event_type
    bad = "failed" in kind or payload.get("after") == "failed" or kind == "agent.retry"
    level = "error" if bad and kind != "agent.retry" else "warning" if bad or "missed" in kind else "info"
    return {
        "timestamp": iso(row.recorded_at),
        "level": level,
        "event": kind,
        "source": row.source,
        "sandbox_id": row.sandbox_id,
        **{key: value for key, value in payload.items() if key not in {"timestamp", "level", "event", "source"}},
    }
