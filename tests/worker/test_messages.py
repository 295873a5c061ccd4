"""Messages, interrupts and receipts, on the real worker with script agents."""

from tests.support.workers import Bench, git

WAIT = {"wait_for_message": {"timeout": 60}}


def test_a_message_reaches_a_busy_agent(bench: Bench) -> None:
    bench.script([{"say": "ready"}, WAIT, {"write": {"path": "m.txt", "content": "$message"}}])
    process = bench.start()
    bench.door.wait_event("agent.message", text="ready")
    bench.door.say("use blue")
    assert bench.finish(process) == 0
    assert (bench.workspace / "m.txt").read_text() == "use blue"


def test_receipts_follow_a_message_to_its_end(bench: Bench) -> None:
    bench.script([{"say": "ready"}, WAIT])
    process = bench.start()
    bench.door.wait_event("agent.message", text="ready")
    said = bench.door.say("use blue")
    bench.finish(process)
    assert said.receipts == ["delivered", "seen", "done"]


def test_a_steered_agent_is_announced(bench: Bench) -> None:
    bench.script([{"say": "ready"}, WAIT])
    process = bench.start()
    bench.door.wait_event("agent.message", text="ready")
    said = bench.door.say("watch out", "guardian_intervention")
    bench.finish(process)
    assert bench.door.of("agent.steered") == [{"message_id": said.message_id}]


def test_a_message_leased_twice_is_said_once(bench: Bench) -> None:
    bench.script([{"say": "ready"}, WAIT, {"delay": 1}, {"say": "end"}])
    process = bench.start()
    bench.door.wait_event("agent.message", text="ready")
    said = bench.door.say("only once")
    bench.door.wait(lambda: said.state == "seen", "the receipt")
    with bench.door.news:
        said.state, said.leased_until = "accepted", 0
    bench.finish(process)
    assert said.leases == 2
    assert len(bench.door.of("agent.steered")) == 1


def test_a_message_for_a_finished_script_gets_a_turn_of_its_own(bench: Bench) -> None:
    bench.script(
        {
            "build": [{"say": "ready"}, {"delay": 1.0}],
            "message": [{"write": {"path": "late.txt", "content": "$message"}}],
        }
    )
    process = bench.start()
    bench.door.wait_event("agent.message", text="ready")
    said = bench.door.say("one more thing", "interrupt")
    assert bench.finish(process) == 0
    assert git(bench.workspace, "show", "feat-wo-1:late.txt") == "one more thing"
    assert said.receipts == ["delivered", "seen", "done"]


def test_an_empty_interrupt_ends_the_order(bench: Bench) -> None:
    bench.script([{"write": {"path": "half.txt", "content": "x"}}, {"run": {"command": "sleep 300"}}])
    process = bench.start()
    bench.door.wait_event("command.started")
    said = bench.door.say("", "interrupt")
    assert bench.finish(process) == 2
    assert bench.result["status"] == "interrupted"
    assert said.receipts == ["delivered", "done"]
    assert git(bench.workspace, "show", "feat-wo-1:half.txt") == "x"


def test_an_agent_deaf_to_interrupts_is_ended_by_force(bench: Bench) -> None:
    bench.job["agent"]["interrupt_seconds"] = 0.5
    bench.script(["ignore_interrupt", {"say": "deaf"}, {"delay": 600}])
    process = bench.start()
    bench.door.wait_event("agent.message", text="deaf")
    bench.door.say("", "interrupt")
    assert bench.finish(process) == 2
    assert bench.agents() == []


def test_an_interrupt_with_words_restarts_a_deaf_agent_with_them(bench: Bench) -> None:
    bench.job["agent"]["interrupt_seconds"] = 0.5
    script = {"build": ["ignore_interrupt", {"say": "deaf"}, {"delay": 600}], "message": [{"say": "now $message"}]}
    bench.script(script)
    process = bench.start()
    bench.door.wait_event("agent.message", text="deaf")
    bench.door.say("turn left", "interrupt")
    assert bench.finish(process) == 0
    assert bench.result["summary"] == "now turn left"


def test_an_expired_message_does_not_stop_the_worker(bench: Bench) -> None:
    bench.script([{"say": "ready"}, WAIT, {"say": "after"}])
    process = bench.start()
    bench.door.wait_event("agent.message", text="ready")
    said = bench.door.say("late")
    bench.door.wait(lambda: said.leases, "the lease")
    said.state = "expired"
    assert bench.finish(process) == 0


def test_a_message_before_an_interrupt_is_not_lost(bench: Bench) -> None:
    script = {
        "build": [{"say": "ready"}, {"delay": 600}],
        "message": [{"append": {"path": "m.txt", "content": "$message\n"}}],
    }
    bench.script(script)
    process = bench.start()
    bench.door.wait_event("agent.message", text="ready")
    first = bench.door.say("first")
    bench.door.say("second", "interrupt")
    assert bench.finish(process) == 0
    assert first.state == "done"
    assert (bench.workspace / "m.txt").read_text() == "second\n"
