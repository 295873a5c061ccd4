"""Claiming, moving, cancelling, retrying on real databases."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from shopfloor.events.models import EventRow
from shopfloor.kit.config import Settings
from shopfloor.kit.db import Database
from shopfloor.sandboxes.service import Sandboxes
from shopfloor.workorders import queries, service
from shopfloor.workorders.models import Attempt, WorkOrder
from shopfloor.workorders.rules import AttemptState, OrderStatus


@pytest.fixture
def sandboxes(database: Database, tmp_path: Path) -> Sandboxes:
    return Sandboxes(Settings(data_dir=tmp_path, max_sandboxes=3), database, "host-test")


WISH: dict[str, Any] = {
    "repository_url": "/r",
    "workflow_type": "agent_workflow_build",
    "sandbox_type": "local",
    "agent": "script",
    "agent_options": {},
    "max_attempts": 3,
    "timeout_seconds": 60.0,
    "allow_no_isolation": False,
}


async def ordered(database: Database, **columns: Any) -> str:
    async with database.transaction() as session:
        return (await service.create(session, **WISH | {"initial_prompt": ""} | columns)).agent_work_order_id


async def claim(database: Database, sandboxes: Sandboxes, engine: str = "engine-1") -> Attempt | None:
    async with database.transaction() as session:
        return await service.claim(session, sandboxes, engine)


async def test_many_claimers_never_exceed_the_cap_nor_claim_twice(database: Database, sandboxes: Sandboxes) -> None:
    """W09: caps are counted in the claim itself."""
    for _ in range(10):
        await ordered(database)
    claimed = [a for a in await asyncio.gather(*(claim(database, sandboxes, f"e{i}") for i in range(12))) if a]
    assert (len(claimed), len({a.work_order_id for a in claimed})) == (3, 3)


async def test_a_claim_makes_attempt_sandbox_and_status_together(database: Database, sandboxes: Sandboxes) -> None:
    order_id = await ordered(database)
    attempt = await claim(database, sandboxes)
    async with database.reading() as session:
        order = await queries.get(session, order_id)
    assert attempt is not None
    assert (order.status, order.sandbox_identifier, order.attempts) == ("running", attempt.sandbox_id, 1)


async def test_the_oldest_order_is_claimed_first(database: Database, sandboxes: Sandboxes) -> None:
    first, _ = await ordered(database), await ordered(database)
    attempt = await claim(database, sandboxes)
    assert attempt is not None
    assert attempt.work_order_id == first


async def result(database: Database, sandbox_id: str, fencing: int) -> bool:
    body = {"fencing": fencing, "status": "completed", "agent_session_id": None, "cost_usd": 0.5}
    async with database.transaction() as session:
        return await service.submit_result(session, sandbox_id, body)


async def test_a_result_counts_once(database: Database, sandboxes: Sandboxes) -> None:
    order_id = await ordered(database)
    attempt = await claim(database, sandboxes)
    assert attempt is not None
    assert [await result(database, attempt.sandbox_id, 1) for _ in range(3)] == [True, False, False]
    async with database.reading() as session:
        assert (await queries.get(session, order_id)).cost_usd == 0.5


async def test_a_replaced_sandbox_is_fenced(database: Database, sandboxes: Sandboxes) -> None:
    """W13: W16: late results change nothing."""
    await ordered(database)
    attempt = await claim(database, sandboxes)
    assert attempt is not None
    async with database.transaction() as session:
        old = await queries.attempt(session, attempt.attempt_id)
        await service.step_attempt(session, old, AttemptState.LOST, reason="silent")
        order = await queries.get(session, attempt.work_order_id)
        await service.move(session, order, OrderStatus.PENDING, reason="again")
    await claim(database, sandboxes)
    with pytest.raises(service.StaleFencing):
        await result(database, attempt.sandbox_id, 1)


async def test_cancelling_a_waiting_order_is_immediate(database: Database) -> None:
    order_id = await ordered(database)
    async with database.transaction() as session:
        await service.request_cancel(session, await queries.get(session, order_id))
    async with database.reading() as session:
        assert (await queries.get(session, order_id)).status == "cancelled"


async def test_a_completed_order_cannot_be_cancelled(database: Database, sandboxes: Sandboxes) -> None:
    order_id = await ordered(database)
    await claim(database, sandboxes)
    async with database.transaction() as session:
        await service.move(session, await queries.get(session, order_id), OrderStatus.COMPLETED, reason="done")
    async with database.transaction() as session:
        with pytest.raises(service.OrderFinished):
            await service.request_cancel(session, await queries.get(session, order_id))


async def test_retry_queues_a_failed_order_again_with_its_new_prompt(database: Database) -> None:
    order_id = await ordered(database)
    async with database.transaction() as session:
        order = await queries.get(session, order_id)
        await service.move(session, order, OrderStatus.FAILED, reason="it broke")
        await service.retry(session, order, prompt="again", agent=None, model=None, account=None)
    async with database.reading() as session:
        order = await queries.get(session, order_id)
    assert (order.status, order.prompts) == ("pending", ["again"])


@pytest.mark.parametrize(
    ("own", "given", "kept"), [(2.0, 3.0, 3.0), (3.0, 2.0, 3.0), (None, 2.0, None), (2.0, None, None)]
)
async def test_a_retry_takes_no_money_and_no_base_from_what_has_begun(
    database: Database, own: float | None, given: float | None, kept: float | None
) -> None:
    order_id = await ordered(database)
    async with database.transaction() as session:
        order = await queries.get(session, order_id)
        order.budget_usd, order.base_branch, order.base_commit = own, "main", "c" * 40
        await service.move(session, order, OrderStatus.FAILED, reason="it broke")
        terms = {"budget_usd": given, "base_branch": "other"}
        await service.retry(session, order, prompt="", agent=None, model=None, account=None, terms=terms)
    async with database.reading() as session:
        order = await queries.get(session, order_id)
    assert (order.budget_usd, order.base_branch) == (kept, "main")


async def test_what_is_asked_again_is_answered_again(database: Database) -> None:
    order_id = await ordered(database)
    async with database.transaction() as session:
        order = await queries.get(session, order_id)
        order.question = "title:tsk-1:abc"
        await service.move(session, order, OrderStatus.FAILED, reason="it broke")
        assert await service.take_answer(session, order_id)
        await service.retry(session, order, prompt="", agent=None, model=None, account=None)
        await service.move(session, order, OrderStatus.RUNNING, reason="claimed")
        order.answer = "A title"
        await service.move(session, order, OrderStatus.COMPLETED, reason="answered")
    async with database.transaction() as session:
        assert [one.answer for one in await queries.answers(session, "title")] == ["A title"]
        assert await service.take_answer(session, order_id)


async def test_every_move_of_an_order_is_an_event(database: Database, sandboxes: Sandboxes) -> None:
    order_id = await ordered(database)
    await claim(database, sandboxes)
    async with database.reading() as session:
        rows, _ = await queries.timeline(session, order_id, limit=100, offset=0)
    kinds = [row.event_type for row in rows]
    assert kinds == ["work_order.created", "work_order.status_changed", "sandbox.state_changed"]


async def test_claims_by_two_processes_share_the_work(database: Database, sandboxes: Sandboxes) -> None:
    """Two databases objects are two processes as far as connections go."""
    other = Database(database.url.render_as_string(hide_password=False))
    for _ in range(6):
        await ordered(database)
    theirs = Sandboxes(sandboxes.settings, other, "host-other")
    await asyncio.gather(*(claim(d, s) for _ in range(4) for d, s in ((database, sandboxes), (other, theirs))))
    async with database.reading() as session:
        taken = (await session.scalars(sa.select(Attempt.work_order_id))).all()
        running = (await session.scalars(sa.select(WorkOrder.status))).all()
    await other.close()
    assert (len(taken), len(set(taken)), running.count("running")) == (6, 6, 6)


async def test_a_repeated_request_answers_the_first_order(database: Database) -> None:
    order_id = await ordered(database, idempotency_key="k1", initial_prompt="do it")
    async with database.transaction() as session:
        order = await queries.locked(session, order_id)
        order.base_branch = "main"  # as when it has begun: that is no other request
        again = await service.repeated(session, "k1", **WISH, initial_prompt="do it")
        with pytest.raises(service.KeyReused):
            await service.repeated(session, "k1", **WISH, initial_prompt="do that")
        with pytest.raises(service.KeyReused):
            await service.repeated(session, "k1", **WISH | {"timeout_seconds": 61.0}, initial_prompt="do it")
    assert again is not None
    assert again.agent_work_order_id == order_id


async def test_a_step_whose_commits_were_refused_is_not_done(database: Database, sandboxes: Sandboxes) -> None:
    order_id = await ordered(database)
    attempt = await claim(database, sandboxes)
    assert attempt
    for step, note in (("plan", ""), ("build", "bundle_refused: a loose end")):
        async with database.transaction() as session:
            made = await service.add_artifact(session, attempt.sandbox_id, name="checkpoint.bundle", sha256="0", size=1)
            made.note = note
        async with database.transaction() as session:
            told = {"event_type": "workflow.phase_completed", "entity_type": "sandbox", "entity_id": "s", "source": "w"}
            session.add(EventRow(**told, xid=0, payload=f'{{"step":"{step}"}}', work_order_id=order_id))
    async with database.reading() as session:
        bundle = await queries.newest_bundle(session, order_id)
        assert await queries.steps_done(session, order_id, bundle) == {"plan"}
