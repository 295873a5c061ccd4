"""Done is proven: what an agent says or does to the tests makes no ticket done; work comes together, and what breaks at the merge is reopened."""

import asyncio
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from tests.support.platform import Platform, folder, git, platform, sample_repository, until

FILES = {
    "README.md": "# Sums\n",
    "sums.py": "def add(one, other):\n    raise NotImplementedError\n",
    "tests/__init__.py": "",
    "tests/test_sums.py": (
        "import unittest\nfrom sums import add\n\n\nclass Sums(unittest.TestCase):\n"
        "    def test_two_and_two(self):\n        self.assertEqual(add(2, 2), 4)\n"
    ),
}
CHECK = {"text": "two and two are four", "check": {"kind": "test", "name": "tests.test_sums"}}
RIGHT = {"write": {"path": "sums.py", "content": "def add(one, other):\n    return one + other\n"}}
EASY = "import unittest\n\n\nclass Sums(unittest.TestCase):\n    def test_two_and_two(self):\n        pass\n"


@pytest.fixture(scope="module")
def house() -> Iterator[Platform]:
    with platform(scheduling={"retry_seconds": 0.2}, board={"sweep_seconds": 1}) as running:
        yield running


@pytest.fixture
def origin() -> Iterator[Path]:
    with folder() as place:
        yield sample_repository(place, FILES)


@pytest.fixture
def project(house: Platform, origin: Path) -> str:
    body = {
        "name": f"p-{origin.parent.name}",
        "repository_url": str(origin),
        "agent": "script",
        "autonomy": True,
        "test_command": "python3 -m unittest {test}",
    }
    return str(house.post("/projects", body, expect=201)["project_id"])


def make(house: Platform, project: str, criteria: list[Any], *scripts: Any, **fields: Any) -> str:
    tasks = [{"title": f"Do {n}", "agent_options": {"script": script}} for n, script in enumerate(scripts)]
    body = {"project": project, "title": "Say what two and two are", "criteria": criteria, "tasks": tasks}
    return str(house.post("/tickets", body | {"force_create": True} | fields, expect=201)["ticket_id"])


def settled(house: Platform, ticket: str) -> dict[str, Any]:
    """Wait until the ticket is done or waits for a person."""

    def look() -> dict[str, Any] | None:
        shown: dict[str, Any] = house.get(f"/tickets/{ticket}")
        return shown if shown["status"] == "done" or shown["is_blocked"] else None

    return until(look, what=f"{ticket} to settle")


def columns(house: Platform, ticket: str) -> list[str]:
    return [move["after"] for move in house.get(f"/tickets/{ticket}/history")["moves"]]


CHEATERS = {
    "says that it is done": [{"write": {"path": "notes.md", "content": "done!\n"}}],
    "deletes the tests": [{"run": {"command": "rm -r tests"}}],
    "empties the test": [{"write": {"path": "tests/test_sums.py", "content": EASY}}],
    "bends the test's surroundings": [
        {"write": {"path": "sitecustomize.py", "content": "import unittest\nunittest.main = lambda **k: exit(0)\n"}},
        {"write": {"path": "unittest.py", "content": "raise SystemExit(0)\n"}},
    ],
    "ends the test before it fails": [{"write": {"path": "sums.py", "content": "import os\nos._exit(1)\n"}}],
    "turns the exit code": [
        {"write": {"path": "sums.py", "content": "import atexit, os\natexit.register(os._exit, 0)\nadd = max\n"}}
    ],
    "puts a package before the test": [{"write": {"path": "tests/test_sums/__init__.py", "content": EASY}}],
    "skips the test": [
        {"write": {"path": "sums.py", "content": "import unittest\ndef add(a, b):\n    raise unittest.SkipTest\n"}}
    ],
}


@pytest.mark.parametrize("script", CHEATERS.values(), ids=CHEATERS)
def test_an_agent_that_cheats_is_not_done(house: Platform, project: str, script: Any) -> None:
    ticket = make(house, project, [CHECK], script)
    shown = settled(house, ticket)
    assert "done" not in columns(house, ticket)
    assert shown["is_blocked"]


def test_the_same_work_done_rightly_is_done(house: Platform, project: str) -> None:
    """The way of the cheaters is open to the honest."""
    ticket = make(house, project, [CHECK], [RIGHT])
    assert settled(house, ticket)["status"] == "done"


