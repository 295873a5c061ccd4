"""The short form of `make chaos`: each kind of victim once, of a work order and of a ticket."""

import pytest

from tests.chaos import VICTIMS, Run, TicketRun, play


@pytest.mark.parametrize("kind", [Run, TicketRun])
@pytest.mark.parametrize("seed", range(100, 100 + len(VICTIMS)))
def test_nothing_acknowledged_is_lost_or_doubled_by_a_kill(seed: int, kind: type[Run | TicketRun]) -> None:
    play(seed, kind)
