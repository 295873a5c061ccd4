"""The project's own check on all live branches together: what fits alone may fail beside another."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from shopfloor.board import merge_queries
from shopfloor.board.models import Ticket, Union
from shopfloor.board.steps.integrate import integrate
from shopfloor.board.steps.together import Seen, check_together
from shopfloor.evidence.models import CheckRun
from shopfloor.kit.db import Database
from shopfloor.projects.models import Project
from tests.board.grounds import Ground
from tests.board.test_chain import make, settled
from tests.support.platform import Platform, folder, git, platform, sample_repository, until

CHECKED = {"union_check": True, "check_command": "true"}


@pytest.fixture
async def ground(database: Database, tmp_path: Path) -> Ground:
    made = Ground(database, tmp_path, settings=CHECKED)
    await made.project()
    return made


async def live(ground: Ground, ticket: str, files: dict[str, str]) -> None:
    await ground.ticket(ticket)
    await integrate(ground.tools, ticket, await ground.delivered(ticket, files))


async def look(ground: Ground) -> tuple[Union, CheckRun] | None:
    """As another process would, that has seen nothing."""
    await check_together(ground.tools, Seen(), "prj-1")
    async with ground.database.reading() as session:
        return await merge_queries.union(session, "prj-1")


async def runs(ground: Ground) -> int:
    async with ground.database.reading() as session:
        return await session.scalar(sa.select(sa.func.count()).select_from(CheckRun)) or 0


async def ends(ground: Ground, verdict: str = "passed") -> None:
    async with ground.database.transaction() as session:
        await session.execute(sa.update(CheckRun).values(state="done", verdict=verdict))


async def test_what_is_checked_holds_the_work_of_all(ground: Ground) -> None:
    await live(ground, "tkt-1", {"one.txt": "1\n"})
    await live(ground, "tkt-2", {"two.txt": "2\n"})
    found = await look(ground)
    assert found
    union, run = found
    place = ground.house.place(str(ground.origin)).orders
    assert {"one.txt", "two.txt"} <= set(git("ls-tree", "--name-only", run.commit, cwd=place).splitlines())
    assert (union.ticket_ids, union.commit) == (["tkt-1", "tkt-2"], run.commit)


async def test_a_branch_that_clashes_is_left_out(ground: Ground) -> None:
    await live(ground, "tkt-1", {"app.py": "print(1)\n"})
    await live(ground, "tkt-2", {"app.py": "print(2)\n"})
    await live(ground, "tkt-3", {"three.txt": "3\n"})
    found = await look(ground)
    assert found
    assert found[0].ticket_ids == ["tkt-1", "tkt-3"]


async def test_the_same_branches_are_checked_once(ground: Ground) -> None:
    await live(ground, "tkt-1", {"one.txt": "1\n"})
    for _ in range(3):
        await look(ground)
        await ends(ground)
    assert await runs(ground) == 1


async def test_one_run_at_a_time_and_the_newest_state_next(ground: Ground) -> None:
    await live(ground, "tkt-1", {"one.txt": "1\n"})
    await look(ground)
    for number in (2, 3):
        await live(ground, f"tkt-{number}", {f"{number}.txt": "x\n"})
        await look(ground)
    assert await runs(ground) == 1
    await ends(ground)
    found = await look(ground)
    assert found
    assert (await runs(ground), found[0].ticket_ids) == (2, ["tkt-1", "tkt-2", "tkt-3"])


async def test_what_could_not_be_judged_is_tried_three_times(ground: Ground) -> None:
    """An outage says nothing of the work."""
    await live(ground, "tkt-1", {"one.txt": "1\n"})
    for _ in range(5):
        await look(ground)
        await ends(ground, "error")
    assert await runs(ground) == 3


async def test_another_command_is_another_question(ground: Ground) -> None:
    await live(ground, "tkt-1", {"one.txt": "1\n"})
    await look(ground)
    await ends(ground)
    async with ground.database.transaction() as session:
        await session.execute(sa.text("UPDATE projects SET check_command = 'make test'"))
    await look(ground)
    assert await runs(ground) == 2


@pytest.mark.parametrize("off", ["union_check = FALSE", "check_command = NULL"])
async def test_nothing_is_run_that_nobody_asked_for(ground: Ground, off: str) -> None:
    await live(ground, "tkt-1", {"one.txt": "1\n"})
    async with ground.database.transaction() as session:
        await session.execute(sa.text(f"UPDATE projects SET {off}"))
    assert (await look(ground), await runs(ground)) == (None, 0)


async def test_it_is_shown_as_long_as_one_of_its_branches_lives(ground: Ground) -> None:
    for ticket in ("tkt-1", "tkt-2"):
        await live(ground, ticket, {f"{ticket}.txt": "x\n"})
    await look(ground)
    shown = []
    for ticket in ("tkt-1", "tkt-2"):
        async with ground.database.transaction() as session:
            await session.execute(sa.update(Ticket).where(Ticket.ticket_id == ticket).values(merge_commit="a" * 40))
        async with ground.database.reading() as session:
            found = await merge_queries.union_shown(session, await session.get_one(Project, "prj-1"))
        shown.append(found is not None)
    assert shown == [True, False]


@pytest.fixture
def house() -> Iterator[Platform]:
    with platform(scheduling={"retry_seconds": 0.2}, board={"sweep_seconds": 1}) as running:
        yield running


def test_what_fits_alone_and_fails_together_shows_on_the_board(house: Platform) -> None:
    with folder() as place:
        settings = {"autonomy": True, "union_check": True, "check_command": "! (test -e 1.txt && test -e 2.txt)"}
        body = {"name": "p", "repository_url": str(sample_repository(place)), "agent": "script"}
        project = house.post("/projects", body | settings, expect=201)["project_id"]
        tickets = []
        for number in (1, 2):
            script: list[Any] = [{"write": {"path": f"{number}.txt", "content": "yes\n"}}]
            holds = {"text": "it is there", "check": {"kind": "file", "path": f"{number}.txt", "exists": True}}
            tickets.append(make(house, project, script, [holds]))
        assert [settled(house, ticket)["status"] for ticket in tickets] == ["done", "done"]

        def failed() -> dict[str, Any] | None:
            union: dict[str, Any] = house.get("/board/view", project="p")["union"] or {}
            return union if union.get("verdict") == "failed" else None

        union = until(failed, what="the union to be judged")
        assert union["tickets"] == sorted(tickets)
        command = [sys.executable, "-m", "shopfloor.cli.main", "board", "p", "--url", f"http://127.0.0.1:{house.port}"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert "all 2 live branches together: failed" in said
