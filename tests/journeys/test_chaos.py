"""The short form of `make chaos`: each kind of victim, once or twice."""

import pytest

from tests.chaos import VICTIMS, play


@pytest.mark.parametrize("seed", range(100, 100 + 2 * len(VICTIMS)))
def test_nothing_acknowledged_is_lost_or_doubled_by_a_kill(seed: int) -> None:
    play(seed)
