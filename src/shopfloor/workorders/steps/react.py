"""What we do about facts from a forge: a label or comment begins an order, a review or failed check continues one, an end cleans up."""

import asyncio

from shopfloor.forges import inbox, texts
from shopfloor.forges import queries as changes
from shopfloor.forges import rules as forge_rules
from shopfloor.forges.models import Delivery
from shopfloor.forges.signals import Kind, Signal
from shopfloor.forges.steps import answers
from shopfloor.forges.steps import merge as merging
from shopfloor.forges.texts import fenced
from shopfloor.kit import log
from shopfloor.kit.errors import Problem, Unavailable
from shopfloor.messages import service as messages
from shopfloor.workorders import queries, service
from shopfloor.workorders.models import WorkOrder
from shopfloor.workorders.rules import AttemptState, OrderStatus
from shopfloor.workorders.schemas import CreateAgentWorkOrderRequest
from shopfloor.workorders.steps import Tools
from shopfloor.workorders.steps.terms import terms

logger = log.get(__name__)

EVERY = 2.0


class AgentDelivering(Unavailable):
    """The agent has finished and its work is being delivered: the fact is answered afterwards."""


async def keep_answering(tools: Tools) -> None:
    """Answer facts as they come, for ever; what a crash left is taken up again."""
    while True:
        await answer_all(tools)
        await reply_all(tools)
        await asyncio.sleep(EVERY)


async def answer_all(tools: Tools) -> int:
    """React to every fact about orders that nobody has reacted to; answers how many. Each is answered once, in one transaction with what is done."""
    async with tools.database.reading() as session:
        rows = await inbox.unanswered(session, queries.told_of_orders())
    return await answers.answer_each(tools.database, rows, lambda row: _answer(tools, row))


async def _answer(tools: Tools, row: Delivery) -> bool:
    signal = inbox.signal_of(row)
    match signal.kind:
        case Kind.CLOSED:
            return await _clean_up(tools, row)
        case Kind.CHECKS_FAILED:
            return await _repair(tools, row, signal)
        case Kind.REVIEWED if signal.verdict == "approved":
            return await _note(tools, row, "approved")
        case Kind.LABELED | Kind.COMMENTED if not signal.on_change:
            return await _begin(tools, row, signal)
    words = answers.review_words(signal, await answers.said(tools.repositories, row, signal))
    return await _continue(tools, row, words, "continued")


async def reply_all(tools: Tools) -> None:
    """Answer every thread of a review with the commit that followed it, once the order has delivered it."""
    async with tools.database.reading() as session:
        rows = await inbox.unreplied(session, queries.told_of_orders())
    await answers.reply_each(tools.database, rows, lambda row: _reply(tools, row))


async def _reply(tools: Tools, row: Delivery) -> str:
    signal = inbox.signal_of(row)
    async with tools.database.reading() as session:
        order = await queries.get(session, row.work_order_id or "")
    if order.status in {OrderStatus.PENDING, OrderStatus.RUNNING}:
        return ""
    if order.status == OrderStatus.COMPLETED and order.head_commit and order.head_commit != signal.head_commit:
        await answers.say_done(tools.repositories, row, signal, order.head_commit)
        return "continued, replied"
    return f"continued, order {order.status}"


async def _note(tools: Tools, row: Delivery, reaction: str) -> bool:
    async with tools.database.transaction() as session:
        return await inbox.answer(session, row.delivery_id, reaction)


async def _begin(tools: Tools, row: Delivery, signal: Signal) -> bool:
    """One order for an issue, unless one is at work on it already."""
    url, number = row.repository_url, signal.number or 0
    settings = tools.repositories.connections.settings(forge_rules.address(url))
    if settings is None:
        return await _note(tools, row, "not connected")
    issue = await tools.repositories.adapter(url).issue(url, number)
    words = [f"Issue #{number}: {texts.title(issue.title)}", fenced(issue.body)]
    if signal.kind == Kind.COMMENTED:
        words.append(f"It was asked for by this comment:\n{fenced(signal.text)}")
    asked = CreateAgentWorkOrderRequest(
        repository_url=url,
        agent=settings.agent,
        workflow_type=settings.workflow_type,
        initial_prompt="\n\n".join(words)[:100_000],
        github_issue_number=number,
    )
    columns = await terms(tools, asked)
    async with tools.database.transaction() as session:
        if await queries.active_for_issue(session, url, number):
            return await inbox.answer(session, row.delivery_id, "already at work")
        if not await inbox.answer(session, row.delivery_id, "began"):
            return False
        order = await service.create(session, **columns, idempotency_key=f"forge:{row.delivery_id}"[:200])
    tools.claimable.set()
    await tell(tools, order, "is waiting for its place")
    return True


