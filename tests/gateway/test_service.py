"""The gateway's books, on both databases: what is opened, closed and summed."""

import random
from typing import Any

import pytest
import sqlalchemy as sa

from shopfloor.gateway import queries, service
from shopfloor.gateway.models import ModelCall, ModelGrant, ModelTotal
from shopfloor.gateway.rules import Verdict
from shopfloor.gateway.service import Cost
from shopfloor.kit.db import Database
from shopfloor.tasks.rules import hopeless

CALL = {"model": "m", "most_usd": 1.0, "host_id": "host-1"}


async def granted(database: Database, sandbox: str = "s-1", **given: float | str | None) -> ModelGrant:
    columns = {
        "attempt_id": f"{sandbox}-a",
        "work_order_id": f"wo-{sandbox}",
        "account": "anthropic",
        "project_id": None,
        "order_budget_usd": None,
        "project_budget_usd": None,
        **given,
    }
    async with database.transaction() as session:
        await service.grant(session, sandbox, **columns)
    async with database.reading() as session:
        return await queries.grant(session, sandbox)


async def opened(database: Database, grant: ModelGrant) -> tuple[Verdict, int | None, str]:
    """As the relay asks."""
    if (call := await service.open_at_once(database, grant, model="m", most_usd=1.0, host_id="host-1")) is not None:
        return Verdict.GO, call, ""
    async with database.transaction() as session:
        return await service.open_call(session, grant, model="m", most_usd=1.0, host_id="host-1")


async def closed(database: Database, call: int, cost: float) -> None:
    async with database.transaction() as session:
        await service.close_call(session, call, Cost(model="m", cost_usd=cost), status=200, first_byte_ms=1, took_ms=2)


async def sums(database: Database) -> dict[str, tuple[float, float]]:
    """Order or project -> (the kept sum, the sum of its calls)."""
    async with database.reading() as session:
        kept = {row.whose: row.spent_usd for row in await session.scalars(sa.select(ModelTotal))}
        calls = (await session.scalars(sa.select(ModelCall))).all()
    found = {}
    for whose, spent in kept.items():
        mine = [call.cost_usd or 0.0 for call in calls if whose in {call.work_order_id, call.project_id}]
        found[whose] = (spent, sum(mine))
    return found


async def test_the_usual_call_is_opened_in_one_statement_where_one_writes_alone(database: Database) -> None:
    grant = await granted(database, order_budget_usd=5.0, project_id="prj-1", project_budget_usd=9.0)
    first = await service.open_at_once(database, grant, model="m", most_usd=1.0, host_id="host-1")
    assert (first is not None) == database.sqlite


async def test_a_call_beside_another_is_decided_by_the_rules(database: Database) -> None:
    grant = await granted(database, order_budget_usd=1.5)
    assert [(await opened(database, grant))[0] for _ in range(2)] == [Verdict.GO, Verdict.WAIT]


async def test_a_spent_budget_stops_and_says_whose_it_is(database: Database) -> None:
    grant = await granted(database, order_budget_usd=1.5)
    _, call, _ = await opened(database, grant)
    assert call
    await closed(database, call, 2.0)
    verdict, _, why = await opened(database, grant)
    assert (verdict, why) == (
        Verdict.STOP,
        "the budget of work order wo-s-1 is used up: 2.0000 of 1.5000 USD are spent",
    )


async def test_a_task_is_not_tried_again_for_which_no_money_is_left(database: Database) -> None:
    """The gateway's own words are known for what they are, alone and as an order's reason."""
    grant = await granted(database, project_id="prj-1", project_budget_usd=1.5)
    _, call, _ = await opened(database, grant)
    assert call
    await closed(database, call, 2.0)
    _, _, why = await opened(database, grant)
    assert (hopeless(why), hopeless(f"failed: {why}")) == (True, True)


async def test_a_project_is_stopped_by_what_all_its_orders_spent(database: Database) -> None:
    shared: dict[str, Any] = {"project_id": "prj-1", "project_budget_usd": 3.0}
    one, two = await granted(database, "s-1", **shared), await granted(database, "s-2", **shared)
    for grant in (one, two):
        _, call, _ = await opened(database, grant)
        assert call
        await closed(database, call, 2.0)
    verdict, _, why = await opened(database, one)
    assert (verdict, "project prj-1" in why) == (Verdict.STOP, True)


async def test_a_call_that_ends_twice_is_counted_once(database: Database) -> None:
    _, call, _ = await opened(database, await granted(database))
    assert call
    for _ in range(2):
        await closed(database, call, 2.0)
    assert await sums(database) == {"wo-s-1": (2.0, 2.0)}


async def test_what_a_crash_cut_is_counted_and_ends(database: Database) -> None:
    grant = await granted(database, order_budget_usd=5.0)
    await opened(database, grant)
    async with database.transaction() as session:
        await service.settle_cut_calls(session, "another-host")
        await service.settle_cut_calls(session, "host-1")
    assert await sums(database) == {"wo-s-1": (0.125, 0.125)}
    assert (await opened(database, grant))[0] == Verdict.GO


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens_the_kept_sums_are_the_sums_of_the_calls(database: Database, seed: int) -> None:
    chance = random.Random(seed)
    grants = [
        await granted(database, f"s-{n}", project_id=f"prj-{n % 2}", order_budget_usd=3.0, project_budget_usd=5.0)
        for n in range(4)
    ]
    running: list[int] = []
    for _ in range(60):
        if running and chance.random() < 0.5:
            await closed(database, running.pop(chance.randrange(len(running))), chance.random() * 2)
        else:
            verdict, call, _ = await opened(database, chance.choice(grants))
            running += [call] if verdict == Verdict.GO and call else []
    found = await sums(database)
    assert all(kept == pytest.approx(summed) for kept, summed in found.values())
    assert sum(summed for _, summed in found.values()) > 0
