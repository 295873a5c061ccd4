"""Kills, a server that goes away, answers that get lost: nothing is lost, nothing happens twice."""

import os
import signal

import pytest

from tests.support.workers import Bench, git

READY_THEN_WAIT = [
    {"write": {"path": "a.txt", "content": "a"}},
    {"say": "ready"},
    {"wait_for_message": {"timeout": 60}},
    {"write": {"path": "b.txt", "content": "b"}},
]


def gapless(bench: Bench) -> bool:
    return sorted(bench.door.events) == list(range(1, len(bench.door.events) + 1))


def test_work_goes_on_while_the_server_is_away(bench: Bench) -> None:
    script = {
        "build": [{"say": "ready"}, {"delay": 1.5}, {"write": {"path": "a.txt", "content": "a"}}],
        "test": [{"say": "t"}],
    }
    bench.script(script, "build", "test")
    process = bench.start()
    bench.door.wait_event("agent.message", text="ready")
    bench.door.close()
    while "testing" not in git(bench.workspace, "log", "-1", "--format=%s", "feat-wo-1"):
        assert process.poll() is None
    bench.door.open()
    assert bench.finish(process) == 0
    assert bench.result["status"] == "completed"
    assert gapless(bench)


def test_lost_answers_are_sent_again_under_the_same_numbers(bench: Bench) -> None:
    bench.door.lose_answers = 3
    bench.script([{"say": "one"}, {"say": "two"}])
    assert bench.run() == 0
    assert bench.door.duplicates > 0
    assert [e["text"] for e in bench.door.of("agent.message")] == ["one", "two"]
    assert gapless(bench)


def test_a_killed_worker_goes_on_where_it_was(bench: Bench) -> None:
    bench.script(READY_THEN_WAIT)
    process = bench.start()
    bench.door.wait_event("agent.message", text="ready")
    process.kill()
    process.wait()
    again = bench.start()
    bench.door.wait_event("agent.started", 2)
    bench.door.say("go")
    assert bench.finish(again) == 0
    assert len(bench.door.of("agent.message", text="ready")) == 1
    assert gapless(bench)


def test_events_survive_a_kill_while_the_server_is_away(bench: Bench) -> None:
    bench.script([{"say": "ready"}, {"wait_for_message": {"timeout": 60}}])
    bench.door.close()
    process = bench.start()
    log = bench.root / "spool" / "outbox.jsonl"
    while not (log.exists() and b'"ready"' in log.read_bytes()):
        assert process.poll() is None
    process.kill()
    process.wait()
    bench.door.open()
    again = bench.start()
    bench.door.wait_event("agent.message", text="ready")
    bench.door.say("go")
    assert bench.finish(again) == 0
    assert gapless(bench)


def test_a_worker_killed_after_its_result_only_delivers_it(bench: Bench) -> None:
    bench.script([{"say": "ready"}, {"write": {"path": "a.txt", "content": "a"}}])
    bench.door.close()
    process = bench.start()
    memory = bench.root / "spool" / "worker.json"
    while not (memory.exists() and '"result": "completed"' in memory.read_text()):
        assert process.poll() is None
    process.kill()
    process.wait()
    bench.door.open()
    assert bench.finish(bench.start()) == 0
    assert len(bench.door.of("agent.started")) == 1
    assert bench.result["status"] == "completed"


def test_a_killed_agent_is_restarted_in_place(bench: Bench) -> None:
    bench.script(READY_THEN_WAIT)
    process = bench.start()
    bench.door.wait_event("agent.message", text="ready")
    os.kill(bench.agent(), signal.SIGKILL)
    bench.door.wait_event("agent.started", 2)
    bench.door.say("go")
    assert bench.finish(process) == 0
    assert bench.door.of("agent.restarted_in_place")[0]["exit_code"] == -9
    assert bench.result["files_changed"] == [
        {"path": "a.txt", "action": "created"},
        {"path": "b.txt", "action": "created"},
    ]


def test_a_restarted_agent_does_nothing_twice(bench: Bench) -> None:
    bench.script(
        [{"append": {"path": "a.txt", "content": "x"}}, "crash", {"append": {"path": "a.txt", "content": "y"}}]
    )
    assert bench.run() == 0
    assert (bench.workspace / "a.txt").read_text() == "xy"


