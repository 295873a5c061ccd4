"""A change that somebody merges while its ticket is at work again: what is delivered since is not merged, and is not lost."""

from collections.abc import Awaitable, Callable

import pytest

from shopfloor.board import merge_service, queries
from shopfloor.board.models import Ticket
from shopfloor.board.steps.integrate import integrate
from shopfloor.board.steps.merge_queue import advance, notice_merges
from shopfloor.board.steps.offer import offer
from shopfloor.forges import service as changes
from shopfloor.forges.models import Change
from shopfloor.forges.rules import ChangeState
from shopfloor.projects.steps import branches
from tests.board.grounds import Ground
from tests.support.platform import git


async def at_work_again(ground: Ground) -> Change:
    """A ticket in building whose change is open at what was made before."""
    await ground.ticket()
    await integrate(ground.tools, "tkt-1", await ground.delivered(files={"first.txt": "1\n"}))
    change = await offer(ground.tools, "tkt-1")
    assert change
    return change


async def mended(ground: Ground) -> None:
    await integrate(ground.tools, "tkt-1", await ground.delivered(files={"second.txt": "2\n"}))


async def merged_by_a_person(ground: Ground, change: Change) -> None:
    git("update-ref", "refs/heads/main", change.head_commit, cwd=ground.origin)
    async with ground.database.transaction() as session:
        await changes.end(session, change.change_id, ChangeState.MERGED, change.head_commit)


async def queue_merges_it(ground: Ground) -> Ticket:
    async with ground.database.transaction() as session:
        ticket = await queries.locked(session, "tkt-1")
        ticket.status = "done"
        await merge_service.enqueue(session, ticket)
    while await advance(ground.tools, "prj-1"):
        pass
    return await ground.card()


async def test_what_came_before_the_merge_was_seen_is_a_change_of_its_own(ground: Ground) -> None:
    change = await at_work_again(ground)
    await mended(ground)
    await merged_by_a_person(ground, change)
    assert await notice_merges(ground.tools) == 0
    second = await offer(ground.tools, "tkt-1")
    assert second
    assert (second.change_id != change.change_id, second.state) == (True, "open")
    assert (await queue_merges_it(ground)).merge_commit == ground.at("main")
    assert "second.txt" in ground.files("main")


async def test_what_came_after_the_merge_was_seen_is_merged_too(ground: Ground) -> None:
    change = await at_work_again(ground)
    await merged_by_a_person(ground, change)
    assert await notice_merges(ground.tools) == 1
    await mended(ground)
    ticket = await ground.card()
    assert (ticket.merge_commit, ticket.change_id) == (None, None)
    assert (await queue_merges_it(ground)).merge_commit == ground.at("main")
    assert "second.txt" in ground.files("main")


async def test_what_came_while_the_queue_merged_is_not_taken_for_merged(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    await at_work_again(ground)
    merge: Callable[..., Awaitable[Change]] = branches.merge

    async def slowly(*args: object, **named: object) -> Change:
        done = await merge(*args, **named)
        await mended(ground)
        return done

    monkeypatch.setattr(branches, "merge", slowly)
    ticket = await queue_merges_it(ground)
    assert (ticket.status, ticket.merge_commit) == ("building", None)
