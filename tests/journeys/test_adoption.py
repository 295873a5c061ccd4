"""PostgreSQL: two engine processes share the work; when one is killed or frozen the other adopts it, nothing runs twice to its end."""

import os
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support import postgres
from tests.support.platform import Platform, folder, git, sample_repository, until

pytestmark = pytest.mark.alone

LONG = [
    {"write": {"path": "one.txt", "content": "1\n"}},
    {"delay": 4},
    {"run": {"command": "echo ran >> ran.txt"}},
]


class Scaled(Platform):
    """An API process and two engines over one PostgreSQL."""

    def open(self) -> None:
        self.start("serve", name="api")
        self.start("engine", name="engine-1")
        self.start("engine", name="engine-2")
        until(lambda: self.sql("SELECT count(*) FROM engines")[0][0] == 2, what="two engines")

    def sql(self, query: str) -> list[tuple[object, ...]]:
        with psycopg.connect(str(self.settings["database_url"])) as connection:
            return connection.execute(query).fetchall()

    def owner(self, order_id: str) -> str | None:
        """Which of the two engines drives the order."""
        rows = self.sql(f"SELECT engine_id FROM attempts WHERE work_order_id = '{order_id}' AND NOT concluded")
        pid = int(str(rows[0][0]).split(".")[1]) if rows else 0
        return next((name for name, process in self.processes.items() if process.pid == pid), None)

    def adopted(self, order_id: str) -> bool:
        """Whether another engine says so and really runs the workflow."""
        said = [event for event in self.events(order_id) if event["event"] == "attempt.adopted"]
        runs = "SELECT executor_id FROM dbos.workflow_status WHERE status = 'PENDING'"
        return bool(said) and self.sql(runs) == [(said[-1]["to_engine"],)]


@pytest.fixture
def scaled(postgres_folder: str) -> Iterator[Scaled]:
    url = postgres.new_database(postgres_folder, f"t{uuid.uuid4().hex}")
    with folder() as place:
        house = Scaled(place, database_url=url, engine_lease_seconds=3)
        try:
            house.open()
            yield house
        finally:
            house.close()


def running(house: Scaled, origin: Path) -> tuple[str, str]:
    """An order whose agent works, and the engine that drives it."""
    order_id = house.order(origin, LONG, workflow_type="build")
    until(lambda: any(e["event"] == "agent.started" for e in house.events(order_id)), what="the agent to start")
    return order_id, until(lambda: house.owner(order_id), what="an owner")


def check(house: Scaled, order_id: str, origin: Path, began: float) -> None:
    until(lambda: house.adopted(order_id), limit=30, what="the adoption")
    assert time.monotonic() - began < 10
    order = house.finished(order_id)
    assert (order["status"], order["attempts"]) == ("completed", 1), order["reason"]
    assert git("show", f"{order['git_branch_name']}:ran.txt", cwd=origin) == "ran"


def test_a_killed_engines_work_is_adopted_within_ten_seconds(scaled: Scaled) -> None:
    origin = sample_repository(scaled.folder)
    order_id, owner = running(scaled, origin)
    scaled.kill(owner)
    check(scaled, order_id, origin, time.monotonic())


def test_a_frozen_engine_that_thaws_changes_nothing(scaled: Scaled) -> None:
    """The one that was cut off finds its work owned by another."""
    origin = sample_repository(scaled.folder)
    order_id, owner = running(scaled, origin)
    process = scaled.processes[owner]
    os.kill(process.pid, signal.SIGSTOP)
    try:
        check(scaled, order_id, origin, time.monotonic())
    finally:
        os.kill(process.pid, signal.SIGCONT)
    finished = [e for e in scaled.events(order_id) if e["event"] == "work_order.finished"]
    assert len(finished) == 1


def test_both_engines_take_orders(scaled: Scaled) -> None:
    origin = sample_repository(scaled.folder)
    script = [{"write": {"path": "x.txt", "content": "x\n"}}]
    orders = [scaled.order(origin, script, workflow_type="build") for _ in range(12)]
    statuses = [scaled.finished(order_id)["status"] for order_id in orders]
    engines = {row[0] for row in scaled.sql("SELECT DISTINCT engine_id FROM attempts")}
    assert (statuses, len(engines)) == (["completed"] * 12, 2)
