"""A ticket's branch: the work of its tasks comes together there, whatever happens between."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
import sqlalchemy as sa

from shopfloor.board.rules import LONGEST_TASK
from shopfloor.board.steps.integrate import integrate, take_in
from shopfloor.board.steps.offer import offer
from shopfloor.kit.config import Settings
from shopfloor.tasks.models import Task
from tests.board.grounds import Ground


async def test_the_first_work_makes_the_branch(ground: Ground) -> None:
    await ground.ticket()
    assert await integrate(ground.tools, "tkt-1", await ground.delivered()) == []
    card = await ground.card()
    assert (card.branch, card.head_commit) == ("feat-tkt-1", ground.at("feat-tkt-1"))
    assert card.base_commit == ground.at("main")
    assert "tsk-1.txt" in ground.files("feat-tkt-1")


async def test_work_done_side_by_side_comes_together(ground: Ground) -> None:
    await ground.ticket()
    for task in [await ground.delivered(), await ground.delivered()]:
        assert await integrate(ground.tools, "tkt-1", task) == []
    assert {"tsk-1.txt", "tsk-2.txt"} <= ground.files("feat-tkt-1")
    assert (await ground.card()).head_commit == ground.at("feat-tkt-1")


async def test_two_at_the_same_moment_are_both_in(ground: Ground) -> None:
    await ground.ticket()
    tasks = [await ground.delivered() for _ in range(3)]
    assert await asyncio.gather(*(integrate(ground.tools, "tkt-1", task) for task in tasks)) == [[], [], []]
    assert {f"{task}.txt" for task in tasks} <= ground.files("feat-tkt-1")


async def test_work_that_is_in_already_changes_nothing(ground: Ground) -> None:
    await ground.ticket()
    task = await ground.delivered()
    await integrate(ground.tools, "tkt-1", task)
    before = ground.at("feat-tkt-1")
    assert await integrate(ground.tools, "tkt-1", task) == []
    assert ground.at("feat-tkt-1") == before


async def test_a_crash_between_the_push_and_the_note_is_made_good(ground: Ground) -> None:
    await ground.ticket()
    await integrate(ground.tools, "tkt-1", await ground.delivered())
    task, noted = await ground.delivered(), (await ground.card()).head_commit
    await integrate(ground.tools, "tkt-1", task)
    pushed = ground.at("feat-tkt-1")
    async with ground.database.transaction() as session:
        (await session.merge(await ground.card())).head_commit = noted
    await integrate(ground.tools, "tkt-1", task)
    assert (await ground.card()).head_commit == pushed == ground.at("feat-tkt-1")


async def test_what_a_person_pushed_there_stays(ground: Ground) -> None:
    await ground.ticket()
    await integrate(ground.tools, "tkt-1", await ground.delivered())
    ground.push_as_person("feat-tkt-1", {"by hand.txt": "mine\n"})
    await integrate(ground.tools, "tkt-1", await ground.delivered())
    assert {"by hand.txt", "tsk-1.txt"} <= ground.files("feat-tkt-1")


async def test_a_conflict_is_named_and_nothing_is_pushed(ground: Ground) -> None:
    await ground.ticket()
    first, second = [await ground.delivered(files={"app.py": f"print({n})\n"}) for n in range(2)]
    await integrate(ground.tools, "tkt-1", first)
    before = ground.at("feat-tkt-1")
    assert await integrate(ground.tools, "tkt-1", second) == ["app.py"]
    assert ground.at("feat-tkt-1") == before == (await ground.card()).head_commit


@pytest.mark.parametrize(
    ("columns", "held"),
    [
        ({"approval": "approved"}, False),
        ({"approval": "rejected"}, True),
        ({"approval": "approved", "is_blocked": True, "blocked_who": "person:me"}, True),
        ({"approval": "approved", "status": "testing"}, True),
    ],
)
async def test_what_is_done_anew_starts_only_when_its_ticket_lets_it(
    ground: Ground, columns: dict[str, Any], held: bool
) -> None:
    await ground.ticket(**columns)
    first, second = [await ground.delivered(files={"app.py": f"print({n})\n"}) for n in range(2)]
    tools = cast("Any", SimpleNamespace(**vars(ground.tools), settings=Settings(data_dir=ground.place)))
    for task_id in (first, second):
        await take_in(tools, "tkt-1", task_id)
    async with ground.database.reading() as session:
        (again,) = await session.scalars(sa.select(Task).where(Task.status == "pending"))
    assert again.held is held


async def test_what_is_done_anew_fits_into_a_task_with_all_that_is_told(ground: Ground) -> None:
    await ground.ticket()
    first, second = [await ground.delivered(files={"app.py": f"print({n})\n"}) for n in range(2)]
    async with ground.database.transaction() as session:
        (await session.get_one(Task, second)).description = "x" * LONGEST_TASK
    tools = cast("Any", SimpleNamespace(**vars(ground.tools), settings=Settings(data_dir=ground.place)))
    for task_id in (first, second):
        await take_in(tools, "tkt-1", task_id)
    async with ground.database.reading() as session:
        (again,) = await session.scalars(sa.select(Task).where(Task.status == "pending"))
    assert len(again.description) == LONGEST_TASK
    assert f"are in task {second}.)" in again.description
    assert again.description.endswith("app.py. Do it again on what is there now.")


async def test_work_that_began_later_does_not_move_what_is_proven_against(ground: Ground) -> None:
    """Where the base is gone no fork can be found: then what was noted first stays."""
    first = ground.at("main")
    await ground.ticket(base_branch="gone", base_commit=first)
    ground.push_as_person("main", {"later.txt": "later\n"})
    await integrate(ground.tools, "tkt-1", await ground.delivered())
    assert (await ground.card()).base_commit == first


async def test_the_branch_is_offered_once_as_one_change(ground: Ground) -> None:
    """GIT-02"""
    await ground.ticket()
    assert await offer(ground.tools, "tkt-1") is None
    await integrate(ground.tools, "tkt-1", await ground.delivered())
    first = await offer(ground.tools, "tkt-1")
    await integrate(ground.tools, "tkt-1", await ground.delivered())
    second = await offer(ground.tools, "tkt-1")
    assert first
    assert second
    assert first.change_id == second.change_id == (await ground.card()).change_id
    assert second.head_commit == ground.at("feat-tkt-1")