async def test_every_step_is_told_on_the_socket(house: Platform, project: str) -> None:
    """RES-04: TICKET_TRANSITIONED, without asking."""
    address = f"ws://127.0.0.1:{house.port}/api/v1/events/ws/events?event_types=TICKET_TRANSITIONED"
    told: list[str] = []
    async with asyncio.timeout(120), connect(address) as socket:
        ticket = await asyncio.to_thread(make, house, project, [CHECK], [RIGHT])
        while told[-1:] != ["done"]:
            frame = json.loads(await socket.recv())
            events = frame if isinstance(frame, list) else [frame]
            told += [one["payload"]["after"] for one in events if one.get("entity_id") == ticket]
    assert told == ["analyzing", "building", "building-done", "testing", "done"]


def test_two_agents_that_write_the_same_lines_end_on_one_branch(house: Platform, project: str, origin: Path) -> None:
    """Work that does not merge with the ticket's branch is done anew from there; nothing is overwritten unseen."""
    both = [[RIGHT, {"write": {"path": "who.txt", "content": f"agent {n}\n"}}] for n in range(2)]
    ticket = make(house, project, [CHECK], *both)
    shown = settled(house, ticket)
    assert shown["status"] == "done"
    assert len(house.get("/tasks", ticket=ticket)["tasks"]) == 3
    assert git("rev-list", "--count", f"main..{shown['branch']}", "--", "who.txt", cwd=origin) == "2"


def test_a_task_that_waits_for_another_starts_from_its_work(house: Platform, project: str, origin: Path) -> None:
    ticket = make(house, project, [CHECK], [RIGHT])
    (first,) = house.get("/tasks", ticket=ticket)["tasks"]
    body = {
        "project": project,
        "ticket_id": ticket,
        "title": "Copy it",
        "depends_on": [first["task_id"]],
        "agent_options": {"script": [{"run": {"command": "cp sums.py copy.py"}}]},
    }
    house.post("/tasks", body, expect=201)
    shown = settled(house, ticket)
    assert shown["status"] == "done"
    assert "return one + other" in git("show", f"{shown['branch']}:copy.py", cwd=origin)


def test_what_breaks_at_the_merge_is_not_done_any_more(house: Platform, project: str, origin: Path) -> None:
    """Each holds alone, and merges without a conflict: only the merged commit shows it."""
    alone = {"text": "nobody else writes here", "check": {"kind": "command", "command": "test $(ls *.log | wc -l) = 1"}}
    first, second = (
        make(house, project, [alone], [{"write": {"path": f"{name}.log", "content": "x\n"}}]) for name in "ab"
    )
    for ticket in (first, second):
        assert settled(house, ticket)["status"] == "done"
        house.post(f"/projects/{project}/tickets/{ticket}/merge", {})
    until(lambda: "building" in columns(house, second)[5:], what="the reopening")
    (back,) = [move for move in house.get(f"/tickets/{second}/history")["moves"] if move["how"] == "reopened"]
    assert "after its merge" in back["reason"]
    assert (house.get(f"/tickets/{first}")["status"]) == "done"


def test_a_queue_that_checks_the_merged_result_lets_only_the_first_in(house: Platform, origin: Path) -> None:
    body = {
        "name": f"q-{origin.parent.name}",
        "repository_url": str(origin),
        "agent": "script",
        "autonomy": True,
        "merge_queue": True,
        "check_command": "test $(ls *.log | wc -l) -le 1",
    }
    project = house.post("/projects", body, expect=201)["project_id"]
    fine = {"text": "a log is there", "check": {"kind": "command", "command": "ls *.log"}}
    tickets = [make(house, project, [fine], [{"write": {"path": f"{n}.log", "content": "x\n"}}]) for n in "ab"]
    seen = functools.partial(_merged_and_sent_back, house, tickets)
    merged, back = until(seen, what="one merged, one sent back")
    assert "it was not merged" in house.get(f"/tickets/{back}")["reason"] or columns(house, back)[5:]
    assert len(git("ls-tree", "--name-only", "main", cwd=origin).split(".log")) == 2
    assert house.get(f"/tickets/{merged}")["status"] == "done"


def _merged_and_sent_back(house: Platform, tickets: list[str]) -> tuple[str, str] | None:
    merged = [ticket for ticket in tickets if house.get(f"/tickets/{ticket}")["merge_commit"]]
    back = [ticket for ticket in tickets if "building" in columns(house, ticket)[5:]]
    return (merged[0], back[0]) if merged and back else None
