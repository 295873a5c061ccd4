"""Deliver a finished attempt: its bundle into the mirror, the policy, the push, the change to review."""

from shopfloor.forges.mirrors import reading
from shopfloor.forges.mirrors.reading import GitProgress
from shopfloor.forges.models import Change
from shopfloor.gateway import queries as gateway
from shopfloor.gateway.rules import LIMITED
from shopfloor.kit import log
from shopfloor.kit.errors import Problem, Unavailable
from shopfloor.sandboxes.rules import SandboxState
from shopfloor.workorders import queries, service
from shopfloor.workorders.models import Artifact, Attempt, WorkOrder
from shopfloor.workorders.rules import AttemptState
from shopfloor.workorders.steps import Tools
from shopfloor.workorders.steps.ask import ANSWER_FILE, MOST_ANSWER
from shopfloor.workorders.steps.receive import import_commits
from shopfloor.workorders.steps.reflect import reflect
from shopfloor.workorders.steps.run import finish

logger = log.get(__name__)

LOOK_SECONDS = 10.0
"""How long an origin may take to say what it has."""


class NothingDelivered(Problem):
    """The work could not be delivered."""

    status = 409


class NeedsReview(Problem):
    """The branch is pushed, but could not be offered for review."""

    status = 409
    hint = "Nothing is lost: offer the branch by hand, or mend the cause and retry."


class OfferDelayed(NeedsReview, Unavailable):
    """The branch is pushed, and its forge cannot be asked to review it right now: it is tried again for a while."""

    code = "needs_review"


async def deliver(tools: Tools, attempt_id: str) -> None:
    """Bring the attempt to its end: delivered, or failed with the reason. Idempotent."""
    async with tools.database.transaction() as session:
        order, attempt = await queries.locked_attempt(session, attempt_id)
        await service.step_attempt(session, attempt, AttemptState.DELIVERING)
        await reflect(session, order)
    if queries.ended(attempt):
        return
    result = attempt.result or {}
    await tools.sandboxes.move(attempt.sandbox_id, SandboxState.COMPLETING)
    if result.get("status") != "completed":
        stopped = order.cancel_requested_at is not None or result.get("status") == "interrupted"
        state = AttemptState.CANCELLED if stopped else AttemptState.FAILED
        reason = result.get("reason") or result.get("summary") or "the agent gave no reason"
        async with tools.database.reading() as session:
            refused, why = await gateway.refusal(session, attempt_id)
        if refused == LIMITED and not stopped:
            await tools.leave(attempt.sandbox_id, SandboxState.FAILED, reason=why)
            await finish(tools, attempt_id, AttemptState.PAUSED, why)
            return
        reason = why or reason
        await tools.leave(attempt.sandbox_id, SandboxState.FAILED, reason=reason)
        await finish(tools, attempt_id, state, f"{result.get('status')}: {reason}")
        return
    try:
        head = await _head(tools, order, attempt_id, result.get("head_sha"))
        reason = await (_answer if order.question else _push)(tools, order, head)
    except Unavailable:
        raise
    except Problem as problem:
        await tools.leave(attempt.sandbox_id, SandboxState.FAILED, reason=problem.message)
        await finish(
            tools, attempt_id, AttemptState.FAILED, f"{problem.code}: {problem.message} {problem.hint}".strip()
        )
        return
    await tools.leave(attempt.sandbox_id, SandboxState.COMPLETED)
    await finish(tools, attempt_id, AttemptState.DONE, reason)


async def _head(tools: Tools, order: WorkOrder, attempt_id: str, promised: str | None) -> str:
    """The commit to deliver: the one that the result names, or what the agent itself pushed beyond it."""
    async with tools.database.reading() as session:
        push = await queries.newest_push(session, attempt_id)
    pushed = await import_commits(tools, push) if push else None
    if pushed is None:
        return await _promised(tools, order, promised)
    if promised is None:
        return pushed
    head, url = await _promised(tools, order, promised), order.repository_url
    if await tools.repositories.contains(url, head, pushed):
        return head
    merged = await tools.repositories.mergeable(url, pushed, head)
    if merged.clean and not merged.adds:
        return pushed
    raise NothingDelivered(
        f"the agent pushed {pushed[:12]} and ended with {head[:12]}, which has other changes and does not contain it",
        hint="Nothing was delivered, both are kept. Retry, and ask the agent to bring the two together.",
    )


async def _promised(tools: Tools, order: WorkOrder, promised: str | None) -> str:
    """Exactly the commit that the result names: an older checkpoint is not what was said to be done."""
    order_id = order.agent_work_order_id
    async with tools.database.reading() as session:
        bundle = await queries.newest_artifact(session, order_id)
    if bundle is None or promised is None:
        raise NothingDelivered("the agent said it was done but committed nothing", hint="Retry with a clearer prompt.")
    head = await import_commits(tools, bundle)
    if head is None:
        async with tools.database.reading() as session:
            refused = await session.get_one(Artifact, bundle.id)
        raise NothingDelivered(
            f"the sandbox's commits were refused: {refused.note}", hint="Nothing was pushed. The bundle is kept."
        )
    if head != promised:
        raise NothingDelivered(
            f"the agent's last commit {promised[:12]} was not handed in, the newest that was is {head[:12]}",
            hint="Nothing was pushed. Retry: it continues from what was handed in.",
        )
    return head


