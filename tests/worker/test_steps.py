"""A job from start to result, on the real worker with script agents."""

import json
import os
from typing import Any

import pytest

from tests.support.workers import Bench, git

SIMPLE = [{"write": {"path": "a.txt", "content": "hi\n"}}, {"say": "Add a greeting"}]


def test_a_step_is_committed_with_its_phase(bench: Bench) -> None:
    bench.script(SIMPLE)
    assert bench.run() == 0, bench.log()
    assert git(bench.workspace, "show", "--format=%B", "--name-only", "feat-wo-1").split("\n") == [
        "implementing: Add a greeting",
        "",
        "Shopfloor-Phase: implementing",
        "Shopfloor-Order: wo-1",
        "",
        "",
        "a.txt",
    ]


def test_the_result_says_what_was_done(bench: Bench) -> None:
    bench.script(
        [*SIMPLE, {"usage": {"input": 7, "output": 3, "cost": 0.5}}, {"usage": {"input": 1, "output": 1, "cost": 0.25}}]
    )
    assert bench.run() == 0
    assert bench.result == {
        "fencing": 1,
        "status": "completed",
        "summary": "Add a greeting",
        "reason": "",
        "files_changed": [{"path": "a.txt", "action": "created"}],
        "head_sha": git(bench.workspace, "rev-parse", "feat-wo-1"),
        "agent_session_id": "script-wo-1-1",
        "cost_usd": 0.75,
        "usage": {"input_tokens": 8, "output_tokens": 4},
    }


def test_steps_run_in_order_in_one_conversation(bench: Bench) -> None:
    script = {
        name: [{"write": {"path": f"{name}.txt", "content": ""}}, {"say": name}] for name in ("plan", "build", "test")
    }
    bench.script(script, "plan", "build", "test")
    assert bench.run() == 0
    assert git(bench.workspace, "log", "--format=%s", "main..feat-wo-1").split("\n") == [
        "testing: test",
        "implementing: build",
        "planning: plan",
    ]
    assert len(bench.door.of("agent.started")) == 1


def test_steps_that_are_done_are_skipped(bench: Bench) -> None:
    bench.script({"build": SIMPLE}, "plan", "build")
    bench.job["steps"][0]["done"] = True
    assert bench.run() == 0
    assert [e["step"] for e in bench.door.of("workflow.phase_started")] == ["build"]


def test_a_phase_without_a_change_is_on_record(bench: Bench) -> None:
    bench.script([{"say": "nothing to do"}])
    assert bench.run() == 0
    assert git(bench.workspace, "log", "-1", "--format=%(trailers:key=Shopfloor-Phase,valueonly)") == "implementing"


def test_events_tell_the_story_in_order(bench: Bench) -> None:
    bench.script([{"write": {"path": "a.txt", "content": "x"}}, {"run": {"command": "echo out"}}, {"say": "done"}])
    assert bench.run() == 0
    assert [kind for kind in bench.door.types() if kind != "sandbox.heartbeat"] == [
        "agent.started",
        "workflow.phase_started",
        "agent.session",
        "agent.tool_use",
        "file.created",
        "agent.tool_result",
        "agent.tool_use",
        "command.started",
        "command.output",
        "command.completed",
        "agent.tool_result",
        "agent.message",
        "agent.turn_end",
        "git.commit_created",
        "workflow.phase_completed",
        "agent.completed",
    ]


def test_the_commit_is_announced_only_when_its_bundle_is_stored(bench: Bench) -> None:
    bench.script(SIMPLE)
    assert bench.run() == 0
    order = bench.door.order
    assert order.index("artifact:checkpoint.bundle") < order.index("git.commit_created")


def test_the_result_comes_last(bench: Bench) -> None:
    bench.script(SIMPLE)
    assert bench.run() == 0
    assert bench.door.order[-1] == "result"


def test_the_bundle_holds_the_branch(bench: Bench) -> None:
    bench.script(SIMPLE)
    assert bench.run() == 0
    content, head = bench.door.artifacts["result.bundle"][0]
    (bench.root / "b").write_bytes(content)
    git(bench.workspace, "checkout", "-q", "main")
    git(bench.workspace, "fetch", "-q", str(bench.root / "b"), "refs/heads/feat-wo-1:refs/heads/copy")
    assert git(bench.workspace, "rev-parse", "copy") == head == bench.result["head_sha"]


