"""Merges in conflict with other requests, other hosts and kill -9: the base branch and the change always tell the same story."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from shopfloor.events.models import EventRow
from shopfloor.forges import queries, turns
from shopfloor.forges.models import Change
from shopfloor.forges.port import ChangeEnded
from shopfloor.forges.service import Repositories
from shopfloor.forges.steps import merge as merging
from shopfloor.kit.db import Database
from shopfloor.kit.errors import Conflict
from tests.forges.conftest import PROTOCOLS
from tests.forges.support import Gate, Sandbox, age, commit, deliver, offer
from tests.support import git_http
from tests.support.platform import git

MERGE = """
import asyncio, sys
from pathlib import Path
from shopfloor.forges.service import Repositories
from shopfloor.forges.steps import merge
from shopfloor.kit.db import Database
root, database, change_id, squash = sys.argv[1:]
house = Repositories(Path(root), protocols=frozenset({"http", "file"}))
asyncio.run(merge.merge(Database(database), house, change_id, squash=squash == "True"))
"""


@pytest.fixture
async def served(
    house: Repositories, database: Database, box: Sandbox, server: git_http.GitServer, origin: Path
) -> Change:
    """An open change of an origin behind a server, whose hooks run."""
    assert (origin / "HEAD").exists()
    return await deliver(house, database, box, server.url("origin.git"), {"new.txt": "new\n"})


@pytest.fixture
def neighbour(house: Repositories, database: Database, place: Path) -> Repositories:
    """Another process of this host (SQLite), or another host (PostgreSQL)."""
    root = house.root if database.sqlite else place / "other host"
    return Repositories(root, protocols=PROTOCOLS)


async def state(database: Database, change: Change) -> str:
    async with database.reading() as session:
        return (await queries.get(session, change.change_id)).state


async def blocked(task: asyncio.Task[Change]) -> bool:
    """Whether it still waits after a second, in which it would have ended long ago."""
    done, _ = await asyncio.wait({task}, timeout=1)
    return not done


def commits_on_main(origin: Path) -> int:
    return int(git("rev-list", "--count", "--first-parent", "main", cwd=origin))


async def test_a_close_during_a_merge_waits_and_is_refused(
    served: Change, house: Repositories, neighbour: Repositories, database: Database, origin: Path, place: Path
) -> None:
    gate = Gate(origin, place / "gate", "pre-receive")
    merge = asyncio.create_task(merging.merge(database, house, served.change_id))
    await gate.reached()
    close = asyncio.create_task(merging.close(database, neighbour, served.change_id))
    waited = await blocked(close)
    await gate.open()
    assert (await merge).merge_commit == git("rev-parse", "main", cwd=origin)
    with pytest.raises(Conflict, match="merged cannot become closed"):
        await close
    assert waited
    assert await state(database, served) == "merged"


async def test_of_a_merge_and_a_close_at_once_main_and_the_change_tell_the_same_winner(
    served: Change, house: Repositories, neighbour: Repositories, database: Database, origin: Path
) -> None:
    merge, close = await asyncio.gather(
        merging.merge(database, house, served.change_id),
        merging.close(database, neighbour, served.change_id),
        return_exceptions=True,
    )
    merged = await state(database, served) == "merged"
    assert (isinstance(close, Conflict), isinstance(merge, Conflict)) == (merged, not merged)
    assert commits_on_main(origin) == (2 if merged else 1)


async def test_two_squashes_at_once_make_one_commit(
    served: Change, house: Repositories, neighbour: Repositories, database: Database, origin: Path, place: Path
) -> None:
    gate = Gate(origin, place / "gate", "pre-receive")
    first = asyncio.create_task(merging.merge(database, house, served.change_id, squash=True))
    await gate.reached()
    second = asyncio.create_task(merging.merge(database, neighbour, served.change_id, squash=True))
    await blocked(second)
    await gate.open()
    ended = await asyncio.gather(first, second)
    assert {change.merge_commit for change in ended} == {git("rev-parse", "main", cwd=origin)}
    assert commits_on_main(origin) == 2


async def test_six_merges_at_once_are_one(
    served: Change, house: Repositories, neighbour: Repositories, database: Database, origin: Path
) -> None:
    hosts = (house, neighbour) * 3
    ended = await asyncio.gather(*(merging.merge(database, host, served.change_id, squash=True) for host in hosts))
    assert {change.merge_commit for change in ended} == {git("rev-parse", "main", cwd=origin)}
    assert commits_on_main(origin) == 2
    async with database.reading() as session:
        merged = sa.select(sa.func.count()).where(EventRow.event_type == "change.merged")
        assert await session.scalar(merged) == 1


async def test_a_squash_that_brings_nothing_is_refused(
    change: Change, house: Repositories, database: Database, origin: Path, work: Path
) -> None:
    by_hand = commit(work, "the same by hand", {"new.txt": "new\n"})
    git("push", "-q", str(origin), "main", cwd=work)
    with pytest.raises(Conflict) as caught:
        await merging.merge(database, house, change.change_id, squash=True)
    assert (caught.value.code, await state(database, change)) == ("nothing_to_merge", "open")
    assert git("rev-parse", "main", cwd=origin) == by_hand


async def killed_after_its_push(
    house: Repositories, database: Database, change: Change, gate: Gate, squash: bool
) -> None:
    """kill -9 a merging process when the origin has its commit and the answer is not yet given."""
    url = database.url.render_as_string(hide_password=False)
    environment = {**os.environ, "PYTHONPATH": "src"}
    arguments = (str(house.root), url, change.change_id, str(squash))
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", MERGE, *arguments, env=environment)
    await gate.reached()
    process.send_signal(signal.SIGKILL)
    await process.wait()
    await gate.open()


@pytest.mark.parametrize("squash", [True, False])
async def test_a_look_finishes_a_merge_that_was_killed_after_its_push(
    served: Change,
    house: Repositories,
    database: Database,
    client: httpx.AsyncClient,
    origin: Path,
    place: Path,
    squash: bool,
) -> None:
    await killed_after_its_push(house, database, served, Gate(origin, place / "gate", "post-receive"), squash)
    await age(database, served)
    seen = (await client.get(f"/changes/{served.change_id}")).json()
    assert (seen["state"], seen["merge_commit"]) == ("merged", git("rev-parse", "main", cwd=origin))
    assert seen["merged_at"]


async def test_a_close_finds_a_merge_that_was_killed_after_its_push(
    served: Change, house: Repositories, database: Database, origin: Path, place: Path
) -> None:
    await killed_after_its_push(house, database, served, Gate(origin, place / "gate", "post-receive"), squash=True)
    with pytest.raises(Conflict, match="merged cannot become closed"):
        await merging.close(database, house, served.change_id)
    assert await state(database, served) == "merged"


async def test_another_host_makes_a_merge_whose_plan_was_never_pushed(
    served: Change, neighbour: Repositories, database: Database, origin: Path
) -> None:
    async with database.transaction() as session:
        await session.execute(sa.update(Change).values(planned_commit="1" * 40))
    merged = await merging.merge(database, neighbour, served.change_id)
    assert merged.merge_commit == git("rev-parse", "main", cwd=origin)


async def test_a_look_during_a_merge_waits_for_nothing(
    served: Change, house: Repositories, database: Database, client: httpx.AsyncClient, origin: Path, place: Path
) -> None:
    gate = Gate(origin, place / "gate", "post-receive")
    merge = asyncio.create_task(merging.merge(database, house, served.change_id))
    await gate.reached()
    await age(database, served)
    seen = (await client.get(f"/changes/{served.change_id}")).json()
    assert (seen["state"], merge.done()) == ("open", False)
    await gate.open()
    assert (await merge).state == "merged"


async def test_a_delivery_during_a_merge_becomes_a_change_of_its_own(
    served: Change, house: Repositories, database: Database, box: Sandbox, origin: Path, place: Path
) -> None:
    head = box.commit("more", {"more.txt": "more\n"})
    await house.import_bundle(served.repository_url, box.bundle(), **box.request())
    gate = Gate(origin, place / "gate", "pre-receive")
    merge = asyncio.create_task(merging.merge(database, house, served.change_id))
    await gate.reached()
    delivery = asyncio.create_task(offer(house, database, box, served.repository_url, head))
    await blocked(delivery)
    await gate.open()
    merged, delivered = await asyncio.gather(merge, delivery)
    assert (merged.head_commit, merged.state) == (served.head_commit, "merged")
    assert (delivered.head_commit, delivered.state) == (head, "open")
    assert delivered.change_id != merged.change_id


HOLDER = sa.text("SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = :turns AND granted")


async def holder(database: Database) -> int:
    """The connection that holds a change's turn on PostgreSQL."""
    async with asyncio.timeout(60):
        while True:
            async with database.reading() as session:
                if pid := await session.scalar(HOLDER, {"turns": turns.TURNS}):
                    return int(pid)
            await asyncio.sleep(0.02)


