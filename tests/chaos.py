"""kill -9 at seeded instants: `python -m tests.chaos --seeds 20 [--first 0]`. Nothing acknowledged may be missing or doubled.

Each seed makes one work order, kills one victim (the server, the worker, the agent, or the whole tree) at a random instant of its run,
starts the server again, and then holds everything that was acknowledged before against what is there after. Then the same for a ticket,
from its card until it is merged.
"""

import argparse
import contextlib
import itertools
import json
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from tests.support.platform import Platform, folder, git, sample_repository, until

VICTIMS = ("server", "worker", "agent", "tree")
MARKS = {"worker": b"/in/job.json", "agent": b"--script-agent"}
"""What their command lines hold."""
RIGHT_WITHIN = 10.0
"""Seconds after a restart until the state shown must be true."""
LONGEST_RUN = 4.0
LONGEST_WAY = 12.0
"""About how long a ticket of two tasks is on its way."""


def script(seed: int) -> dict[str, Any]:
    """Three steps with work, pauses and commands; about three seconds."""

    def step(name: str) -> list[dict[str, Any]]:
        files: list[dict[str, Any]] = [
            {"write": {"path": f"{name}-{i}.txt", "content": f"{seed} {name} {i}\n"}} for i in range(3)
        ]
        pauses: list[dict[str, Any]] = [
            {"delay": 0.4},
            {"run": {"command": f"echo {name} >> log-{name}.txt"}},
            {"delay": 0.4},
        ]
        return [{"say": f"{name} begins"}, *itertools.chain.from_iterable(zip(files, pauses, strict=True))]

    return {name: step(name) for name in ("plan", "build", "test")}


def strike(house: Platform, victim: str) -> int:
    """kill -9 what the victim is made of, and start the server if it was hit; answers how many processes that were."""
    if victim == "server":
        pids = []
    elif victim == "tree":
        pids = [*house.keepers(), *house.inside(b"")]
    else:
        pids = house.inside(MARKS[victim])
    if hit := victim in {"server", "tree"}:
        house.kill()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if hit:
        house.start()
    return len(pids) + hit


