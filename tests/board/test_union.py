"""The union check: conflicts and staleness stand on both cards before anybody merges."""

import sqlalchemy as sa

from shopfloor.board.steps.integrate import integrate
from shopfloor.board.steps.union import Unions, check_union
from shopfloor.events.models import EventRow
from tests.board.grounds import Ground


async def live(ground: Ground, ticket: str, files: dict[str, str]) -> None:
    await ground.ticket(ticket)
    await integrate(ground.tools, ticket, await ground.delivered(ticket, files))


async def test_branches_that_clash_say_so_on_both_cards(ground: Ground) -> None:
    await live(ground, "tkt-1", {"app.py": "print(1)\n"})
    await live(ground, "tkt-2", {"app.py": "print(2)\n"})
    await live(ground, "tkt-3", {"other.py": "3\n"})
    await check_union(ground.tools, Unions(), "prj-1")
    assert (await ground.card("tkt-1")).conflicts == [{"with": "tkt-2", "paths": ["app.py"]}]
    assert (await ground.card("tkt-2")).conflicts == [{"with": "tkt-1", "paths": ["app.py"]}]
    assert (await ground.card("tkt-3")).conflicts == []


async def test_a_base_that_moved_on_shows_as_staleness_and_as_conflict(ground: Ground) -> None:
    await live(ground, "tkt-1", {"app.py": "print(1)\n"})
    ground.push_as_person("main", {"app.py": "print('by hand')\n"})
    await check_union(ground.tools, Unions(), "prj-1")
    card = await ground.card()
    assert (card.behind, card.conflicts) == (1, [{"with": "main", "paths": ["app.py"]}])


async def test_a_conflict_that_was_solved_goes(ground: Ground) -> None:
    known = Unions()
    await live(ground, "tkt-1", {"app.py": "print(1)\n"})
    await live(ground, "tkt-2", {"app.py": "print(2)\n"})
    await check_union(ground.tools, known, "prj-1")
    ground.push_as_person("feat-tkt-2", {"app.py": "print('hello')\n", "two.py": "2\n"})
    await check_union(ground.tools, known, "prj-1")
    assert (await ground.card("tkt-1")).conflicts == (await ground.card("tkt-2")).conflicts == []


async def test_what_somebody_pushed_to_a_tickets_branch_is_its_head(ground: Ground) -> None:
    """Evidence of the old head is stale from then on."""
    await live(ground, "tkt-1", {"one.py": "1\n"})
    pushed = ground.push_as_person("feat-tkt-1", {"two.py": "2\n"})
    await check_union(ground.tools, Unions(), "prj-1")
    assert (await ground.card()).head_commit == pushed


async def test_only_news_is_told(ground: Ground) -> None:
    await live(ground, "tkt-1", {"app.py": "print(1)\n"})
    await live(ground, "tkt-2", {"app.py": "print(2)\n"})
    for _ in range(3):
        await check_union(ground.tools, Unions(), "prj-1")
    async with ground.database.reading() as session:
        told = sa.select(sa.func.count()).where(EventRow.event_type == "ticket.union_checked")
        assert await session.scalar(told) == 2
