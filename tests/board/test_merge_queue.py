"""The merge queue: what fits and passes is merged one at a time, what breaks it is found by halves, nothing is forced."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from shopfloor.board import merge_queries, merge_service, queries
from shopfloor.board.models import QueuedMerge
from shopfloor.board.steps.integrate import integrate
from shopfloor.board.steps.merge_queue import advance, notice_merges
from shopfloor.board.steps.offer import offer
from shopfloor.evidence.models import CheckRun
from shopfloor.forges.steps import merge
from shopfloor.projects.models import Project
from tests.board.grounds import Ground
from tests.support.platform import git


async def queued(ground: Ground, ticket: str, files: dict[str, str]) -> None:
    """A ticket whose work is offered, in the queue."""
    await ground.ticket(ticket, status="done")
    await integrate(ground.tools, ticket, await ground.delivered(ticket, files))
    await offer(ground.tools, ticket)
    async with ground.database.transaction() as session:
        await merge_service.enqueue(session, await queries.locked(session, ticket))


async def with_check(ground: Ground) -> None:
    async with ground.database.transaction() as session:
        (await session.get_one(Project, "prj-1")).check_command = "test ! -e bad.txt"


async def judge(ground: Ground) -> None:
    """What the check finds: its commits are looked at with git, as the sandbox would find them."""
    async with ground.database.transaction() as session:
        for run in await session.scalars(sa.select(CheckRun).where(CheckRun.verdict.is_(None))):
            place = ground.house.place(str(ground.origin))
            files = git("ls-tree", "-r", "--name-only", run.commit, cwd=place.orders)
            run.verdict = "failed" if "bad.txt" in files.split() else "passed"
            run.state, run.reason = "done", "bad.txt is there" if run.verdict == "failed" else ""


async def served(ground: Ground) -> int:
    """Serve the queue until it rests; answers how many checks it took."""
    for _ in range(60):
        if not await advance(ground.tools, "prj-1"):
            await judge(ground)
            if not await advance(ground.tools, "prj-1"):
                break
    async with ground.database.reading() as session:
        return await session.scalar(sa.select(sa.func.count()).where(CheckRun.purpose == "union")) or 0


async def states(ground: Ground) -> dict[str, str]:
    async with ground.database.reading() as session:
        rows: Sequence[QueuedMerge] = (await session.scalars(sa.select(QueuedMerge))).all()
    return {row.ticket_id: row.state for row in rows}


async def test_what_fits_is_merged(ground: Ground) -> None:
    """GIT-03"""
    for number in range(3):
        await queued(ground, f"tkt-{number}", {f"{number}.txt": "x\n"})
    assert await served(ground) == 0
    assert await states(ground) == {f"tkt-{number}": "merged" for number in range(3)}
    assert {"0.txt", "1.txt", "2.txt"} <= ground.files("main")
    assert (await ground.card("tkt-2")).merge_commit == ground.at("main")


async def test_all_that_wait_are_checked_as_one(ground: Ground) -> None:
    await with_check(ground)
    for number in range(4):
        await queued(ground, f"tkt-{number}", {f"{number}.txt": "x\n"})
    assert await served(ground) == 1
    assert set((await states(ground)).values()) == {"merged"}


async def test_the_one_that_breaks_it_is_found_by_halves_and_the_others_are_merged(ground: Ground) -> None:
    await with_check(ground)
    for number in range(5):
        await queued(ground, f"tkt-{number}", {"bad.txt" if number == 3 else f"{number}.txt": "x\n"})
    assert await served(ground) <= 6
    assert await states(ground) == {f"tkt-{n}": "refused" if n == 3 else "merged" for n in range(5)}
    assert "bad.txt" not in ground.files("main")


async def test_what_clashes_with_the_base_is_refused_and_names_the_files(ground: Ground) -> None:
    await queued(ground, "tkt-1", {"app.py": "print(1)\n"})
    ground.push_as_person("main", {"app.py": "print('by hand')\n"})
    await served(ground)
    async with ground.database.reading() as session:
        row = await merge_queries.queued(session, "tkt-1")
    assert row
    assert (row.state, "app.py" in row.reason) == ("refused", True)
    assert git("show", "main:app.py", cwd=ground.origin) == "print('by hand')"


async def test_of_two_that_clash_the_first_is_merged_and_the_second_told(ground: Ground) -> None:
    await queued(ground, "tkt-1", {"app.py": "print(1)\n"})
    await queued(ground, "tkt-2", {"app.py": "print(2)\n"})
    await served(ground)
    assert await states(ground) == {"tkt-1": "merged", "tkt-2": "refused"}


async def test_a_branch_that_moved_since_is_not_merged(ground: Ground) -> None:
    """What was proven is not what would be merged."""
    await queued(ground, "tkt-1", {"1.txt": "x\n"})
    await integrate(ground.tools, "tkt-1", await ground.delivered("tkt-1", {"more.txt": "x\n"}))
    await served(ground)
    assert await states(ground) == {"tkt-1": "left"}
    assert "1.txt" not in ground.files("main")


@pytest.mark.parametrize("change", [{"status": "building"}, {"archived_at": datetime(2026, 1, 1, tzinfo=UTC)}])
async def test_what_is_not_done_any_more_is_not_merged(ground: Ground, change: dict[str, Any]) -> None:
    await with_check(ground)
    await queued(ground, "tkt-1", {"1.txt": "x\n"})
    await queued(ground, "tkt-2", {"2.txt": "x\n"})
    await advance(ground.tools, "prj-1")
    await judge(ground)
    async with ground.database.transaction() as session:
        ticket = await queries.locked(session, "tkt-1")
        for name, value in change.items():
            setattr(ticket, name, value)
    await served(ground)
    assert await states(ground) == {"tkt-1": "left", "tkt-2": "merged"}
    assert "1.txt" not in ground.files("main")


async def test_what_was_checked_only_together_with_one_that_is_not_merged_is_checked_again(ground: Ground) -> None:
    await with_check(ground)
    await queued(ground, "tkt-1", {"1.txt": "x\n"})
    await queued(ground, "tkt-2", {"bad.txt": "x\n"})
    await advance(ground.tools, "prj-1")
    async with ground.database.transaction() as session:  # with the other's work beside it, it passes
        await session.execute(sa.update(CheckRun).values(state="done", verdict="passed"))
    await advance(ground.tools, "prj-1")
    async with ground.database.transaction() as session:
        (await queries.locked(session, "tkt-1")).status = "building"
    await served(ground)
    assert await states(ground) == {"tkt-1": "left", "tkt-2": "refused"}
    assert "bad.txt" not in ground.files("main")


async def test_a_check_that_could_not_be_judged_is_tried_again_and_then_left_to_a_person(ground: Ground) -> None:
    """An outage says nothing of the work. It is merged in memory anew each time: the host that has the commit may be gone."""
    await with_check(ground)
    await queued(ground, "tkt-1", {"1.txt": "x\n"})
    for _ in range(7):
        await advance(ground.tools, "prj-1")
        async with ground.database.transaction() as session:
            for run in await session.scalars(sa.select(CheckRun).where(CheckRun.verdict.is_(None))):
                run.verdict, run.state, run.reason = "error", "done", "no place"
    assert await states(ground) == {"tkt-1": "left"}
    async with ground.database.reading() as session:
        assert await session.scalar(sa.select(sa.func.count()).select_from(CheckRun)) == 3


async def test_a_ticket_that_was_never_offered_is_offered_by_the_queue(ground: Ground) -> None:
    await ground.ticket("tkt-1", status="done")
    await integrate(ground.tools, "tkt-1", await ground.delivered("tkt-1"))
    async with ground.database.transaction() as session:
        await merge_service.enqueue(session, await queries.locked(session, "tkt-1"))
    await served(ground)
    assert await states(ground) == {"tkt-1": "merged"}


async def test_a_merge_past_the_queue_is_noticed(ground: Ground) -> None:
    await ground.ticket("tkt-1", status="done")
    await integrate(ground.tools, "tkt-1", await ground.delivered("tkt-1"))
    change = await offer(ground.tools, "tkt-1")
    assert change
    done = await merge.merge(ground.database, ground.house, change.change_id)
    assert await notice_merges(ground.tools) == 1
    assert (await ground.card("tkt-1")).merge_commit == done.merge_commit
    assert await notice_merges(ground.tools) == 0
