"""kill -9 at seeded instants: `python -m tests.chaos --seeds 20 [--first 0]`. Nothing acknowledged may be missing or doubled.

Each seed makes one work order, kills one victim (the server, the worker, the agent, or the whole tree) at a random instant of its run,
starts the server again, and then holds everything that was acknowledged before against what is there after.
"""

import argparse
import itertools
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
RIGHT_WITHIN = 10.0
"""Seconds after a restart until the state shown must be true."""
LONGEST_RUN = 4.0


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


class Run:
    """One seed."""

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
            hit = self._kill()
            if "server" not in self.house.processes:
                self.house.start()
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

    def _kill(self) -> int:
        house = self.house
        if self.victim == "server":
            house.kill()
            return 1
        if self.victim == "tree":
            victims = [*house.keepers(), *house.inside(b"")]
            house.kill()
        else:
            victims = house.inside(b"/in/job.json" if self.victim == "worker" else b"--script-agent")
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return len(victims)

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


def play(seed: int) -> str:
    """One seed in a folder of its own."""
    with folder() as place:
        return Run(place, seed).play()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    failed = 0
    for seed in range(options.first, options.first + options.seeds):
        try:
            print(play(seed), flush=True)
        except (AssertionError, httpx.HTTPError) as error:
            failed += 1
            print(f"seed {seed} FAILED: {error}", flush=True)
    print(f"{options.seeds - failed} passed, {failed} failed")
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