class Run:
    """One seed of a work order."""

    def __init__(self, place: Path, seed: int) -> None:
        self.seed, self.random = seed, random.Random(seed)
        self.victim = VICTIMS[seed % len(VICTIMS)]
        self.origin = sample_repository(place)
        self.house = Platform(place)
        self.acknowledged: list[str] = []

    def play(self) -> str:
        """Kill, restart, compare; answers what happened in one line. Raises AssertionError."""
        self.house.start()
        try:
            order_id = self.house.order(self.origin, script(self.seed))
            instant = self.random.uniform(0, LONGEST_RUN)
            self._talk_until(order_id, instant)
            hit = strike(self.house, self.victim)
            self._state_is_true(order_id)
            order = self.house.finished(order_id)
            self._compare(order_id, order)
        finally:
            self.house.close()
        told = f"seed {self.seed}: {self.victim} killed after {instant:.2f} s ({hit} processes)"
        return f"{told}: {order['status']} in {order['attempts']} attempts, {len(self.acknowledged)} messages"

    def _talk_until(self, order_id: str, instant: float) -> None:
        """Post messages until the instant comes, and remember which were acknowledged."""
        deadline = time.monotonic() + instant
        while (left := deadline - time.monotonic()) > 0:
            body = {"prompt_text": f"note {len(self.acknowledged)}"}
            answer = self.house.client.post(f"/api/v1/agent-work-orders/{order_id}/prompt", json=body)
            if answer.status_code == 200 and (message_id := answer.json()["message_id"]):
                self.acknowledged.append(message_id)
            time.sleep(min(left, self.random.uniform(0.05, 0.4)))

    def _state_is_true(self, order_id: str) -> None:
        """Within ten seconds, what is shown as running has a living sandbox, or is about to be something else."""

        def true() -> bool:
            order = self.house.show(order_id)
            if order["status"] != "running":
                return True
            sandbox = self.house.get(f"/sandboxes/{order['sandbox_identifier']}")
            return sandbox["state"] != "RUNNING" or bool(self.house.keepers())

        until(true, limit=RIGHT_WITHIN, what="a true state")

    def _compare(self, order_id: str, order: dict[str, Any]) -> None:
        assert order["status"] == "completed", order["reason"]
        self._events_are_whole()
        self._messages_are_whole()
        branch = order["git_branch_name"]
        subjects = git(
            "log", "--format=%(trailers:key=Shopfloor-Phase,valueonly,separator=)", f"main..{branch}", cwd=self.origin
        )
        phases = Counter(line for line in subjects.splitlines() if line)
        assert set(phases) >= {"planning", "implementing", "testing"}, phases
        for name in ("plan", "build", "test"):
            log = git("show", f"{branch}:log-{name}.txt", cwd=self.origin).splitlines()
            assert log, f"{name} left no trace"
            for i in range(3):
                assert git("show", f"{branch}:{name}-{i}.txt", cwd=self.origin) == f"{self.seed} {name} {i}"
        reported = [e["sha"] for e in self.house.events(order_id) if e["event"] == "git.commit_created"]
        mirror = next((self.house.data / "repositories").rglob("HEAD")).parent
        for sha in reported:
            assert self._in_some_mirror(sha), f"commit {sha} was acknowledged and is nowhere ({mirror})"

    def _in_some_mirror(self, sha: str) -> bool:
        for head in (self.house.data / "repositories").rglob("HEAD"):
            try:
                git("--git-dir", str(head.parent), "cat-file", "-e", f"{sha}^{{commit}}", cwd=self.house.folder)
            except Exception:
                continue
            return True
        return False

    def _events_are_whole(self) -> None:
        """Of each sandbox every sequence number up to the last is stored exactly once."""
        with sqlite3.connect(self.house.data / "shopfloor.db") as database:
            rows = database.execute("SELECT sandbox_id, seq FROM events WHERE seq IS NOT NULL").fetchall()
        by_sandbox: dict[str, list[int]] = {}
        for sandbox_id, seq in rows:
            by_sandbox.setdefault(sandbox_id, []).append(seq)
        for sandbox_id, seqs in by_sandbox.items():
            assert sorted(seqs) == list(range(1, max(seqs) + 1)), (sandbox_id, sorted(seqs))

    def _messages_are_whole(self) -> None:
        with sqlite3.connect(self.house.data / "shopfloor.db") as database:
            stored = Counter(row[0] for row in database.execute("SELECT id FROM messages"))
            open_ = database.execute("SELECT id, state FROM messages WHERE state NOT IN ('done', 'expired', 'failed')")
            assert open_.fetchall() == []
        assert all(stored[message_id] == 1 for message_id in self.acknowledged)


