"""Budgets by properties: whatever calls cost and however they overlap, no budget is passed by more than one call."""

import math
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from shopfloor.gateway.limits import LONGEST, bounded, relative, unix
from shopfloor.gateway.rules import Budget, Verdict, verdict

MONEY = st.floats(0.01, 10)


@dataclass
class Purse:
    """One budget and its running calls: (real cost, most it can cost or None)."""

    limit: float
    spent: float = 0.0
    running: list[tuple[float, float | None]] = field(default_factory=list)

    def ask(self, real: float, most: float | None) -> Verdict:
        known = [m for _, m in self.running if m is not None]
        at_most = sum(known) if len(known) == len(self.running) else None
        budget = Budget(whose="x", limit=self.limit, spent=self.spent, running=len(self.running), at_most=at_most)
        found = verdict(budget, most)
        if found == Verdict.GO:
            self.running.append((real, most))
        return found

    def end_one(self) -> None:
        if self.running:
            self.spent += self.running.pop(0)[0]


calls = st.tuples(MONEY, st.one_of(st.none(), st.floats(1, 3)))


@given(limit=st.floats(1, 50), steps=st.lists(st.one_of(calls, st.just("end")), max_size=80))
def test_a_budget_is_never_passed_by_more_than_one_call(
    limit: float, steps: list[tuple[float, float | None] | str]
) -> None:
    purse, dearest = Purse(limit), 0.0
    for step in steps:
        if isinstance(step, str):
            purse.end_one()
        else:
            real, factor = step
            dearest = max(dearest, real)
            purse.ask(real, None if factor is None else real * factor)
    while purse.running:
        purse.end_one()
    assert purse.spent <= limit + dearest + 1e-6


@given(limit=st.floats(1, 50), wanted=st.lists(MONEY, min_size=1, max_size=50))
def test_calls_one_after_the_other_are_let_in_until_the_budget_is_spent(limit: float, wanted: list[float]) -> None:
    purse = Purse(limit)
    for real in wanted:
        before, found = purse.spent, purse.ask(real, None)
        assert found == (Verdict.STOP if before >= limit else Verdict.GO)
        purse.end_one()


def test_a_call_that_may_not_fit_waits_for_those_that_run() -> None:
    purse = Purse(10)
    assert [purse.ask(4, 6), purse.ask(4, 6)] == [Verdict.GO, Verdict.WAIT]


def test_a_call_without_a_known_end_waits_for_those_that_run() -> None:
    purse = Purse(10)
    assert [purse.ask(1, 1), purse.ask(1, None)] == [Verdict.GO, Verdict.WAIT]


@given(st.text(max_size=40), st.floats(0, 2e9))
def test_whatever_stands_in_a_header_the_wait_makes_sense_or_there_is_none(text: str, now: float) -> None:
    for found in (relative(text, now), unix(text, now)):
        assert found is None or 0 < found <= LONGEST


def test_a_date_a_moment_and_seconds_say_the_same_wait() -> None:
    now = 1_800_000_000.0
    assert relative("Fri, 15 Jan 2027 08:00:30 GMT", now) == relative("30", now) == unix("1800000030", now) == 30


def test_no_wait_is_endless_or_backward() -> None:
    assert [bounded(math.inf), bounded(math.nan), bounded(-1), bounded(0)] == [None] * 4
