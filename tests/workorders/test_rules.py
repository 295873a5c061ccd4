"""The law of work orders (AWM-01, AWM-02, C12): pure properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shopfloor.kit.machine import IllegalMove
from shopfloor.workorders.rules import (
    ATTEMPT,
    FINISHED,
    ORDER,
    AttemptState,
    OrderStatus,
    UnknownWorkflow,
    WorkflowType,
    after_loss,
    back_off_seconds,
    workflow_type,
)

KNOWN = {"plan", "build", "test", "implement", "validate", "plan_build", "plan_build_test"}
STATUSES = st.sampled_from(list(OrderStatus))
STATES = st.sampled_from(list(AttemptState))


@given(now=STATUSES, to=STATUSES)
def test_an_order_moves_only_as_the_table_says(now: OrderStatus, to: OrderStatus) -> None:
    if to in ORDER.moves[now]:
        assert ORDER.step(now, to) == to
    else:
        with pytest.raises(IllegalMove):
            ORDER.step(now, to)


@given(st.lists(STATES, max_size=30))
def test_an_attempt_that_ended_never_lives_again(wishes: list[AttemptState]) -> None:
    state, over = AttemptState.CLAIMED, False
    for wish in wishes:
        if ATTEMPT.allows(state, wish):
            assert not over
            state = wish
        over = ATTEMPT.final(state)


@given(st.lists(STATES, min_size=1, max_size=30))
def test_an_attempt_is_done_only_after_delivering(wishes: list[AttemptState]) -> None:
    state, path = AttemptState.CLAIMED, [AttemptState.CLAIMED]
    for wish in wishes:
        if ATTEMPT.allows(state, wish):
            state = wish
            path.append(wish)
    if state == AttemptState.DONE:
        assert path == [
            AttemptState.CLAIMED,
            AttemptState.PREPARING,
            AttemptState.RUNNING,
            AttemptState.DELIVERING,
            AttemptState.DONE,
        ]


def test_a_completed_order_only_goes_on_when_more_is_asked_for() -> None:
    assert ORDER.allows(OrderStatus.COMPLETED, OrderStatus.PENDING)
    assert not any(
        ORDER.allows(OrderStatus.COMPLETED, to)
        for to in set(OrderStatus) - {OrderStatus.PENDING, OrderStatus.COMPLETED}
    )


def test_only_finished_orders_cannot_be_cancelled() -> None:
    assert {s for s in OrderStatus if not ORDER.allows(s, OrderStatus.CANCELLED)} == FINISHED


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("plan", WorkflowType.PLAN),
        ("implement", WorkflowType.BUILD),
        ("validate", WorkflowType.TEST),
        ("plan_implement_validate", WorkflowType.PLAN_BUILD_TEST),
        ("agent_workflow_plan_build", WorkflowType.PLAN_BUILD),
    ],
)
def test_the_goal_names_are_synonyms_c12(name: str, meant: WorkflowType) -> None:
    assert workflow_type(name) == meant


@given(st.text(max_size=80).filter(lambda name: name.removeprefix("agent_workflow_") not in KNOWN))
def test_any_other_workflow_name_is_refused_with_the_list(name: str) -> None:
    with pytest.raises(UnknownWorkflow, match="no workflow") as refused:
        workflow_type(name)
    assert "agent_workflow_plan" in refused.value.hint


@given(st.integers(0, 10_000))
def test_back_off_grows_to_a_minute_and_no_further(lost: int) -> None:
    assert 1 <= back_off_seconds(lost) <= back_off_seconds(lost + 1) <= 60


@given(attempts=st.integers(1, 50), cap=st.integers(1, 20))
def test_a_lost_attempt_is_repeated_until_the_cap(attempts: int, cap: int) -> None:
    assert after_loss(attempts, cap) == (OrderStatus.PENDING if attempts < cap else OrderStatus.FAILED)
