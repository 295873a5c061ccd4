"""What goes wrong once must not go wrong for good, and what was accepted is kept."""

import socket
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.platform import Platform, folder, git, platform, sample_repository, until

QUICK = [{"write": {"path": "x.txt", "content": "x\n"}}]
LONG = [{"delay": 60}]


@pytest.fixture
def own() -> Iterator[Platform]:
    with platform(max_attempts=2) as running:
        yield running


def agent_started(house: Platform, order_id: str, times: int = 1) -> None:
    started = lambda: sum(e["event"] == "agent.started" for e in house.events(order_id)) >= times  # noqa: E731
    until(started, what="the agent to start")


def test_only_the_commit_that_the_result_names_is_delivered(house: Platform, place: Path) -> None:
    """Done is proven on the exact commit: an older checkpoint is not what was said to be done."""
    origin = sample_repository(place)
    plan = [{"write": {"path": "specs/plan.md", "content": "# Plan\n"}}]
    order_id = house.order(origin, {"plan": plan, "build": LONG}, workflow_type="plan_build")
    until(lambda: any(e["event"] == "git.commit_created" for e in house.events(order_id)), what="the plan's commit")
    sandbox = house.show(order_id)["sandbox_identifier"]
    house.post(f"/sandboxes/{sandbox}/results", {"fencing": 1, "status": "completed", "head_sha": "d" * 40})
    order = house.finished(order_id)
    assert order["status"] == "failed"
    assert "was not handed in" in order["reason"]
    assert "wo-" not in git("branch", "--list", cwd=origin)


def test_what_was_said_to_a_dying_sandbox_is_told_to_the_next(own: Platform) -> None:
    order_id = own.order(sample_repository(own.folder), LONG, workflow_type="build")
    agent_started(own, order_id)
    assert own.signal_inside(b"worker", 9)
    said = own.post(f"/agent-work-orders/{order_id}/prompt", {"prompt_text": "Do not touch z"})
    assert said["prompt_accepted"]
    agent_started(own, order_id, 2)
    with sqlite3.connect(own.data / "shopfloor.db") as database:
        kept = database.execute("SELECT prompts FROM work_orders").fetchone()[0]
        told = database.execute(
            "SELECT state FROM messages WHERE content = 'Do not touch z' ORDER BY position"
        ).fetchall()
    assert "Do not touch z" in kept or told[-1][0] in {"delivered", "seen"}


def test_an_order_can_be_cancelled_while_its_origin_does_not_answer(house: Platform) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hole:  # accepts, says nothing
        url = f"https://127.0.0.1:{hole.getsockname()[1]}/a/b.git"
        created = house.post("/agent-work-orders", {"repository_url": url, "agent": "script"}, expect=201)
        order_id = created["agent_work_order"]["agent_work_order_id"]
        until(lambda: house.show(order_id)["status"] == "running", what="the order to start")
        house.post(f"/agent-work-orders/{order_id}/cancel")
        began = time.monotonic()
        assert house.finished(order_id)["status"] == "cancelled"
        assert time.monotonic() - began < 20


def test_a_sandbox_that_could_not_be_made_once_is_made_the_next_time(own: Platform) -> None:
    origin = sample_repository(own.folder)
    own.finished(own.order(origin, QUICK, workflow_type="build"))
    root = own.data / "sandboxes" / "local"
    until(lambda: not list(root.iterdir()), what="the first sandbox to be removed")
    root.rmdir()
    root.write_text("in the way")
    order_id = own.order(origin, QUICK, workflow_type="build")
    until(lambda: "trying again" in own.show(order_id)["reason"], what="the first failure")
    root.unlink()
    order = own.finished(order_id)
    assert (order["status"], order["attempts"]) == ("completed", 1), order["reason"]
    states = [s["state"] for s in own.get("/sandboxes", work_order_id=order_id)["sandboxes"]]
    assert states == ["TERMINATED"]


def test_a_claim_whose_workflow_never_started_is_started(own: Platform) -> None:
    """As when the engine's answer is lost between the claim and the start."""
    origin = sample_repository(own.folder)
    first = own.order(origin, QUICK, workflow_type="build")
    own.finished(first)
    second = "wo-stuck"
    with sqlite3.connect(own.data / "shopfloor.db") as database:
        _copy(database, "work_orders", first, agent_work_order_id=second, status="running", git_branch_name=None)
        changes = {"attempt_id": f"{second}-1", "work_order_id": second, "sandbox_id": f"local-{second}-1"}
        _copy(database, "attempts", first, **changes, state="preparing", concluded=False, result=None)
        own_row = {"sandbox_id": f"local-{second}-1", "work_order_id": second, "attempt_id": f"{second}-1"}
        _copy(database, "sandboxes", first, **own_row, state="PENDING")
    order = own.finished(second)
    assert order["status"] == "completed", order["reason"]


def test_an_order_in_a_folder_of_logs_that_cannot_be_written_is_done_all_the_same() -> None:
    with folder() as place:
        house = Platform(place)
        house.data.mkdir()
        (house.data / "logs").write_text("in the way")
        try:
            house.start()
            order_id = house.order(sample_repository(place), QUICK, workflow_type="build")
            assert house.finished(order_id)["status"] == "completed"
        finally:
            house.close()


def test_a_finished_orders_folders_are_removed(own: Platform) -> None:
    order_id = own.order(sample_repository(own.folder), QUICK, workflow_type="build")
    own.finished(order_id)
    folders = [own.data / "homes", own.data / "spools"]
    until(lambda: not [one for each in folders for one in each.iterdir()], what="its home and spool to be removed")


def _copy(database: sqlite3.Connection, table: str, order_id: str, **changes: object) -> None:
    database.row_factory = sqlite3.Row
    key = "agent_work_order_id" if table == "work_orders" else "work_order_id"
    row = dict(database.execute(f"SELECT * FROM {table} WHERE {key} = ?", (order_id,)).fetchone()) | changes
    row = {name: value for name, value in row.items() if name != "idempotency_key"}
    places = ", ".join("?" * len(row))
    database.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places})", list(row.values()))
