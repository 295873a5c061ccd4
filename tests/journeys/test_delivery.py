"""From a request to a delivered branch, by the script agent in a real sandbox."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support.platform import Platform, git, sample_repository, until

PLAN_BUILD_TEST = {
    "plan": [{"say": "I will greet."}, {"write": {"path": "specs/plan.md", "content": "# Plan\nGreet.\n"}}],
    "build": [{"write": {"path": "greet.py", "content": "print('good morning')\n"}}],
    "test": [{"run": {"command": "python3 greet.py > result.txt"}}],
}
WAITS = [
    {"say": "waiting"},
    {"wait_for_message": {"timeout": 90}},
    {"write": {"path": "heard.txt", "content": "$message\n"}},
]


def build(house: Platform, origin: Path, script: object, **fields: Any) -> str:
    return house.order(origin, script, workflow_type="build", **fields)


def test_a_plan_build_test_order_ends_as_a_branch_with_three_phases(house: Platform, place: Path) -> None:
    """AWO-01, AWM-10: the request becomes commits on a branch that carries the order's id."""
    origin = sample_repository(place)
    order_id = house.order(origin, PLAN_BUILD_TEST)
    order = house.finished(order_id)
    assert order["status"] == "completed", order["reason"]
    branch = f"feat-{order_id}"
    assert order["git_branch_name"] == branch
    assert git("show", f"{branch}:result.txt", cwd=origin) == "good morning"
    progress = house.get(f"/agent-work-orders/{order_id}/git-progress")
    assert [phase["phase"] for phase in progress["phase_history"]] == ["planning", "implementing", "testing"]
    assert progress["git_files_changed"] == 3


def test_the_branch_of_an_issue_is_named_for_it(house: Platform, place: Path) -> None:
    """AWO-04."""
    origin = sample_repository(place)
    order_id = build(house, origin, PLAN_BUILD_TEST["build"], github_issue_number=42)
    assert house.finished(order_id)["git_branch_name"] == f"feat-issue-42-{order_id}"


def test_a_running_order_is_steered_by_a_prompt(house: Platform, place: Path) -> None:
    """W11: AWA-03: what is said arrives at the agent and its receipt says so."""
    origin = sample_repository(place)
    order_id = build(house, origin, WAITS)
    until(lambda: any(e["event"] == "agent.message" for e in house.events(order_id)), what="the agent to speak")
    accepted = house.post(f"/agent-work-orders/{order_id}/prompt", {"prompt_text": "hello from outside"})
    order = house.finished(order_id)
    assert order["status"] == "completed", order["reason"]
    assert git("show", f"{order['git_branch_name']}:heard.txt", cwd=origin) == "hello from outside"
    message = house.get(f"/sandboxes/{order['sandbox_identifier']}/messages/{accepted['message_id']}")
    assert message["state"] == "done"


def test_an_agent_that_says_done_and_did_nothing_fails(house: Platform, place: Path) -> None:
    """Done is proven: an unchanged tree is not a delivery."""
    order_id = build(house, sample_repository(place), [{"say": "all done, trust me"}])
    order = house.finished(order_id)
    assert (order["status"], "nothing" in order["reason"]) == ("failed", True), order["reason"]


def test_a_failing_agent_fails_the_order_with_its_reason(house: Platform, place: Path) -> None:
    order_id = build(house, sample_repository(place), [{"fail": {"reason": "the tests are a lie"}}])
    order = house.finished(order_id)
    assert order["status"] == "failed"
    assert "the tests are a lie" in order["error_message"]


def test_a_running_order_can_be_cancelled_and_its_sandbox_goes(house: Platform, place: Path) -> None:
    order_id = build(house, sample_repository(place), WAITS)
    until(lambda: any(e["event"] == "agent.message" for e in house.events(order_id)), what="the agent to speak")
    house.post(f"/agent-work-orders/{order_id}/cancel")
    order = house.finished(order_id)
    assert order["status"] == "cancelled"
    sandbox = house.get(f"/sandboxes/{order['sandbox_identifier']}")
    assert sandbox["state"] == "TERMINATED"


def test_retry_continues_from_the_last_commit(house: Platform, place: Path) -> None:
    """The plan is committed once; only the failed step runs again."""
    origin = sample_repository(place)
    script = {"plan": PLAN_BUILD_TEST["plan"], "build": [{"fail": {"reason": "not today"}}]}
    order_id = house.order(origin, script, workflow_type="plan_build")
    assert house.finished(order_id)["status"] == "failed"
    house.post(f"/agent-work-orders/{order_id}/retry", {"prompt": "today"})
    assert house.finished(order_id)["status"] == "failed"
    commits = [e for e in house.events(order_id) if e["event"] == "git.commit_created" and e["phase"] == "planning"]
    assert len(commits) == 1


def test_explain_names_evidence_by_position(house: Platform, place: Path) -> None:
    order_id = build(house, sample_repository(place), PLAN_BUILD_TEST["build"])
    house.finished(order_id)
    told = house.get(f"/agent-work-orders/{order_id}/explain")
    assert told["status"] == "completed"
    assert any(fact["event_type"] == "work_order.status_changed" and fact["position"] for fact in told["evidence"])


def test_an_unknown_base_branch_fails_with_a_hint(house: Platform, place: Path) -> None:
    order_id = build(house, sample_repository(place), PLAN_BUILD_TEST["build"], base_branch="nope")
    order = house.finished(order_id)
    assert order["status"] == "failed"
    assert "nope" in order["reason"]