async def _push(tools: Tools, order: WorkOrder, head: str) -> str:
    assert order.base_commit
    assert order.git_branch_name
    url, order_id = order.repository_url, order.agent_work_order_id
    numbers = await tools.repositories.progress(url, head, order.base_commit)
    if numbers.git_files_changed == 0:
        raise NothingDelivered("the agent said it was done and changed nothing", hint="Retry with a clearer prompt.")
    await tools.repositories.check_policy(url, order.base_commit, head)
    await tools.repositories.push(url, head, order.git_branch_name)
    logger.info("git_push_completed", agent_work_order_id=order_id, branch=order.git_branch_name, commit=head)
    return await _delivered(tools, order, head, numbers)


async def _delivered(tools: Tools, order: WorkOrder, head: str, numbers: GitProgress) -> str:
    """The branch stands at the origin: offer it, and write that down."""
    change = await offer(tools, order, head, numbers) if order.offers else None
    async with tools.database.transaction() as session:
        row = await queries.locked(session, order.agent_work_order_id)
        row.head_commit = head
        if change:
            row.change_id, row.github_pull_request_url = change.change_id, change.url
    return f"delivered {order.git_branch_name} at {head[:12]}"


async def arrived(tools: Tools, order: WorkOrder, attempt: Attempt) -> str | None:
    """Go on with what a dead host had pushed and could not write down; None when the origin does not have what the attempt promised. Raises Problem."""
    result, branch = attempt.result or {}, order.git_branch_name
    head, url = result.get("head_sha"), order.repository_url
    if attempt.state != AttemptState.DELIVERING or result.get("status") != "completed" or order.question or not head:
        return None
    if (await tools.repositories.look(url, timeout=LOOK_SECONDS)).heads.get(branch or "") != head:
        return None
    await tools.repositories.sync(url)
    return await _delivered(tools, order, head, await tools.repositories.progress(url, head, order.base_commit))


async def _answer(tools: Tools, order: WorkOrder, head: str) -> str:
    """Keep what the agent wrote as its answer, never what lay there before it; the commit stays on this host."""
    assert order.base_commit
    place = tools.repositories.place(order.repository_url)
    answer = await reading.written(place, order.base_commit, head, ANSWER_FILE, MOST_ANSWER)
    if answer is None:
        raise NothingDelivered(f"the agent wrote no {ANSWER_FILE}", hint="Retry with a clearer prompt.")
    async with tools.database.transaction() as session:
        row = await queries.locked(session, order.agent_work_order_id)
        row.head_commit, row.answer = head, answer.replace("\x00", "")
    return "answered"


async def offer(tools: Tools, order: WorkOrder, head: str, numbers: GitProgress) -> Change:
    """Open the change. A forge that will not have it harms nothing: the branch is there, and a person is told."""
    try:
        return await tools.repositories.forge(order.repository_url).open_change(
            tools.database,
            work_order_id=order.agent_work_order_id,
            repository_url=order.repository_url,
            base_branch=order.base_branch or "",
            base_commit=order.base_commit,
            head_branch=order.git_branch_name,
            head_commit=head,
            title=_title(order),
            body=order.initial_prompt,
            issue=order.github_issue_number,
            evidence=_evidence(order, numbers),
        )
    except Problem as problem:
        told = f"{order.git_branch_name} is pushed at {head[:12]} and not offered for review: {problem.message}"
        kind = OfferDelayed if isinstance(problem, Unavailable) else NeedsReview
        raise kind(told, hint=f"{problem.hint} Or offer the branch by hand.") from problem


def _evidence(order: WorkOrder, numbers: GitProgress) -> list[tuple[str, str]]:
    """What is known today; what was tested and proven joins when it is recorded."""
    size = f"{numbers.git_files_changed} files, +{numbers.git_lines_added} -{numbers.git_lines_removed}"
    steps = [(span.phase, f"{span.commits} commits") for span in numbers.phase_history]
    agent = f"{order.agent}{f' ({order.model})' if order.model else ''}"
    return [
        ("work order", order.agent_work_order_id),
        ("agent", agent),
        ("attempts", str(order.attempts)),
        ("commits", str(numbers.git_commit_count)),
        ("changed", size),
        *steps,
    ]


def _title(order: WorkOrder) -> str:
    first = order.initial_prompt.strip().splitlines()[0] if order.initial_prompt.strip() else order.workflow_type
    return first[:100]
