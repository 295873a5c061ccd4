"""The board: what its view, a move and the search for duplicates cost with many tickets, as a multiple of a thousand."""

import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from tests.board.desk import Desk, desk

from shopfloor.board.models import Ticket
from shopfloor.evidence.models import Criterion, Evidence
from shopfloor.kit import log
from shopfloor.tasks.models import Task

SIZES = (1_000, 10_000)
ROUNDS, WARM = 15, 3
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
    """A board as it becomes with time: some tickets on their way, the most of them done; on each a task, a criterion and what was found of it."""
    chance, now = random.Random(size), datetime.now(UTC).timestamp()
    before = datetime.now(UTC) - timedelta(hours=1)
    columns = [name for name, number in SPREAD for _ in range(min(number, size))][:size]
    tickets, tasks, criteria, found = [], [], [], []
    for place, column in enumerate(columns):
        ticket_id = f"tkt-{place:06d}"
        title = f"{chance.choice(VERBS)} the {chance.choice(NOUNS)} of the {chance.choice(NOUNS)} {place}"
        same = {"project_id": made.project_id, "priority": "medium", "rank": now + place, "updated_at": before}
        tickets.append(same | {"ticket_id": ticket_id, "title": title, "status": column, "approval": "not_required"})
        tickets[-1]["head_commit"] = head = f"{place + 2:040x}"
        task = {"task_id": f"tsk-{place:06d}", "ticket_id": ticket_id, "phase": "building", "status": "completed"}
        tasks.append(same | task | {"workflow_type": "agent_workflow_build"})
        proof = {"criterion_id": f"crit-{place:06d}", "check_hash": "x"}
        criteria.append(proof | {"subject_id": ticket_id, "text": "It holds"})
        for commit, verdict in ((f"{1:040x}", "passed"), (head, "failed"), (head, "passed")):
            found.append(proof | {"commit": commit, "verdict": verdict, "said_by": "check"})
    async with made.database.transaction() as session:
        for table, rows in ((Ticket, tickets), (Task, tasks), (Criterion, criteria), (Evidence, found)):
            await session.execute(sa.insert(table), rows)


@asynccontextmanager
async def filled(place: Path, size: int) -> AsyncIterator[dict[str, Callable[[], Awaitable[Any]]]]:
    """A board of `size` tickets, and what is measured of it."""
    async with desk(f"sqlite:///{place / 'bench.db'}", place) as made:
        await made.project()
        await fill(made, size)
        like = {"project": "p", "title": "Oil the door of the tower, please"}

        async def there_and_back() -> None:
            await made.post("/tickets/tkt-000000/progress", {"override": True, "reason": "bench"})
            await made.post("/tickets/tkt-000000/regress")

        yield {
            "view": lambda: made.get("/board/view", project="p", limit=50),
            "column": lambda: made.get("/board/column/done", project="p", limit=50),
            "move": there_and_back,
            "duplicates": lambda: made.post("/tickets/check-duplicates", like),
        }


async def clocked(work: Callable[[], Awaitable[Any]]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    await work()
    return (time.perf_counter() - began) * 1000


async def curve() -> None:
    """All sizes in turn, so that a busy moment of the machine meets them all."""
    async with AsyncExitStack() as stack:
        boards = []
        for size in SIZES:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            boards.append(await stack.enter_async_context(filled(place, size)))
        for name in boards[0]:
            took = [[await clocked(board[name]) for board in boards] for _ in range(ROUNDS)]
            found = [statistics.median(one) for one in zip(*took[WARM:], strict=True)]
            told = ", ".join(
                f"{size}: {ms:.1f} ms ({ms / found[0]:.2f}x)" for size, ms in zip(SIZES, found, strict=True)
            )
            kept = "ok" if found[-1] / found[0] <= GOAL else "OVER"
            print(f"{name:<10} {told}  goal {GOAL}x  {kept}")


def main() -> None:
    log.configure("warning")
    asyncio.run(curve())