def test_an_agent_that_keeps_dying_fails_truthfully(bench: Bench) -> None:
    bench.script([{"crash": {"times": 9}}])
    assert bench.run() == 1
    assert bench.result["reason"] == "the agent program was killed by SIGKILL before its turn ended"
    assert [e["attempt"] for e in bench.door.of("agent.restarted_in_place")] == [1, 2]


def test_a_message_the_dead_agent_had_not_taken_in_is_said_again(bench: Bench) -> None:
    bench.script(
        [
            {"say": "ready"},
            {"run": {"command": "sleep 2"}},
            {"wait_for_message": {"timeout": 60}},
            {"say": "got $message"},
        ]
    )
    process = bench.start()
    bench.door.wait_event("agent.message", text="ready")
    os.kill(bench.agent(), signal.SIGSTOP)
    said = bench.door.say("hello")
    bench.door.wait(lambda: said.state == "delivered", "the receipt")
    os.kill(bench.agent(), signal.SIGKILL)
    assert bench.finish(process) == 0
    assert said.receipts == ["delivered", "seen", "done"]
    assert bench.result["summary"] == "got hello"


def test_sigterm_is_a_graceful_stop(bench: Bench) -> None:
    bench.script([{"write": {"path": "half.txt", "content": "x"}}, {"run": {"command": "sleep 300"}}])
    process = bench.start()
    bench.door.wait_event("command.started")
    process.terminate()
    assert bench.finish(process, timeout=20) == 2
    assert bench.result["status"] == "interrupted"
    assert git(bench.workspace, "log", "-1", "--format=%s") == "interrupted: the worker was told to stop (SIGTERM)"
    assert bench.agents() == []


def test_sigterm_while_the_server_is_away_keeps_the_spool(bench: Bench) -> None:
    bench.job["stop_seconds"] = 3
    bench.script([{"write": {"path": "half.txt", "content": "x"}}, {"say": "ready"}, {"delay": 600}])
    process = bench.start()
    bench.door.wait_event("agent.message", text="ready")
    bench.door.close()
    process.terminate()
    assert bench.finish(process, timeout=30) == 2
    bench.door.open()
    assert bench.finish(bench.start()) == 2
    assert bench.result["status"] == "interrupted"
    assert bench.door.artifacts["result.bundle"]


@pytest.mark.parametrize("status", [401, 403, 404, 409])
def test_an_unwanted_worker_stops(bench: Bench, status: int) -> None:
    bench.script([{"say": "ready"}, {"delay": 600}])
    process = bench.start()
    bench.door.wait_event("agent.message", text="ready")
    bench.door.answer_status = status
    bench.door.close()
    bench.door.open()
    assert bench.finish(process) == 3
    assert bench.agents() == []


def test_a_stale_workers_result_changes_nothing(bench: Bench) -> None:
    bench.door.fencing = 2
    bench.script([{"say": "hi"}])
    assert bench.run() == 3
    assert bench.door.results == []


def test_a_server_away_too_long_ends_the_worker_with_its_spool_kept(bench: Bench) -> None:
    bench.job["server_away_seconds"] = 1.5
    bench.script([{"write": {"path": "half.txt", "content": "x"}}, {"say": "ready"}, {"delay": 600}])
    process = bench.start()
    bench.door.wait_event("agent.message", text="ready")
    bench.door.close()
    assert bench.finish(process) == 4
    assert b"half.txt" in (bench.root / "spool" / "outbox.jsonl").read_bytes()


def test_a_server_in_trouble_is_asked_again(bench: Bench) -> None:
    bench.door.answer_status = 503
    bench.script([{"say": "ready"}])
    process = bench.start()
    memory = bench.root / "spool" / "worker.json"
    while not (memory.exists() and '"result": "completed"' in memory.read_text()):
        assert process.poll() is None
    bench.door.answer_status = 0
    assert bench.finish(process) == 0
    assert gapless(bench)


def test_a_spool_with_a_torn_line_is_usable(bench: Bench) -> None:
    spool = bench.root / "spool" / "outbox.jsonl"
    spool.write_bytes(b'{"kind": "event", "event": {"seq": 1, "event_ty')
    bench.script([{"say": "hi"}])
    assert bench.run() == 0
    assert gapless(bench)