def test_an_order_runs_with_its_acceptance_where_there_is_a_place_and_waits_where_there_is_none(place: Path) -> None:
    """The answer says which, and the database agrees with it."""
    from tests.support.platform import platform

    origin = sample_repository(place)
    script = [{"delay": 2}, {"write": {"path": "one.txt", "content": "1\n"}}]
    body: dict[str, Any] = {
        "repository_url": str(origin),
        "workflow_type": "build",
        "agent": "script",
        "initial_prompt": "x",
    }
    body["agent_options"] = {"script": script}
    with platform(max_sandboxes=1) as house:
        house.finished(house.order(origin, script, workflow_type="build"))  # the engine has begun
        answers = [house.post("/agent-work-orders", body, expect=201)["agent_work_order"] for _ in range(2)]
        states = [house.finished(order["agent_work_order_id"])["status"] for order in answers]
    assert ([order["status"] for order in answers], states) == (["running", "pending"], ["completed"] * 2)


def test_nothing_is_left_of_finished_sandboxes(house: Platform, place: Path) -> None:
    order = house.finished(build(house, sample_repository(place), PLAN_BUILD_TEST["build"]))
    left = list((house.data / "sandboxes" / "local").glob(f"*{order['sandbox_identifier']}*"))
    assert left == []


@pytest.mark.slow
@pytest.mark.alone
def test_a_hundred_orders_all_complete_once(place: Path) -> None:
    """AWK-04: none lost, none run twice; the queue's latency is printed."""
    from tests.support.platform import platform

    origin = sample_repository(place)
    with platform(max_sandboxes=12) as house:
        script = [{"write": {"path": "one.txt", "content": "1\n"}}]
        ids: list[str] = []
        threads = [threading.Thread(target=lambda: ids.append(build(house, origin, script))) for _ in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        orders = [house.finished(order_id, limit=600) for order_id in ids]
        waits = sorted(_waited(order) for order in orders)
        print(f"queue latency of 100 orders, 12 places: p50 {waits[50]:.1f} s, max {waits[-1]:.1f} s")
    assert [(o["status"], o["attempts"]) for o in orders] == [("completed", 1)] * 100
    branches = git("branch", "--list", "feat-*", cwd=origin).split()
    assert len(branches) == 100


def _waited(order: dict[str, str]) -> float:
    from datetime import datetime

    start, accepted = (datetime.fromisoformat(order[key]) for key in ("execution_started_at", "created_at"))
    return (start - accepted).total_seconds()


def test_each_order_has_a_log_file_of_its_own(house: Platform, place: Path) -> None:
    """AWX-09…12."""
    order_id = house.order(sample_repository(place), PLAN_BUILD_TEST)
    house.finished(order_id)
    [file] = (house.data / "logs").glob(f"*/{order_id}.jsonl")
    names = [json.loads(line)["event"] for line in file.read_text().splitlines()]
    wanted = {
        "agent_work_order_created",
        "agent_work_order_started",
        "agent_work_order_completed",
        "git_branch_created",
        "git_commit_created",
        "git_push_completed",
        "agent_command_started",
        "agent_command_completed",
        "sandbox_created",
        "sandbox_cleanup_completed",
        "sandbox_command_executed",
        "workflow_execution_started",
        "workflow_phase_started",
        "workflow_phase_completed",
    }
    assert wanted <= set(names)


@pytest.mark.parametrize("sandbox_type", ["git_branch", "git_worktree"])
def test_without_isolation_an_order_runs_only_by_explicit_flag(house: Platform, place: Path, sandbox_type: str) -> None:
    """AWM-03: a workspace is not a sandbox."""
    order_id = build(
        house,
        sample_repository(place),
        PLAN_BUILD_TEST["build"],
        sandbox_type=sandbox_type,
        allow_no_isolation=True,
    )
    order = house.finished(order_id)
    assert order["status"] == "completed", order["reason"]


def test_a_manual_sandbox_counts_against_the_capacity_and_can_be_deleted(house: Platform) -> None:
    """LIF-02, LIF-04."""
    before = house.get("/sandboxes/capacity")["running"]
    made = house.post("/sandboxes", {}, expect=201)
    assert made["state"] == "RUNNING"
    assert house.get("/sandboxes/capacity")["running"] == before + 1
    gone = house.client.delete(f"/api/v1/sandboxes/{made['sandbox_id']}").json()
    assert gone["state"] == "TERMINATED"
    assert house.get("/sandboxes/capacity")["running"] == before


@pytest.mark.parametrize(("grace_seconds", "exit_code"), [(10, 7), (0, None)])
def test_a_deleted_sandbox_is_asked_to_end_or_killed_by_the_grace_it_is_given(
    house: Platform, grace_seconds: float, exit_code: int | None
) -> None:
    """LIF-07."""
    made = house.post(
        "/sandboxes", {"argv": ["sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.1; done"]}, expect=201
    )
    answer = house.client.delete(f"/api/v1/sandboxes/{made['sandbox_id']}", params={"grace_seconds": grace_seconds})
    assert (answer.json()["state"], answer.json()["exit_code"]) == ("TERMINATED", exit_code)


def test_a_manual_sandbox_that_ends_by_itself_is_shown_as_ended(house: Platform) -> None:
    """True state: nobody deleted it, its program simply ended."""
    made = house.post("/sandboxes", {"argv": ["sh", "-c", "exit 3"]}, expect=201)

    def ended() -> dict[str, Any] | None:
        row: dict[str, Any] = house.get(f"/sandboxes/{made['sandbox_id']}")
        return row if row["state"] == "TERMINATED" else None

    assert "exit code 3" in until(ended, limit=10, what="the end to show")["reason"]


def test_the_job_with_its_token_does_not_outlive_the_attempt(house: Platform, place: Path) -> None:
    order = house.finished(build(house, sample_repository(place), PLAN_BUILD_TEST["build"]))
    assert not (house.data / "inboxes" / order["sandbox_identifier"]).exists()
