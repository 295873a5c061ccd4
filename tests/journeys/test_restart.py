"""Crashes and restarts, seen from outside (FLT-01…03, LIF-05)."""

import os
import signal
from collections.abc import Iterator

import pytest

from tests.support.platform import Platform, platform, sample_repository, until

LONG = [
    {"say": "working"},
    {"delay": 4},
    {"write": {"path": "done.txt", "content": "yes\n"}},
]


@pytest.fixture
def fresh() -> Iterator[Platform]:
    with platform(heartbeat_seconds=1) as running:
        yield running


def spoken(house: Platform, script: object = LONG) -> str:
    order_id = house.order(sample_repository(house.folder), script, workflow_type="build")
    until(lambda: any(e["event"] == "agent.message" for e in house.events(order_id)), what="the agent to speak")
    return order_id


def test_a_restarted_server_reattaches_to_the_running_worker(fresh: Platform) -> None:
    """X03: one attempt, one sandbox, though the server was killed meanwhile."""
    order_id = spoken(fresh)
    fresh.kill()
    fresh.start()
    order = fresh.finished(order_id)
    assert (order["status"], order["attempts"]) == ("completed", 1), order["reason"]


def test_a_stopped_server_leaves_the_agent_at_work(fresh: Platform) -> None:
    order_id = spoken(fresh)
    assert fresh.stop() == 0
    fresh.start()
    order = fresh.finished(order_id)
    assert (order["status"], order["attempts"]) == ("completed", 1), order["reason"]


def test_a_killed_worker_is_replaced_and_the_restart_is_told(fresh: Platform) -> None:
    """FLT-02, FLT-03."""
    order_id = spoken(fresh)
    assert fresh.signal_inside(b"/in/job.json", signal.SIGKILL)
    order = fresh.finished(order_id)
    restarted = [e for e in fresh.events(order_id) if e["event"] == "agent.restarted"]
    assert (order["status"], order["attempts"]) == ("completed", 2), order["reason"]
    assert restarted[0]["old_sandbox_id"] != restarted[0]["spawned_sandbox_id"]


def test_a_killed_agent_goes_on_in_the_same_sandbox(fresh: Platform) -> None:
    order_id = spoken(fresh)
    assert fresh.signal_inside(b"--script-agent", signal.SIGKILL)
    order = fresh.finished(order_id)
    assert (order["status"], order["attempts"]) == ("completed", 1), order["reason"]


def test_a_silent_worker_climbs_the_ladder_and_is_restarted(fresh: Platform) -> None:
    """W13: FLT-01, FLT-07: warn, degraded, restart, then a new sandbox."""
    order_id = spoken(fresh, [{"say": "working"}, {"delay": 12}, {"write": {"path": "d.txt", "content": "d\n"}}])
    assert fresh.signal_inside(b"/in/job.json", signal.SIGSTOP)

    def verdicts() -> list[str] | None:
        told = [e["verdict"] for e in fresh.events(order_id) if e["event"] == "sandbox.heartbeat_missed"]
        return told if "restart" in told else None

    assert until(verdicts, what="the ladder") == ["warn", "degraded", "restart"]
    until(lambda: any(e["event"] == "agent.restarted" for e in fresh.events(order_id)), what="the restart")


def test_no_process_and_no_folder_is_left_after_everything_was_killed(fresh: Platform) -> None:
    order_id = spoken(fresh)
    for pid in fresh.keepers():
        os.kill(pid, signal.SIGKILL)
    fresh.kill()
    fresh.start()
    fresh.finished(order_id)
    until(lambda: not fresh.keepers(), what="the last keeper to end")
    left = [p.name for p in (fresh.data / "sandboxes" / "local").iterdir() if order_id in p.name]
    assert left == []


def test_a_second_server_on_the_same_data_is_refused_with_the_fix(fresh: Platform) -> None:
    """One server per SQLite database."""
    fresh.start("engine", name="second")
    assert fresh.processes.pop("second").wait(60) != 0
    assert "another server uses" in fresh.log.read_text()
