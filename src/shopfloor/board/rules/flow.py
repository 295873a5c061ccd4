"""What the board does next with a ticket, from how things stand and from nothing else. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from shopfloor.board.rules import BACK, BlockedClass, Column, is_environment

ENDED = frozenset({"completed", "failed", "cancelled"})


@dataclass(frozen=True, kw_only=True)
class TaskSeen:
    """One task of the ticket."""

    task_id: str
    phase: str
    status: str
    held: bool
    waits: bool
    """For other tasks."""
    created_at: datetime
    ended_at: datetime | None
    title: str = ""
    reason: str = ""
    gathered: bool = True
    """What it made is in its ticket's branch."""


@dataclass(frozen=True, kw_only=True)
class CriterionSeen:
    """One criterion on the ticket's head."""

    text: str
    verdict: str
    automatic: bool
    reason: str = ""
    found_at: datetime | None = None
    errors: int = 0
    """How often it could not be judged on this head."""


@dataclass(frozen=True, kw_only=True)
class State:
    """How things stand with a ticket."""

    status: str
    autonomous: bool
    may_cost: bool
    is_blocked: bool
    found_blocked: bool
    """By the board, not by a person."""
    blocked_class: str | None
    blocked_at: datetime | None
    progressed_at: datetime
    entered_at: datetime
    sent_back_at: datetime | None
    """When it was last sent back for work to be done anew, whoever did that; None: never, or it only has to be proven anew."""
    sent_back_why: str
    unblocked_at: datetime | None
    """When a person last said that nothing is in its way: what failed before may be tried again."""
    returns: int
    """How often it went back by itself since a person last moved or unblocked it."""
    waits_for_tickets: bool
    head_commit: str | None
    tasks: Sequence[TaskSeen]
    criteria: Sequence[CriterionSeen]
    most_returns: int
    settled: bool = False
    """Merged, or done by the word of somebody who overrode the evidence: what is found of its head changes nothing."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """What is to be done. Doing it twice is doing it once."""

    what: str
    """hold, lift, make, mend, retry, check, recheck, back, reopen, block, unblock, forward or nothing."""
    task_ids: Sequence[str] = ()
    to: str | None = None
    kind: BlockedClass | None = None
    reason: str = ""


NOTHING = Step(what="nothing")
MOST_ERRORS = 2
"""How often the board has a criterion checked anew that could not be judged, before somebody must look at the place."""


def judged_again(errors: int, found_at: datetime | None, unblocked_at: datetime | None) -> bool:
    """Whether what could not be judged so often is judged once more: a few times, then once for each time that a person clears the way."""
    return errors <= MOST_ERRORS or (found_at is not None and unblocked_at is not None and found_at <= unblocked_at)


def next_step(state: State) -> Step:
    """The one next step. Repeated until there is nothing to do, it ends: going back is counted, everything else brings the ticket on."""
    for look in (_holds, _unproven, _cleared, _failure, _tasks, _evidence, _forward):
        if step := look(state):
            return step
    return NOTHING


def _own(state: State, *statuses: str) -> list[TaskSeen]:
    return [task for task in state.tasks if task.phase == state.status and task.status in statuses]


def _acts(state: State) -> bool:
    return state.autonomous and state.may_cost and not state.is_blocked


def may_start(
    *, may_cost: bool, here: bool, is_blocked: bool, blocked_at: datetime | None, found: bool, created_at: datetime
) -> bool:
    """Whether a waiting task may be started: its ticket is approved and `here`, in the task's column, and nothing is in the way.

    What the board `found` to be in the way holds no task that was made after that: it was made to clear it.
    """
    clears = found and blocked_at is not None and created_at >= blocked_at
    return may_cost and here and (not is_blocked or clears)


def _may(state: State, task: TaskSeen) -> bool:
    return may_start(
        may_cost=state.may_cost,
        here=task.phase == state.status,
        is_blocked=state.is_blocked,
        blocked_at=state.blocked_at,
        found=state.found_blocked,
        created_at=task.created_at,
    )


def _holds(state: State) -> Step | None:
    waiting = [task for task in state.tasks if task.status == "pending"]
    if wrong := [task.task_id for task in waiting if not task.held and not _may(state, task)]:
        why = "its ticket is not approved" if not state.may_cost else "its ticket stands elsewhere or is blocked"
        return Step(what="hold", task_ids=wrong, reason=why)
    if ready := [task.task_id for task in waiting if task.held and _may(state, task)]:
        return Step(what="lift", task_ids=ready, reason=f"its ticket is in {state.status}")
    return None


def _cleared(state: State) -> Step | None:
    if not (state.is_blocked and state.found_blocked and state.blocked_at):
        return None
    if any(holds(state) for holds in STILL[BlockedClass(state.blocked_class or "dependency")]):
        return None
    return Step(what="unblock", reason="what was in its way is gone")


def _unproven(state: State) -> Step | None:
    """What is done is proven on its head. If it is so no more, it goes back to be proven anew, whoever drives its project."""
    if state.status != Column.DONE or state.settled:
        return None
    if not (found := [one for one in state.criteria if one.verdict not in {"passed", "running"}]):
        return None
    named = "; ".join(f"{one.text[:120]!r} is {one.verdict}" for one in found[:5])
    return Step(what="reopen", reason=f"it is not proven any more: {named}")


def _waits(state: State) -> bool:
    return state.waits_for_tickets or any(task.waits for task in _own(state, "pending"))


def _has_failed(state: State) -> bool:
    """Something failed, and no task that was made to mend that is completed yet."""
    at = state.blocked_at
    mended = at is not None and any(task.created_at >= at for task in _own(state, "completed"))
    return not mended and (bool(_own(state, "failed")) or any(one.verdict == "failed" for one in state.criteria))


def _broke(state: State) -> bool:
    lying = any(task.status == "completed" and not task.gathered for task in state.tasks)
    return lying or bool(_own(state, "failed")) or any(one.verdict == "error" for one in state.criteria)


def _silent(state: State) -> bool:
    return state.blocked_at is None or state.progressed_at <= state.blocked_at


STILL = {
    BlockedClass.DEPENDENCY: (_waits,),
    BlockedClass.FAILING_CHECKS: (_has_failed,),
    BlockedClass.ENVIRONMENT: (_broke,),
    BlockedClass.WAITING_ON_CLARIFICATION: (_silent,),
}


def _failure(state: State) -> Step | None:
    """A task of this column failed for good since the ticket came here, or a person cleared its way."""
    if not _acts(state):
        return None
    since = max(state.entered_at, state.unblocked_at or state.entered_at)
    failed = [task for task in _own(state, "failed") if task.ended_at is None or task.ended_at > since]
    if not failed:
        return None
    reason = f"task {failed[0].task_id} ({failed[0].title[:80]}) failed: {failed[0].reason}"[:2000]
    if is_environment(failed[0].reason):
        return Step(what="block", kind=BlockedClass.ENVIRONMENT, reason=reason)
    return _back(state, reason)


def _back(state: State, reason: str) -> Step:
    target = BACK.get(Column(state.status))
    if state.returns >= state.most_returns or target in {None, Column.BACKLOG}:
        again = f" (it went back {state.returns} times)" if state.returns else ""
        return Step(what="block", kind=BlockedClass.FAILING_CHECKS, reason=reason + again)
    return Step(what="back", to=target, reason=reason)


def _tasks(state: State) -> Step | None:
    """The work of this column: made if there is none, tried again or mended if the ticket came back."""
    if not _acts(state):
        return None
    failed, came_back = _own(state, "failed"), _came_back(state)
    if (failed or came_back) and state.returns > state.most_returns:
        # What sends it back may be no criterion (the merge queue is none): only silence holds until somebody looks.
        why = f"it went back {state.returns} times, somebody must look: {state.sent_back_why}"
        return Step(what="block", kind=BlockedClass.WAITING_ON_CLARIFICATION, reason=why[:2000])
    if failed:
        return Step(what="retry", task_ids=[task.task_id for task in failed], reason="its ticket is here again")
    if state.status == Column.BUILDING and not _own(state, "pending", "running", *ENDED):
        return Step(what="make")
    return Step(what="mend", reason=state.sent_back_why) if came_back else None


def _came_back(state: State) -> bool:
    """It was sent back into this column, or on its way to building before it, and no task was made or ended since."""
    at = state.sent_back_at
    if at is None or not (
        state.status == Column.BUILDING or (state.status == Column.BUILDING_DONE and at >= state.entered_at)
    ):
        return False
    return not any(
        task.created_at >= at or _tried_since(at, task) for task in _own(state, "pending", "running", *ENDED)
    )


def _tried_since(at: datetime, task: TaskSeen) -> bool:
    return task.status not in ENDED or (task.ended_at is not None and task.ended_at > at)


def _evidence(state: State) -> Step | None:
    """In testing, once its tasks are done: every criterion is checked on the head."""
    if not _acts(state) or state.status != Column.TESTING or state.head_commit is None:
        return None
    if _own(state, "pending", "running") or any(one.verdict == "running" for one in state.criteria):
        return None
    if any(one.automatic and one.verdict in {"missing", "stale"} for one in state.criteria):
        return Step(what="check")
    if failed := [one for one in state.criteria if one.verdict == "failed"]:
        named = "; ".join(f"{one.text[:120]!r}: {one.reason[:300]}" for one in failed[:5])
        return _back(state, f"{len(failed)} criteria do not hold: {named}"[:2000])
    errors = [one for one in state.criteria if one.verdict == "error"]
    broken = [one for one in errors if not judged_again(one.errors, one.found_at, state.unblocked_at)]
    if any(one.automatic and one not in broken for one in errors):
        return Step(what="recheck")
    if broken:
        reason = f"{broken[0].text[:120]!r} could not be judged: {broken[0].reason[:300]}"
        return Step(what="block", kind=BlockedClass.ENVIRONMENT, reason=reason)
    return None


def _forward(state: State) -> Step | None:
    if not _acts(state) or state.status == Column.DONE or _own(state, "pending", "running", "failed"):
        return None
    return Step(what="forward")
