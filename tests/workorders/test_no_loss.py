"""The short form of `python -m tests.no_loss`: every kind of sandbox, some seeds."""

import pytest

from tests.no_loss import SANDBOXES, play


@pytest.mark.parametrize("sandbox_type", SANDBOXES)
@pytest.mark.parametrize("seed", range(200, 202))
def test_no_destroy_loses_what_was_there_however_often_it_is_killed(seed: int, sandbox_type: str) -> None:
    play(seed, sandbox_type)