def test_an_earlier_attempts_commits_are_built_upon(bench: Bench) -> None:
    base = bench.job["base_commit"]
    (bench.workspace / "old.txt").write_text("old\n")
    git(bench.workspace, "add", "-A")
    git(bench.workspace, "commit", "-qm", "earlier")
    git(bench.workspace, "bundle", "create", "-q", str(bench.root / "resume.bundle"), f"{base}..refs/heads/feat-wo-1")
    git(bench.workspace, "reset", "-q", "--hard", base)
    bench.script([{"run": {"command": "test -f old.txt"}}])
    bench.job["resume_bundle"] = str(bench.root / "resume.bundle")
    assert bench.run() == 0, bench.result
    assert git(bench.workspace, "log", "-2", "--format=%s").split("\n")[1] == "earlier"


def test_a_failing_agent_fails_truthfully(bench: Bench) -> None:
    bench.script([{"write": {"path": "half.txt", "content": "x"}}, {"fail": {"reason": "I give up"}}])
    assert bench.run() == 1
    assert (bench.result["status"], bench.result["reason"]) == ("failed", "I give up")


def test_what_a_failing_agent_left_is_not_lost(bench: Bench) -> None:
    bench.script([{"write": {"path": "half.txt", "content": "x"}}, {"fail": {"reason": "I give up"}}])
    bench.run()
    assert git(bench.workspace, "show", "--format=%s", "--name-only", "feat-wo-1").split("\n") == [
        "failed: I give up",
        "",
        "half.txt",
    ]
    assert bench.door.artifacts["result.bundle"]


def test_no_commit_means_no_bundle(bench: Bench) -> None:
    bench.script([{"fail": {"reason": "at once"}}])
    assert bench.run() == 1
    assert "result.bundle" not in bench.door.artifacts
    assert bench.result["head_sha"] is None


def test_a_program_that_ends_by_itself_is_an_error(bench: Bench) -> None:
    bench.script([{"exit": {"code": 7}}])
    assert bench.run() == 1
    assert bench.result["reason"] == "the agent program ended with exit code 7 before its turn did"


def test_a_missing_program_is_named(bench: Bench) -> None:
    bench.steps("build")
    bench.job["agent"] = {"adapter": "claude", "program": ["/nonexistent/claude"], "options": {}}
    assert bench.run() == 1
    assert "cannot start the agent program /nonexistent/claude" in bench.result["reason"]


def test_a_turn_that_takes_too_long_is_a_limit(bench: Bench) -> None:
    bench.script([{"delay": 600}])
    bench.job["agent"]["turn_timeout_seconds"] = 1
    assert bench.run() == 1
    assert bench.result["reason"] == "the turn took longer than the 1 s allowed"
    assert bench.door.of("agent.turn_end")[0]["reason"] == "limit"


def test_heartbeats_ride_beside_a_busy_agent(bench: Bench) -> None:
    """W11"""
    bench.script([{"run": {"command": "sleep 30"}}])
    bench.job["heartbeat_seconds"] = 0.2
    bench.start()
    beat = bench.door.wait_event("sandbox.heartbeat", current_action="run: sleep 30")
    assert beat["status"] == "running"
    assert beat["memory_mb"] > 1


def test_planted_hooks_cannot_stop_a_commit(bench: Bench) -> None:
    plant = "mkdir -p .git/hooks && printf '#!/bin/sh\\nexit 1\\n' > .git/hooks/pre-commit && chmod +x .git/hooks/pre-commit"
    bench.script([{"run": plant}, *SIMPLE])
    assert bench.run() == 0
    assert bench.result["files_changed"] == [{"path": "a.txt", "action": "created"}]


