"""The law of sandboxes (LIF-01, FLT-01): pure properties."""

from hypothesis import given
from hypothesis import strategies as st

from shopfloor.sandboxes.rules import LIFE, LIVE, SandboxState, Verdict, missed, verdict

STATES = st.sampled_from(list(SandboxState))


@given(st.lists(STATES, max_size=20))
def test_a_sandbox_that_left_life_never_holds_a_place_again(wishes: list[SandboxState]) -> None:
    state, left = SandboxState.PENDING, False
    for wish in wishes:
        if LIFE.allows(state, wish):
            state = wish
        left = left or state not in LIVE
        assert not (left and state in LIVE)


def test_only_terminated_is_final() -> None:
    assert {s for s in SandboxState if LIFE.final(s)} == {SandboxState.TERMINATED}


def test_failed_is_reachable_from_running() -> None:
    assert LIFE.allows(SandboxState.RUNNING, SandboxState.FAILED)


@given(silent=st.floats(0, 1e6), interval=st.floats(0.01, 1e4))
def test_misses_are_whole_intervals_not_checks(silent: float, interval: float) -> None:
    """W14: the count follows the silence, however often it is looked at."""
    count = missed(silent, interval)
    assert count == 0 or count * interval < silent


@given(st.floats(0.01, 1e4))
def test_one_interval_of_silence_is_not_a_miss(interval: float) -> None:
    assert missed(interval, interval) == 0


def test_the_ladder_is_warn_degraded_restart() -> None:
    ladder = [verdict(count) for count in range(5)]
    assert ladder == [Verdict.ALIVE, Verdict.WARN, Verdict.DEGRADED, Verdict.RESTART, Verdict.RESTART]
