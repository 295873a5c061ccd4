"""Which tickets the board looks after by itself: none that may go on is hidden by those that may not."""

from shopfloor.board import flow_queries
from tests.board.desk import Desk
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