class TicketRun:
    """One seed of a ticket: two tasks, a check, and the merge queue."""

    def __init__(self, place: Path, seed: int) -> None:
        self.seed, self.random = seed, random.Random(seed)
        self.victim = VICTIMS[seed % len(VICTIMS)]
        self.origin = sample_repository(place)
        self.house = Platform(place, scheduling={"retry_seconds": 0.2}, board={"sweep_seconds": 1})

    def play(self) -> str:
        """Kill, restart, compare; answers what happened in one line. Raises AssertionError."""
        self.house.start()
        try:
            ticket = self._make()
            instant = self._await_instant()
            before = self._way(ticket)
            hit = strike(self.house, self.victim)
            until(lambda: self._is_true(ticket), limit=RIGHT_WITHIN, what="a true state")
            until(lambda: self.house.get(f"/tickets/{ticket}")["merge_commit"], what=f"{ticket} to be merged")
            self._compare(ticket, before)
        finally:
            self.house.close()
        where = before[-1] if before else "backlog"
        return (
            f"seed {self.seed}: {self.victim} killed after {instant:.2f} s ({hit} processes), ticket in {where}: merged"
        )

    def _await_instant(self) -> float:
        """Somewhere on its way; who lives only for a part of it is waited for. Answers the seconds drawn."""
        longest = LONGEST_WAY
        if mark := MARKS.get(self.victim):
            until(lambda: self.house.inside(mark), what=f"a living {self.victim}")
            longest = 0.7
        time.sleep(instant := self.random.uniform(0, longest))
        return instant

    def _make(self) -> str:
        body = {"name": "p", "repository_url": str(self.origin), "agent": "script", "autonomy": True}
        body |= {"merge_queue": True, "check_command": "test -e one.txt"}
        project = self.house.post("/projects", body, expect=201)["project_id"]
        scripts = {
            name: [{"delay": 0.8}, {"write": {"path": f"{name}.txt", "content": f"{name}\n"}}]
            for name in ("one", "two")
        }
        tasks = [{"title": name, "agent_options": {"script": script}} for name, script in scripts.items()]
        check = {
            "text": "both are there",
            "check": {"kind": "command", "command": "test -e one.txt && test -e two.txt"},
        }
        ticket = {"project": project, "title": "Write both", "criteria": [check], "tasks": tasks}
        made: str = self.house.post("/tickets", ticket, expect=201)["ticket_id"]
        return made

    def _way(self, ticket: str) -> list[str]:
        return [move["after"] for move in self.house.get(f"/tickets/{ticket}/history")["moves"]]

    def _is_true(self, ticket: str) -> bool:
        """What is shown as running has an order that has not ended, and a living sandbox if it says so."""
        for task in self.house.get("/tasks", ticket=ticket, status="running")["tasks"]:
            order = self.house.show(task["work_order_id"])
            sandbox = self.house.get(f"/sandboxes/{order['sandbox_identifier']}")
            if order["status"] not in {"pending", "running"} or (
                sandbox["state"] == "RUNNING" and not self.house.keepers()
            ):
                return False
        return True

    def _compare(self, ticket: str, before: list[str]) -> None:
        way = self._way(ticket)
        assert way[: len(before)] == before, "a move that was shown is gone"
        assert way == ["analyzing", "building", "building-done", "testing", "done"]
        tasks = self.house.get("/tasks", ticket=ticket)["tasks"]
        assert sorted((task["title"], task["status"]) for task in tasks) == [("one", "completed"), ("two", "completed")]
        orders = self.house.get("/agent-work-orders", limit=100)
        assert orders["total_count"] == 2, "a task was ordered twice"
        merges = git("log", "--first-parent", "--format=%s", "main", cwd=self.origin).splitlines()
        assert len(merges) == 2, f"it was not merged once: {merges}"
        assert [git("show", f"main:{name}.txt", cwd=self.origin) for name in ("one", "two")] == ["one", "two"]
        until(self._at_rest, what="checks and sandboxes to end")
        with sqlite3.connect(self.house.data / "shopfloor.db") as database:
            told = database.execute("SELECT payload FROM events WHERE event_type = 'TICKET_TRANSITIONED' ORDER BY id")
            assert [json.loads(row[0])["after"] for row in told] == way
            verdicts = database.execute("SELECT verdict FROM evidence WHERE verdict = 'failed'")
            assert verdicts.fetchall() == []

    def _at_rest(self) -> bool:
        running = [run for run in self.house.get("/check-runs", limit=100)["check_runs"] if run["state"] != "done"]
        return not running and not self.house.keepers()


def play(seed: int, kind: type[Run] | type[TicketRun] = Run) -> str:
    """One seed in a folder of its own."""
    with folder() as place:
        return kind(place, seed).play()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    failed = 0
    for seed in range(options.first, options.first + options.seeds):
        for kind in (Run, TicketRun):
            try:
                print(play(seed, kind), flush=True)
            except (AssertionError, httpx.HTTPError) as error:
                failed += 1
                print(f"seed {seed} FAILED: {error}", flush=True)
    print(f"{2 * options.seeds - failed} passed, {failed} failed")
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
