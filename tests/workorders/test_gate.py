"""Who is let in at the git gate, and when."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from shopfloor.kit.errors import Problem
from shopfloor.projects import service as projects
from shopfloor.workorders import queries, service
from shopfloor.workorders.rules import AttemptState
from shopfloor.workorders.steps import Tools
from shopfloor.workorders.steps.gate import GateClosed, NoSuchRepository, OrderOver, admit
from tests.no_loss import house, set_up
from tests.support.platform import folder, sample_repository


@dataclass
class Gate:
    """A running attempt of a project whose gate is open."""

    tools: Tools
    told: dict[str, Any]
    project: str
    url: str

    async def asked(self) -> str:
        guest = await admit(self.tools, self.told["sandbox"], self.told["order"])
        return guest.order.agent_work_order_id


@pytest.fixture
async def gate() -> AsyncIterator[Gate]:
    with folder() as place:
        url = str(sample_repository(place))
        facts: list[dict[str, Any]] = []
        async with house(place) as tools:
            await set_up(tools, facts.append, place, "local")
            async with tools.database.transaction() as session:
                made = await projects.create(session, name="open", repository_url=url, git_gate=True)
            yield Gate(tools, facts[0], made.project_id, url)
            await tools.sandboxes.adapter("local").destroy(facts[0]["sandbox"])


async def test_the_agent_of_a_running_attempt_is_let_in(gate: Gate) -> None:
    assert await gate.asked() == gate.told["order"]


async def closed(gate: Gate) -> None:
    async with gate.tools.database.transaction() as session:
        await projects.change(session, gate.project, git_gate=False)


async def without_project(gate: Gate) -> None:
    async with gate.tools.database.transaction() as session:
        await projects.delete(session, gate.project)


async def with_a_result(gate: Gate) -> None:
    async with gate.tools.database.transaction() as session:
        await service.submit_result(session, gate.told["sandbox"], {"fencing": 1, "status": "completed"})


async def after_its_attempt(gate: Gate) -> None:
    async with gate.tools.database.transaction() as session:
        attempt = await queries.attempt_of_sandbox(session, gate.told["sandbox"])
        await service.step_attempt(session, attempt, AttemptState.LOST)


async def overtaken(gate: Gate) -> None:
    async with gate.tools.database.transaction() as session:
        (await queries.locked(session, gate.told["order"])).attempts += 1


SHUT: dict[Callable[[Gate], Awaitable[None]], type[Problem]] = {
    closed: GateClosed,
    without_project: GateClosed,
    with_a_result: OrderOver,
    after_its_attempt: OrderOver,
    overtaken: OrderOver,
}


@pytest.mark.parametrize("happens", SHUT, ids=lambda happens: happens.__name__)
async def test_nobody_is_let_in(gate: Gate, happens: Callable[[Gate], Awaitable[None]]) -> None:
    await happens(gate)
    with pytest.raises(SHUT[happens]):
        await gate.asked()


async def test_another_orders_repository_is_not_there(gate: Gate) -> None:
    async with gate.tools.database.transaction() as session:
        columns: dict[str, Any] = {"workflow_type": "agent_workflow_build", "sandbox_type": "local", "agent": "script"}
        limits: dict[str, Any] = {"agent_options": {}, "max_attempts": 1, "timeout_seconds": 60.0}
        other = await service.create(
            session, repository_url=gate.url, **columns, **limits, allow_no_isolation=False, initial_prompt=""
        )
    gate.told["order"] = other.agent_work_order_id
    with pytest.raises(NoSuchRepository):
        await gate.asked()
