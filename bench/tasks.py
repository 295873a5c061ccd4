"""The queue of tasks: what a claim and a dependency check cost as it grows, and how a full one drains on the real platform."""

import argparse
import asyncio
import itertools
import json
import os
import random
import statistics
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from tests.support.platform import Platform, folder, platform, sample_repository
from tests.tasks.world import World, opened
from websockets.sync.client import connect

from shopfloor.kit.db import Database
from shopfloor.sandboxes.rules import LIVE, SandboxState
from shopfloor.tasks import graph, queries
from shopfloor.tasks.models import Task, TaskDependency
from shopfloor.tasks.steps.dispatch import dispatch
from shopfloor.tasks.steps.pick import pick

SIZES = (1_000, 10_000, 100_000)
PROJECTS, CHAIN, ROUNDS = 20, 10, 40
GOAL = 2.0
"""Most that 100,000 tasks may cost, as a multiple of 1,000."""
GAP_GOAL_MS = 100
type Fact = tuple[float, str, str]
"""When, which task or sandbox, what it became."""
LEFT = frozenset(str(state) for state in SandboxState) - {str(state) for state in LIVE}
WORK = [
    {"run": {"command": "python3 -c 'sum(range(20_000_000))'"}},
    {"write": {"path": "done.txt", "content": "yes\n"}},
]
"""Half a second of a core, as an agent's tests would take it."""


async def fill(world: World, size: int) -> list[list[str]]:
    """`size` waiting tasks of several projects, half of them autonomous, in chains of tickets; answers the chains."""
    chance = random.Random(size)
    projects = [await world.project(f"p{n}", autonomy=n % 2 == 0) for n in range(PROJECTS)]
    now = datetime.now(UTC)
    chains = [[f"tsk-{n:07d}" for n in range(at, at + CHAIN)] for at in range(0, size, CHAIN)]
    rows = [
        {
            "task_id": task_id,
            "project_id": projects[number % PROJECTS],
            "ticket_id": f"tkt-{number}",
            "phase": "building",
            "title": f"task {task_id}",
            "workflow_type": "agent_workflow_build",
            "priority": "medium",
            "rank": now.timestamp() - chance.random() * 1e6,
            "status": "pending",
            "open_dependencies": int(place > 0),
            "agent_options": {},
            "owned_paths": [f"src/{number % 50}/**"],
        }
        for number, chain in enumerate(chains)
        for place, task_id in enumerate(chain)
    ]
    edges = [{"task_id": one, "depends_on": other} for chain in chains for other, one in itertools.pairwise(chain)]
    async with world.database.transaction() as session:
        await session.execute(sa.insert(Task), rows)
        await session.execute(sa.insert(TaskDependency), edges)
        if not world.database.sqlite:
            await session.execute(sa.text("ANALYZE"))
    return chains


@dataclass(frozen=True)
class Probe:
    """What is clocked; `then`, not counted, puts things right again."""

    work: Callable[[int], Awaitable[Any]]
    then: Callable[[], Awaitable[Any]] | None = None

    async def clocked(self, round_: int) -> float:
        """Milliseconds."""
        began = time.perf_counter()
        await self.work(round_)
        took = (time.perf_counter() - began) * 1000
        if self.then:
            await self.then()
        return took


@asynccontextmanager
async def filled(url: str, place: Path, size: int) -> AsyncIterator[dict[str, Probe]]:
    """A queue of `size`, and what is measured of it."""
    database = Database(url)
    await database.create_all()
    await database.close()
    async with opened(url, place, max_sandboxes=4) as world:
        chains = await fill(world, size)

        async def choose(_: int) -> None:
            async with world.database.reading() as session:
                assert await pick(session, world.tools.settings)

        async def claim(_: int) -> None:
            assert await dispatch(world.tools, world.claims)

        async def end() -> None:
            for task_id in await world.running():
                await world.ends(task_id)

        async def check(round_: int) -> None:
            chain = chains[round_ * 7 % len(chains)]
            async with world.database.reading() as session:
                assert await graph.circle(session, chain[0], [chain[-1]])

        async def add(round_: int) -> None:
            chain = chains[(round_ * 7 + 3) % len(chains)]
            async with world.database.transaction() as session:
                await graph.depend(session, await graph.locked(session, chain[-1]), [chain[0]])

        async def sweep(_: int) -> None:
            async with world.database.reading() as session:
                await queries.astray(session)

        async def page(_: int) -> None:
            async with world.database.reading() as session:
                await queries.tally(session, [f"tkt-{n}" for n in range(100)])

        yield {
            "choose the next task": Probe(choose),
            "claim it (task, order, place)": Probe(claim, end),
            "look for a circle": Probe(check),
            "add a dependency": Probe(add),
            "sweep for what a crash left": Probe(sweep),
            "tally of 100 tickets": Probe(page),
        }


