"""What an order is told of a delivery that does not come to its end."""

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shopfloor.forges.mirrors.reading import GitProgress
from shopfloor.kit.errors import Unavailable
from shopfloor.workorders.jobs import PATIENCE_SECONDS, Trouble
from shopfloor.workorders.models import WorkOrder
from shopfloor.workorders.steps import Tools
from shopfloor.workorders.steps.deliver import OfferDelayed, offer


class Away:
    """A forge that is away."""

    async def open_change(self, *_: Any, **__: Any) -> None:
        raise Unavailable("no answer")


async def test_a_branch_that_a_silent_forge_is_not_offered_is_tried_again_and_then_needs_review() -> None:
    tools = SimpleNamespace(database=None, repositories=SimpleNamespace(forge=lambda _url: Away()))
    order = WorkOrder(
        agent_work_order_id="wo-1", repository_url="https://git.example.org/a/b", git_branch_name="feat-1"
    )
    order.initial_prompt, order.agent, order.attempts = "Do it", "script", 1
    with pytest.raises(OfferDelayed) as delayed:
        await offer(cast("Tools", tools), order, "c" * 40, GitProgress())
    trouble = Trouble("deliver")
    assert trouble.met(delayed.value) > 0
    trouble.began = time.monotonic() - PATIENCE_SECONDS["deliver"] - 1
    assert trouble.met(delayed.value) == 0
    assert trouble.reason.startswith("needs_review: feat-1 is pushed at cccccccccccc and not offered")
