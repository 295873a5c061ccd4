"""The board: what its view, a move and the search for duplicates cost with many tickets, as a multiple of a thousand."""

import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from tests.board.desk import Desk, desk

from shopfloor.board.models import Ticket
from shopfloor.evidence.models import Criterion
from shopfloor.kit import log
from shopfloor.tasks.models import Task

SIZES = (1_000, 10_000)
ROUNDS = 15
GOAL = 2.0
SPREAD = (("backlog", 30), ("analyzing", 5), ("building", 10), ("building-done", 5), ("testing", 8), ("done", 10**9))
NOUNS = [
    "gate",
    "door",
    "wall",
    "roof",
    "lamp",
    "clock",
    "bridge",
    "tower",
    "garden",
    "well",
    "fence",
    "barn",
    "mill",
    "oven",
    "stair",
    "cellar",
]
VERBS = [
    "mend",
    "paint",
    "oil",
    "lift",
    "clean",
    "move",
    "count",
    "sell",
    "wash",
    "draw",
    "build",
    "hide",
    "warm",
    "sort",
    "weigh",
    "open",
]


async def fill(made: Desk, size: int) -> None:
    """A board as it becomes with time: some tickets on their way, the most of them done; tasks and criteria on each."""
    chance, now = random.Random(size), datetime.now(UTC).timestamp()
    columns = [name for name, number in SPREAD for _ in range(min(number, size))][:size]
    tickets, tasks, criteria = [], [], []
    for place, column in enumerate(columns):
        ticket_id = f"tkt-{place:06d}"
        title = f"{chance.choice(VERBS)} the {chance.choice(NOUNS)} of the {chance.choice(NOUNS)} {place}"
        same = {"project_id": made.project_id, "priority": "medium", "rank": now + place}
        tickets.append(same | {"ticket_id": ticket_id, "title": title, "status": column, "approval": "not_required"})
        task = {"task_id": f"tsk-{place:06d}", "ticket_id": ticket_id, "phase": "building", "status": "completed"}
        tasks.append(same | task | {"workflow_type": "agent_workflow_build"})
        criteria.append(
            {"criterion_id": f"crit-{place:06d}", "subject_id": ticket_id, "text": "It holds", "check_hash": "x"}
        )
    async with made.database.transaction() as session:
        for table, rows in ((Ticket, tickets), (Task, tasks), (Criterion, criteria)):
            await session.execute(sa.insert(table), rows)


async def clocked(work: Callable[[], Awaitable[Any]]) -> float:
    """Milliseconds, the median after some rounds to warm up."""
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        await work()
        took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took[3:])


async def measure(place: Path, size: int) -> dict[str, float]:
    async with desk(f"sqlite:///{place / 'bench.db'}", place) as made:
        await made.project()
        await fill(made, size)
        like = {"project": "p", "title": "Oil the door of the tower, please"}

        async def there_and_back() -> None:
            await made.post("/tickets/tkt-000000/progress", {"override": True, "reason": "bench"})
            await made.post("/tickets/tkt-000000/regress")

        return {
            "view": await clocked(lambda: made.get("/board/view", project="p", limit=50)),
            "column": await clocked(lambda: made.get("/board/column/done", project="p", limit=50)),
            "move": await clocked(there_and_back),
            "duplicates": await clocked(lambda: made.post("/tickets/check-duplicates", like)),
        }


async def curve() -> None:
    found = {}
    for size in SIZES:
        with tempfile.TemporaryDirectory() as place:
            found[size] = await measure(Path(place), size)
    for name in found[SIZES[0]]:
        first = found[SIZES[0]][name]
        told = ", ".join(f"{size}: {found[size][name]:.1f} ms ({found[size][name] / first:.2f}x)" for size in SIZES)
        kept = "ok" if found[SIZES[-1]][name] / first <= GOAL else "OVER"
        print(f"{name:<10} {told}  goal {GOAL}x  {kept}")


def main() -> None:
    log.configure("warning")
    asyncio.run(curve())
