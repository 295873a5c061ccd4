"""The board's law as tables and pure functions."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shopfloor.board import rules
from shopfloor.board.rules import APPROVAL, BACK, MOVES, ORDER, Approval, BlockedClass, Column
from shopfloor.board.rules.flow import CriterionSeen, State, TaskSeen, next_step
from shopfloor.board.rules.gates import DEFAULTS, Checked, Facts, TaskFact, judge
from shopfloor.projects.rules import column

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TIMES = st.integers(0, 5).map(lambda minutes: NOW + timedelta(minutes=minutes))
STATUSES = st.sampled_from(["pending", "running", "completed", "failed", "cancelled"])
COLUMNS = st.sampled_from(list(Column))
VERDICTS = st.sampled_from(["passed", "failed", "error", "missing", "stale", "running"])
TASKS = st.builds(
    TaskSeen,
    task_id=st.uuids().map(str),
    phase=COLUMNS,
    status=STATUSES,
    held=st.booleans(),
    waits=st.booleans(),
    created_at=TIMES,
    ended_at=st.none() | TIMES,
    reason=st.sampled_from(["the tests fail", "key_missing: x"]),
)
CRITERIA = st.builds(
    CriterionSeen, text=st.just("It holds"), verdict=VERDICTS, automatic=st.booleans(), errors=st.integers(0, 4)
)
STATES = st.builds(
    State,
    status=COLUMNS,
    autonomous=st.booleans(),
    may_cost=st.booleans(),
    is_blocked=st.booleans(),
    found_blocked=st.booleans(),
    blocked_class=st.sampled_from(list(BlockedClass)),
    blocked_at=TIMES,
    progressed_at=TIMES,
    entered_at=TIMES,
    sent_back_at=st.none() | TIMES,
    sent_back_why=st.just("it drips"),
    unblocked_at=st.none() | TIMES,
    returns=st.integers(0, 5),
    waits_for_tickets=st.booleans(),
    head_commit=st.none() | st.just("a" * 40),
    tasks=st.lists(TASKS, max_size=4),
    criteria=st.lists(CRITERIA, max_size=3),
    most_returns=st.just(3),
)
COSTLY = {"make", "mend", "retry", "check", "recheck", "forward", "back"}


@given(state=STATES)
def test_nothing_costly_without_approval_autonomy_or_while_blocked(state: State) -> None:
    step = next_step(state)
    if not (state.may_cost and state.autonomous) or state.is_blocked:
        assert step.what not in COSTLY


@given(state=STATES)
def test_going_back_is_counted_and_ends(state: State) -> None:
    """A loop of facts must end in a state."""
    step = next_step(state)
    if step.what == "back":
        assert state.returns < state.most_returns
        assert step.reason
        assert MOVES.allows(Column(state.status), Column(step.to or ""))


@given(state=STATES)
def test_what_came_back_too_often_is_mended_by_nobody_but_a_person(state: State) -> None:
    """Not only the board sends it back: the merge queue does, and its returns end in a state too."""
    if state.returns > state.most_returns:
        assert next_step(state).what not in {"mend", "retry", "back"}


@given(state=STATES)
def test_no_ticket_is_moved_on_while_its_work_is_open_or_failed(state: State) -> None:
    if next_step(state).what == "forward":
        own = {task.status for task in state.tasks if task.phase == state.status}
        assert own <= {"completed", "cancelled"}


@given(state=STATES)
def test_what_a_person_blocked_only_a_person_unblocks(state: State) -> None:
    if next_step(state).what == "unblock":
        assert state.found_blocked


@given(now=COLUMNS, to=COLUMNS)
def test_forward_is_one_column_and_back_is_any(now: Column, to: Column) -> None:
    distance = ORDER.index(to) - ORDER.index(now)
    if now == Column.DONE:
        assert MOVES.allows(now, to) == (to == Column.BUILDING)
    else:
        assert MOVES.allows(now, to) == (distance == 1 or distance < 0)


def test_every_default_way_back_is_allowed() -> None:
    assert all(MOVES.allows(now, to) for now, to in BACK.items())


def test_rejecting_is_possible_until_the_end_and_what_needs_no_approval_has_none() -> None:
    assert not APPROVAL.moves[Approval.NOT_REQUIRED]
    assert all(Approval.REJECTED in APPROVAL.moves[one] for one in (Approval.PENDING_REVIEW, Approval.TIMED_OUT))


@pytest.mark.parametrize("name", [alias for one in Column for alias in rules.aliases(one)] + list(Column))
def test_every_name_of_a_column_means_it(name: str) -> None:
    """C8: in any case, with _ or -."""
    wanted = column(name)
    assert {column(form) for form in (name.upper(), name.lower(), name.replace("-", "_"))} == {wanted}


HEAD: dict[str, Any] = {"head_commit": "b" * 40, "base_commit": "a" * 40}
DONE = Checked(text="It holds", verdict="passed")
GATES: list[tuple[dict[str, Any], Facts, str]] = [
    ({"kind": "description"}, Facts(), "0 of at least 1"),
    ({"kind": "description", "contains": ["why"]}, Facts(description="what"), "why"),
    ({"kind": "criteria"}, Facts(), "write at least 1"),
    ({"kind": "tasks_done"}, Facts(tasks=[TaskFact(task_id="t", title="", status="failed")]), "t is failed"),
    ({"kind": "change"}, Facts(head_commit="a", base_commit="a"), "nothing was changed"),
    ({"kind": "change", "path": "docs/**"}, Facts(**HEAD, changed=["src/a.py"]), "docs/**"),
    ({"kind": "artifact", "path": "*.md"}, Facts(**HEAD), "no file *.md"),
    ({"kind": "artifact", "path": "*.md"}, Facts(**HEAD, artifacts={"*.md": {"a.md": ""}}), "0 of at least 1"),
    ({"kind": "evidence"}, Facts(**HEAD), "write at least one"),
    ({"kind": "evidence"}, Facts(criteria=[DONE]), "no commit"),
    ({"kind": "evidence"}, Facts(**HEAD, criteria=[DONE, Checked(text="x", verdict="error")]), "'x' is error"),
]


@pytest.mark.parametrize(("gate", "facts", "missing"), GATES, ids=[f"{g['kind']}-{m}" for g, _, m in GATES])
def test_a_closed_gate_says_what_is_missing(gate: dict[str, Any], facts: Facts, missing: str) -> None:
    (finding,) = judge([gate], facts)
    assert missing in finding.missing


def test_open_gates_say_nothing() -> None:
    facts = Facts(
        description="why", criteria=[DONE], **HEAD, changed=["docs/a.md"], artifacts={"*.md": {"a.md": "", "b.md": "x"}}
    )
    gates = [gate for gates in DEFAULTS.values() for gate in gates] + [{"kind": "artifact", "path": "*.md"}]
    assert judge(gates, facts) == []
