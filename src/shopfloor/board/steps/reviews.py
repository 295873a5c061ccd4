"""Criteria that an agent judges: in testing, one is asked for each, and what it answers is evidence on the head it looked at."""

import orjson

from shopfloor.board import flow_queries, queries
from shopfloor.board.models import Ticket
from shopfloor.board.rules import Column
from shopfloor.board.rules.flow import judged_again
from shopfloor.board.service import may_cost
from shopfloor.evidence import queries as evidence
from shopfloor.evidence import service as ledger
from shopfloor.evidence.models import Criterion
from shopfloor.evidence.queries import Finding, Standing
from shopfloor.evidence.rules import Stand, Verdict, steered
from shopfloor.evidence.steps import reading
from shopfloor.forges.texts import fenced
from shopfloor.kit import log
from shopfloor.kit.errors import Problem
from shopfloor.projects.models import Project
from shopfloor.workorders import queries as orders
from shopfloor.workorders import service as workorders
from shopfloor.workorders.models import WorkOrder
from shopfloor.workorders.schemas import CreateAgentWorkOrderRequest
from shopfloor.workorders.steps import Tools
from shopfloor.workorders.steps.ask import ANSWER_FILE, HOW, NoAnswer, answer_of, ask

logger = log.get(__name__)

UNKNOWN = frozenset({Stand.MISSING, Stand.STALE})


async def review(tools: Tools, ticket_id: str) -> None:
    """Take in what reviewers answered, and ask those that are wanted. Idempotent."""
    await _take(tools, ticket_id)
    async with tools.database.reading() as session:
        ticket = await queries.get(session, ticket_id)
        project = await session.get_one(Project, ticket.project_id)
        if ticket.status != Column.TESTING or not (project.autonomy and may_cost(ticket)) or ticket.is_blocked:
            return
        standings = (await evidence.standings(session, {ticket_id: ticket.head_commit}))[ticket_id]
        errors = await flow_queries.errors(session, ticket)
    for one in standings:
        check, before = one.criterion.check or {}, errors.get(one.criterion.criterion_id, 0)
        if check.get("kind") == "review" and check.get("by") == "agent" and _wanted(one, before, ticket):
            await _judge(tools, project, ticket, one.criterion, before)


def _wanted(one: Standing, errors: int, ticket: Ticket) -> bool:
    if one.verdict == Stand.ERROR and one.evidence:
        return judged_again(errors, one.evidence.created_at, ticket.unblocked_at)
    return one.verdict in UNKNOWN


async def _judge(tools: Tools, project: Project, ticket: Ticket, criterion: Criterion, before: int) -> None:
    """Have it judged; `before`: how often it was asked in vain."""
    try:
        if why := await _refusal(tools, project, ticket):
            async with tools.database.transaction() as session:
                await ledger.record(
                    session,
                    criterion_id=criterion.criterion_id,
                    commit=ticket.head_commit or "",
                    check_hash=criterion.check_hash,
                    finding=Finding(Verdict.FAILED, why),
                    said_by="check",
                )
        else:
            await _ask(tools, project, ticket, criterion, before)
    except Problem as problem:
        logger.warning("review_not_asked", ticket_id=ticket.ticket_id, code=problem.code, reason=problem.message)


async def _refusal(tools: Tools, project: Project, ticket: Ticket) -> str:
    """Why nobody is asked: the work speaks to its judge before we do. Empty when it does not."""
    base, head = ticket.base_commit or "", ticket.head_commit or ""
    place = await reading.at_hand(tools.repositories, project.repository_url, base, head)
    found = steered(await reading.touched(place, base, head), f"/{ANSWER_FILE}")
    if not found:
        return ""
    named = ", ".join(found[:10])
    return f"what an agent that judges it would be told by was touched: {named}; a person may look at this commit and say otherwise"


async def _ask(tools: Tools, project: Project, ticket: Ticket, criterion: Criterion, before: int) -> None:
    request = CreateAgentWorkOrderRequest(
        repository_url=project.repository_url,
        workflow_type="build",
        agent=(criterion.check or {}).get("agent") or project.agent,
        base_branch=ticket.head_commit,
        initial_prompt=(
            f"Judge whether this holds of the code as it is in this repository:\n{fenced(criterion.text)}\n"
            f"The work is what `git diff {ticket.base_commit}` shows. Do not mend anything.\n{HOW}\n"
            'The answer is one JSON object: {"verdict": "passed" or "failed", "reason": "why, in a sentence or two"}.'
        ),
    )
    question = f"review:{criterion.criterion_id}:{ticket.head_commit}:{criterion.check_hash[:16]}"
    question += f":{before}" if before else ""
    await ask(tools, question, request, ticket_id=ticket.ticket_id, spec_id=ticket.spec_id)


async def _take(tools: Tools, ticket_id: str) -> None:
    async with tools.database.reading() as session:
        ended = [order.agent_work_order_id for order in await orders.answers(session, "review", ticket_id=ticket_id)]
    for order_id in ended:
        async with tools.database.transaction() as session:
            if (order := await workorders.take_answer(session, order_id)) is None:
                continue
            _, criterion_id, commit, asked, *_ = (order.question or "").split(":")
            criterion = await evidence.criterion(session, criterion_id)
            if criterion.retired_at is not None or not criterion.check_hash.startswith(asked):
                continue  # another question by now
            verdict, reason = _verdict(order)
            await ledger.record_review(session, criterion_id, commit, verdict, f"agent:{order_id}", reason)


def _verdict(order: WorkOrder) -> tuple[str, str]:
    """What the reviewer says; anything but a clear word is no judgement."""
    try:
        said = orjson.loads(answer_of(order))
        if isinstance(said, dict) and said.get("verdict") in {"passed", "failed"}:
            return said["verdict"], str(said.get("reason", ""))[:4000]
    except (NoAnswer, orjson.JSONDecodeError) as error:
        return "error", str(error)[:4000]
    return "error", "the reviewer's answer is no verdict"