async def _continue(tools: Tools, row: Delivery, words: str, reaction: str) -> bool:
    """Say it to the running agent, else let the order go on, on its branch. What a person cancelled stays cancelled."""
    if row.work_order_id is None:
        return await _note(tools, row, "no order of ours")
    async with tools.database.transaction() as session:
        order = await queries.locked(session, row.work_order_id)
        attempt = await queries.current_attempt(session, row.work_order_id)
        if order.status == OrderStatus.CANCELLED:
            return await inbox.answer(session, row.delivery_id, "cancelled by a person")
        if (
            order.status == OrderStatus.RUNNING
            and attempt
            and attempt.state in {AttemptState.DELIVERING, AttemptState.DONE}
        ):
            raise AgentDelivering
        if not await inbox.answer(session, row.delivery_id, reaction):
            return False
        if order.status == OrderStatus.PENDING or (
            order.status == OrderStatus.RUNNING and (not attempt or queries.ended(attempt))
        ):
            order.prompts = [*order.prompts, words]
        elif order.status == OrderStatus.RUNNING and attempt:
            await messages.queue(session, attempt.sandbox_id, words)
        else:
            await service.continue_with(session, order, words, reason=f"a forge asked for more ({reaction})")
    tools.claimable.set()
    return True


async def _repair(tools: Tools, row: Delivery, signal: Signal) -> bool:
    """Try again while the failing commit still is the head, each commit once; then hand it to a person and say so."""
    if row.work_order_id is None:
        return await _note(tools, row, "no order of ours")
    async with tools.database.reading() as session:
        change = await inbox.ours(session, row.repository_url, signal)
        repaired = await inbox.repaired(session, row.work_order_id)
    if change is None or change.head_commit != signal.head_commit:
        return await _note(tools, row, "not the head any more")
    if signal.head_commit in repaired:
        return await _note(tools, row, "repaired already")
    if len(repaired) >= answers.REPAIRS:
        await answers.give_up(tools.repositories, change)
        return await _note(tools, row, "left to a person")
    told = await answers.failures(tools.repositories, row, signal)
    return await _continue(tools, row, answers.failure_words(signal, told), "repaired")


async def _clean_up(tools: Tools, row: Delivery) -> bool:
    """The change has ended on its forge: stop what still works on it, remove the branch that was merged."""
    async with tools.database.reading() as session:
        found, _ = await changes.listing(
            session,
            state=None,
            work_order_id=row.work_order_id or "-",
            repository_url=row.repository_url,
            limit=1,
            offset=0,
        )
    if not found or found[0].state == "open":
        return await _note(tools, row, "still open")
    change = found[0]
    await merging.clear(tools.database, tools.repositories, change)
    async with tools.database.transaction() as session:
        if not await inbox.answer(session, row.delivery_id, f"cleaned up: {change.state}"):
            return False
        order = await queries.locked(session, change.work_order_id)
        if order.status in {OrderStatus.PENDING, OrderStatus.RUNNING}:
            await service.request_cancel(session, order)
    tools.tell(change.work_order_id)
    return True


async def tell(tools: Tools, order: WorkOrder, state: str) -> None:
    """Keep one comment on the issue up to date, for orders that a forge began. A forge that does not answer keeps nobody waiting."""
    if not (order.idempotency_key or "").startswith("forge:") or order.github_issue_number is None:
        return
    sign = texts.marker("progress", order.agent_work_order_id)
    link = f"\n\n{order.github_pull_request_url}" if order.github_pull_request_url else ""
    text = f"Work order `{order.agent_work_order_id}` {texts.tame(state)}.{link}"
    forge = tools.repositories.adapter(order.repository_url)
    try:
        async with asyncio.timeout(15):
            await forge.comment(order.repository_url, order.github_issue_number, text, marker=sign)
    except (Problem, TimeoutError) as error:
        logger.warning("forge_progress_not_told", agent_work_order_id=order.agent_work_order_id, reason=str(error))