@pytest.mark.parametrize(
    "mischief",
    [
        "git config user.useConfigOnly true; git config commit.gpgSign true",
        "git config filter.x.clean false; git config filter.x.required true; echo '*.bin filter=x' > .gitattributes; echo 1 > z.bin",
        "touch .git/index.lock",
        "git checkout -q --detach",
        "git checkout -q -b elsewhere; echo 1 > b.txt; git add b.txt; git -c user.name=a -c user.email=a@b commit -qm mine",
        "printf x > \"$(printf 'na\\303\\257ve \\377.txt')\"",
    ],
    ids=["config", "filter", "lock", "detached", "branch", "name"],
)
def test_work_is_kept_whatever_the_agent_did_to_git(bench: Bench, mischief: str) -> None:
    bench.script([{"run": mischief}, *SIMPLE])
    assert bench.run() == 0, bench.result
    assert git(bench.workspace, "show", "feat-wo-1:a.txt") == "hi"


def test_files_changed_by_commands_are_noticed(bench: Bench) -> None:
    bench.script([{"run": {"command": "echo more >> README.md; mkdir d; echo 1 > d/new.txt"}}])
    assert bench.run() == 0
    assert bench.door.of("file.modified") == [{"path": "README.md"}]
    assert bench.door.of("file.created") == [{"path": "d/new.txt"}]


def test_huge_output_does_not_break_the_report(bench: Bench) -> None:
    bench.script([{"run": {"command": "head -c 3000000 /dev/zero | tr '\\0' x"}}, {"say": "y" * 200_000}])
    assert bench.run() == 0
    assert "event_refused" not in str(bench.door.types())
    assert all(len(json.dumps(event["event_data"])) < 100 * 1024 for event in bench.door.events.values())


def test_nothing_of_the_agent_is_left_behind(bench: Bench) -> None:
    bench.script([{"run": {"command": "setsid sleep 300 >/dev/null 2>&1 & true"}}])
    assert bench.run() == 0
    assert bench.agents() == []


def test_the_raw_line_is_kept(bench: Bench) -> None:
    bench.script([{"say": "hello"}])
    assert bench.run() == 0
    raw: dict[str, Any] = json.loads(bench.door.of("agent.message")[0]["raw"])
    assert raw["data"]["text"] == "hello"


def test_the_transcript_is_handed_out(bench: Bench) -> None:
    bench.script([{"say": "hello"}])
    assert bench.run() == 0
    assert b'"hello"' in bench.door.artifacts["transcript"][0][0]


def test_uploaded_files_leave_the_spool(bench: Bench) -> None:
    bench.script(SIMPLE)
    assert bench.run() == 0
    assert not [name for name in os.listdir(bench.job["spool"]) if "bundle" in name]


def test_a_script_may_lie_in_the_repository(bench: Bench) -> None:
    (bench.workspace / ".shopfloor").mkdir()
    (bench.workspace / ".shopfloor" / "script.json").write_text('[{"say": "from the repository"}]')
    bench.steps("build")
    assert bench.run() == 0
    assert bench.result["summary"] == "from the repository"


def test_an_action_may_be_for_one_attempt_only(bench: Bench) -> None:
    bench.script([{"if_attempt": 2, "fail": "never in the first"}, {"say": "fine"}])
    assert bench.run() == 0, bench.result


def test_a_program_that_dies_between_steps_is_started_for_the_next(bench: Bench) -> None:
    bench.script(
        {
            "plan": [{"run": {"command": "(sleep 0.1; kill -9 $PPID) >/dev/null 2>&1 & true"}}, {"say": "p"}],
            "build": SIMPLE,
        },
        "plan",
        "build",
    )
    assert bench.run() == 0, bench.result
    assert bench.result["summary"] == "Add a greeting"


def test_a_branch_the_agent_deleted_is_made_again(bench: Bench) -> None:
    bench.script([{"run": "git checkout -q --detach && git branch -q -D feat-wo-1"}, *SIMPLE])
    assert bench.run() == 0, bench.result
    assert git(bench.workspace, "show", "feat-wo-1:a.txt") == "hi"


def test_looking_at_an_older_commit_does_not_undo_newer_ones(bench: Bench) -> None:
    script = {"plan": SIMPLE, "build": [{"run": "git checkout -q HEAD~1"}, {"say": "looked"}]}
    bench.script(script, "plan", "build")
    assert bench.run() == 0, bench.result
    assert git(bench.workspace, "show", "feat-wo-1:a.txt") == "hi"