async def test_a_merge_that_lost_its_turn_pushes_nothing(
    change: Change, house: Repositories, database: Database, origin: Path
) -> None:
    if database.sqlite:
        pytest.skip("the file's lock lasts as long as the process")
    async with house.place(str(origin)).locked():
        merge = asyncio.create_task(merging.merge(database, house, change.change_id))
        pid = await holder(database)
        async with database.transaction() as session:
            await session.execute(sa.text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
    with pytest.raises(turns.TurnLost):
        await merge
    assert (commits_on_main(origin), await state(database, change)) == (1, "open")


async def test_a_turn_takes_no_place_in_the_pool(change: Change, database: Database, house: Repositories) -> None:
    if database.sqlite:
        pytest.skip("SQLite needs no connection for it")
    before = database.writer.pool.checkedout()  # type: ignore[attr-defined]
    async with turns.turn(database, house.place(change.repository_url), change.change_id, patience=0):
        assert database.writer.pool.checkedout() == before  # type: ignore[attr-defined]
        assert await holder(database)
    async with turns.turn(database, house.place(change.repository_url), change.change_id, patience=0):
        pass


async def test_a_change_that_ended_before_its_push_is_not_pushed(
    change: Change, house: Repositories, database: Database, origin: Path
) -> None:
    async with house.place(str(origin)).locked():
        merge = asyncio.create_task(merging.merge(database, house, change.change_id))
        assert await blocked(merge)
        async with database.transaction() as session:
            await session.execute(sa.update(Change).values(state="closed"))
    with pytest.raises(ChangeEnded):
        await merge
    assert commits_on_main(origin) == 1


async def test_who_waits_too_long_for_a_turn_is_told(
    change: Change, house: Repositories, neighbour: Repositories, database: Database
) -> None:
    async with turns.turn(database, house.place(change.repository_url), change.change_id, patience=0):
        with pytest.raises(turns.ChangeBusy):
            async with turns.turn(database, neighbour.place(change.repository_url), change.change_id, patience=0.3):
                pass


async def test_no_lock_is_left_of_a_change_that_ended(
    change: Change, house: Repositories, database: Database, origin: Path
) -> None:
    await merging.merge(database, house, change.change_id)
    assert sorted(path.name for path in house.place(str(origin)).folder.glob("change-*")) == []
