"""Which tickets the board looks after by itself: none that may go on is hidden by those that may not."""

import asyncio
import contextlib
from types import SimpleNamespace
from typing import Any, cast

import pytest
import sqlalchemy as sa

from shopfloor.board import flow_queries, jobs, service
from shopfloor.board import queries as board
from shopfloor.board.jobs import SWEPT, Mover
from shopfloor.board.rules import BlockedClass
from shopfloor.board.steps.integrate import integrate
from shopfloor.board.steps.offer import offer
from shopfloor.forges.service import PolicyRefused
from shopfloor.kit.config import Settings
from shopfloor.kit.db import db_time
from shopfloor.kit.errors import Unavailable
from shopfloor.tasks.models import Task
from tests.board.desk import Desk
from tests.board.grounds import Ground
from tests.board.test_mover import CRITERION


async def backlog(desk: Desk) -> tuple[str, list[str]]:
    """A ticket that many wait for, and two that may begin, behind those."""
    first = await desk.ticket("First", priority="critical")
    for number in range(25):
        await desk.ticket(f"Waits {number}", blocked_by=[first], priority="high")
    return first, [await desk.ticket(f"Free {number}") for number in range(2)]


async def test_those_that_wait_for_others_hide_none_that_may_begin(desk: Desk) -> None:
    await desk.project(autonomy=True)
    first, free = await backlog(desk)
    async with desk.database.reading() as session:
        assert set(await flow_queries.stirring(session)) == {first, *free}


async def test_a_place_that_becomes_free_is_offered_to_those_that_may_begin(desk: Desk) -> None:
    _, free = await backlog(desk)
    left = await desk.ticket("Left", criteria=[CRITERION])
    for _ in range(2):
        await desk.post(f"/tickets/{left}/progress")
    async with desk.database.reading() as session:
        assert set(free) < set(await flow_queries.neighbours(session, left, "analyzing"))


async def test_a_project_that_may_analyze_more_has_more_looked_at(desk: Desk) -> None:
    await desk.project(autonomy=True, wip_limits={"analyzing": 7})
    for number in range(9):
        await desk.ticket(f"Number {number}")
    async with desk.database.reading() as session:
        assert len(await flow_queries.stirring(session)) == 7


async def test_what_moves_only_by_hand_is_swept_only_for_what_nobody_told_of(desk: Desk) -> None:
    """Tickets of projects without autonomy have nowhere to go by themselves, but for work on its way and a block that ends."""
    idle, delivered, blocked, by_person = [await desk.ticket(f"Number {n}", criteria=[CRITERION]) for n in range(4)]
    for ticket in (idle, delivered, blocked, by_person):
        for _ in range(2):
            await desk.post(f"/tickets/{ticket}/progress")
    wish = {"project": "p", "ticket_id": delivered, "phase": "building", "title": "b"}
    task = (await desk.post("/tasks", wish, expect=201))["task_id"]
    await desk.post(f"/results/{task}", {"status": "completed", "summary": "said"})
    await desk.post(f"/tickets/{by_person}/block", {"reason": "wait"})
    async with desk.database.transaction() as session:
        await session.execute(sa.update(Task).where(Task.task_id == task).values(gathered=False))
        row = await board.locked(session, blocked)
        await service.block(session, row, BlockedClass.DEPENDENCY, reason="waits", who=service.BOARD)
    async with desk.database.reading() as session:
        assert set(await flow_queries.stirring(session)) == {delivered, blocked}


class Looking(Mover):
    """Notes who has a turn, and does nothing."""

    async def look_after(self, ticket_id: str) -> None:
        self.turns: list[str] = [*getattr(self, "turns", []), ticket_id]
        if ticket_id == "last":
            raise asyncio.CancelledError


async def test_what_happened_goes_before_what_is_only_looked_at_again() -> None:
    """A sweep of many tickets keeps nobody waiting, and each has one turn."""
    mover = Looking(tools=cast("Any", None), background=cast("Any", None))
    for ticket in ("a", "b", "c", "last"):
        mover.want(ticket, turn=SWEPT)
    for ticket in ("c", "d", "c"):
        mover.want(ticket)
    with contextlib.suppress(asyncio.CancelledError):
        await mover._work()
    assert mover.turns == ["c", "d", "a", "b", "last"]


async def test_work_that_may_not_be_pushed_is_told_on_the_card_until_it_is_taken(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only in a log: somebody must give the right, or take out what offends."""
    await ground.ticket()
    await ground.delivered()
    tools = SimpleNamespace(**vars(ground.tools), settings=Settings(data_dir=ground.place))
    mover = Mover(tools=cast("Any", tools), background=cast("Any", None))

    async def refused(*_: object, **__: object) -> None:
        raise PolicyRefused("secret.pem: a private key")

    with monkeypatch.context() as patched:
        patched.setattr(ground.house, "push", refused)
        await mover.look_after("tkt-1")
    card = await ground.card()
    assert (card.is_blocked, card.blocked_class, card.head_commit) == (True, "environment", None)
    assert "a private key" in card.blocked_reason
    assert PolicyRefused.hint in card.blocked_reason
    await mover.look_after("tkt-1")
    card = await ground.card()
    assert (card.is_blocked, card.head_commit) == (False, ground.at("feat-tkt-1"))


async def test_what_an_archived_ticket_made_is_not_brought_to_its_branch(ground: Ground) -> None:
    await ground.ticket(archived_at=db_time())
    await ground.delivered()
    await Mover(tools=ground.tools, background=cast("Any", None)).look_after("tkt-1")
    assert (await ground.card()).head_commit is None


async def test_what_is_only_away_for_now_blocks_nothing(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    await ground.ticket()
    await ground.delivered()

    async def away(*_: object) -> None:
        raise Unavailable

    monkeypatch.setattr(jobs, "take_in", away)
    mover = Mover(tools=ground.tools, background=cast("Any", None))
    with pytest.raises(Unavailable):
        await mover.look_after("tkt-1")
    assert not (await ground.card()).is_blocked


async def test_a_forge_is_not_told_again_what_it_knows(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ticket that a gate holds is looked at every few seconds."""
    await ground.ticket()
    await integrate(ground.tools, "tkt-1", await ground.delivered())
    told, real = list[str](), ground.house.forge

    def forge(url: str) -> Any:
        told.append(url)
        return real(url)

    monkeypatch.setattr(ground.house, "forge", forge)
    changes = [await offer(ground.tools, "tkt-1") for _ in range(3)]
    assert (len(told), len({change and change.change_id for change in changes})) == (1, 1)
    async with ground.database.transaction() as session:
        await service.change(session, await board.locked(session, "tkt-1"), title="Say it better")
    await offer(ground.tools, "tkt-1")
    assert len(told) == 2