async def measure(url: str, sizes: tuple[int, ...]) -> dict[str, list[float]]:
    """Milliseconds at each size, the median; all sizes in turn, so that a busy moment of the machine meets them all."""
    async with AsyncExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        queues = []
        for size in sizes:
            (here := place / str(size)).mkdir()
            queues.append(await stack.enter_async_context(filled(url or f"sqlite:///{here}/bench.db", here, size)))
        found: dict[str, list[float]] = {}
        for name in queues[0]:
            took = [[await queue[name].clocked(round_) for queue in queues] for round_ in range(ROUNDS)]
            found[name] = [statistics.median(one) for one in zip(*took[ROUNDS // 4 :], strict=True)]
    return found


def curve(url: str, sizes: tuple[int, ...]) -> None:
    found = asyncio.run(measure(url, sizes))
    print(f"{'ms, median':<34}" + "".join(f"{size:>10,}" for size in sizes) + f"{'ratio':>8}{'goal':>8}")
    for name, values in found.items():
        print(f"{name:<34}" + "".join(f"{v:>10.2f}" for v in values) + f"{values[-1] / values[0]:>8.2f}{GOAL:>8}")


def drain(count: int) -> None:
    """Tasks in chains of three, one place more than there are cores: while one is being made or delivered, the others work."""
    places = (os.cpu_count() or 2) + 1
    with folder() as there, platform(max_sandboxes=places, log_level="warning") as house:
        body = {"name": "bench", "repository_url": str(sample_repository(there)), "agent": "script"}
        project = house.post("/projects", body, expect=201)["project_id"]
        waits: dict[str, str | None] = {}
        before = None
        for number in range(count):
            before = before if number % 3 else None
            wish = {"project": project, "title": f"t{number}", "agent_options": {"script": WORK}}
            made = house.post("/tasks", wish | {"depends_on": [before] if before else []}, expect=201)["task_id"]
            waits[made], before = before, made
        watcher, ticks, began = Watcher(house), _busy(), time.monotonic()
        house.client.patch(f"/api/v1/projects/{project}", json={"autonomy": True}).raise_for_status()
        while house.get("/tasks/cancellable", limit=1)["total_count"]:
            time.sleep(1)  # who asks more often slows down what is measured
        seconds, now = time.monotonic() - began, _busy()
        watcher.socket.close()
        watcher.join()
        gaps = _gaps(watcher.facts, waits, places)
    share = (now[0] - ticks[0]) / max(1, now[1] - ticks[1])
    print(
        f"{count} tasks in {seconds:.1f} s at {places} places: {count / seconds:.2f} a second, cores busy {share:.0%}"
    )
    print(f"a place free though a task could start: median {statistics.median(gaps):.0f} ms, ", end="")
    late = sum(gap > GAP_GOAL_MS for gap in gaps)
    print(f"largest {max(gaps):.0f} ms (goal {GAP_GOAL_MS}), {late} of {len(gaps)} above it")


def _gaps(facts: list[Fact], waits: dict[str, str | None], places: int) -> list[float]:
    """Milliseconds for which a place was free though a task could start, each time; the first start is not counted."""
    taken: set[str] = set()
    done: set[str] = set()
    waiting = set(waits)
    gaps, since = [0.0], None
    for at, entity_id, after in facts:
        if after == "PENDING" and since is not None:
            gaps.append((at - since) * 1000)
            since = None
        if after == "PENDING":
            taken.add(entity_id)
        elif after in LEFT:
            taken.discard(entity_id)
        elif after in {"running", "pending"}:
            (waiting.discard if after == "running" else waiting.add)(entity_id)
        elif after == "completed":
            done.add(entity_id)
        ready = any(waits[one] is None or waits[one] in done for one in waiting)
        since = (since or at) if ready and len(taken) < places and done else None
    return gaps


def _busy() -> tuple[int, int]:
    """Ticks of all cores: at work, and in all."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


class Watcher(threading.Thread):
    """Hears on the socket what becomes of tasks and sandboxes: what one transaction did is heard at one moment."""

    def __init__(self, house: Platform) -> None:
        super().__init__(daemon=True)
        kinds = "task.status_changed,sandbox.state_changed"
        self.socket = connect(f"ws://127.0.0.1:{house.port}/api/v1/ws/events?event_types={kinds}", max_size=None)
        self.facts: list[Fact] = []
        self.start()

    def run(self) -> None:
        for frame in self.socket:
            at, heard = time.monotonic(), json.loads(frame)
            for event in heard if isinstance(heard, list) else [heard]:
                to = event["payload"]["after"]
                self.facts.append((at, event["entity_id"], to))
                if to in {"pending", "failed", "cancelled"}:
                    print(f"{event['entity_id']} {to}: {event['payload']['reason']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--url", default="", help="an empty PostgreSQL database, for one size; default: fresh SQLite files"
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--drain", type=int, default=1000, help="tasks that are run; 0: none")
    options, _ = parser.parse_known_args()
    if options.url and len(options.sizes) > 1:
        parser.error("one database holds one size: say --sizes too, with one number")
    curve(options.url, tuple(options.sizes))
    if options.drain:
        drain(options.drain)


if __name__ == "__main__":
    main()
