"""Work orders from the command line, end to end: the real server, real sandboxes, the script agent."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import FAILS, PLAN_BUILD_TEST, WAITS, Done, Shop, repository
from tests.support.platform import GENEROUS, git


@pytest.fixture(scope="module")
def finished(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A work order that ran to its end on a plain folder."""
    work = repository(tmp_path_factory.mktemp("finished"))
    done = shop.run(work, PLAN_BUILD_TEST, workflow="plan_build_test")
    order_id = done.err.split()[0]
    return {"done": done, "id": order_id, "work": work, "order": shop.json("status", order_id)}


@pytest.fixture(scope="module")
def idle(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A work order that runs and is not changed by the tests that look at it."""
    order_id = shop.order(repository(tmp_path_factory.mktemp("idle")), WAITS)
    shop.speaking(order_id)
    return order_id


@pytest.fixture
def waiting(shop: Shop, place: Path) -> str:
    """A work order whose agent waits for a message."""
    order_id = shop.order(repository(place), WAITS)
    shop.speaking(order_id)
    return order_id


def test_run_ends_with_0_when_the_order_is_completed(finished: dict[str, Any]) -> None:
    done: Done = finished["done"]
    assert done.code == 0, done


def test_run_delivers_a_branch_into_the_users_own_folder(finished: dict[str, Any]) -> None:
    branch = finished["order"]["git_branch_name"]
    assert git("show", f"{branch}:result.txt", cwd=finished["work"]) == "good morning"


def test_run_leaves_the_users_checkout_alone(finished: dict[str, Any]) -> None:
    status = git("status", "--porcelain", cwd=finished["work"])
    assert (status, git("branch", "--show-current", cwd=finished["work"])) == ("", "main")


def test_run_shows_what_happens(finished: dict[str, Any]) -> None:
    assert "I will greet." in finished["done"].out


def test_run_works_on_the_folder_it_is_called_in(shop: Shop, place: Path) -> None:
    work = repository(place)
    order_id = shop.run(Path(), PLAN_BUILD_TEST["build"], "--detach", cwd=work).out.strip()
    assert shop.json("status", order_id)["repository_url"] == str(work)


def test_run_exits_with_1_when_the_order_fails(shop: Shop, place: Path) -> None:
    done = shop.run(repository(place), FAILS)
    assert (done.code, "the tests are a lie" in done.out) == (1, True)


def test_run_json_prints_the_finished_order_alone(shop: Shop, place: Path) -> None:
    done = shop.run(repository(place), PLAN_BUILD_TEST["build"], "--json")
    assert json.loads(done.out)["status"] == "completed"


def test_run_detached_json_prints_the_new_order(shop: Shop, place: Path) -> None:
    done = shop.run(repository(place), PLAN_BUILD_TEST["build"], "--detach", "--json")
    assert json.loads(done.out)["agent_work_order_id"].startswith("wo-")


def test_an_unknown_agent_is_refused_with_1_and_a_hint(shop: Shop, place: Path) -> None:
    done = shop("run", str(repository(place)), "Do it", "--agent", "nobody-we-know")
    assert (done.code, "hint:" in done.err) == (1, True)


def test_ctrl_c_leaves_the_order_running_and_says_how_to_come_back(shop: Shop, idle: str) -> None:
    process = shop.start("attach", idle, stdin=subprocess.PIPE)
    assert process.stdout
    assert any("waiting for you" in line for line in process.stdout)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=GENEROUS)
    assert (process.returncode, shop.json("status", idle)["status"]) == (130, "running")


def test_ctrl_c_in_run_says_how_to_cancel(shop: Shop, place: Path) -> None:
    words = ["--agent", "script", "--workflow", "build", "--option", f"script={json.dumps(WAITS)}"]
    process = shop.start("run", str(repository(place)), "Please", *words)
    assert process.stdout
    assert any("waiting for you" in line for line in process.stdout)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=GENEROUS)
    assert (process.returncode, "shopfloor cancel" in err) == (130, True)


def test_steer_reaches_the_agent(shop: Shop, waiting: str) -> None:
    assert shop("steer", waiting, "use tabs").code == 0
    shop("logs", waiting, "--follow")
    order = shop.json("status", waiting)
    assert git("show", f"{order['git_branch_name']}:heard.txt", cwd=Path(order["repository_url"])) == "use tabs"


def test_a_line_piped_into_attach_reaches_the_agent(shop: Shop, waiting: str) -> None:
    process = shop.start("attach", waiting, stdin=subprocess.PIPE)
    assert process.stdin
    process.stdin.write("from a pipe\n")
    process.stdin.flush()
    process.wait(GENEROUS)
    order = shop.json("status", waiting)
    assert git("show", f"{order['git_branch_name']}:heard.txt", cwd=Path(order["repository_url"])) == "from a pipe"


def test_attach_ends_with_the_orders_outcome(shop: Shop, waiting: str) -> None:
    process = shop.start("attach", waiting, stdin=subprocess.PIPE)
    shop("cancel", waiting)
    assert process.wait(GENEROUS) == 5


def test_the_end_of_the_input_detaches(shop: Shop, idle: str) -> None:
    done = shop("attach", idle)
    assert (done.code, shop.json("status", idle)["status"]) == (0, "running")


def test_interrupt_without_a_running_turn_is_refused(shop: Shop, finished: dict[str, Any]) -> None:
    assert shop("steer", finished["id"], "--interrupt").code == 1


def test_following_a_cancelled_order_ends_with_5(shop: Shop, waiting: str) -> None:
    assert shop("cancel", waiting).code == 0
    assert shop("logs", waiting, "--follow").code == 5


def test_retry_takes_a_failed_order_up_again(shop: Shop, place: Path) -> None:
    order_id = shop.order(repository(place), FAILS)
    assert shop("logs", order_id, "--follow").code == 1
    assert shop("retry", order_id, "--prompt", "again").code == 0
    assert shop("logs", order_id, "--follow").code == 1
    assert shop.json("status", order_id)["attempts"] == 2


def test_retry_of_a_completed_order_is_refused(shop: Shop, finished: dict[str, Any]) -> None:
    assert shop("retry", finished["id"]).code == 1


@pytest.mark.parametrize("command", ["status", "logs", "attach", "cancel", "retry", "explain"])
def test_an_unknown_order_is_4(shop: Shop, command: str) -> None:
    assert shop(command, "wo-nowhere").code == 4


def test_an_id_that_is_no_id_does_not_reach_other_routes(shop: Shop) -> None:
    assert shop("cancel", "../sandboxes").code in {1, 4}


def test_logs_json_is_one_event_a_line_in_order(shop: Shop, finished: dict[str, Any]) -> None:
    events = [json.loads(line) for line in shop("logs", finished["id"], "--json").out.splitlines()]
    places = [int(event["position"]) for event in events]
    assert places == sorted(set(places))
    assert {"work_order.created", "work_order.finished", "agent.message"} <= {event["event_type"] for event in events}


def test_following_a_finished_order_shows_the_same(shop: Shop, finished: dict[str, Any]) -> None:
    assert shop("logs", finished["id"], "-f", "--json").out == shop("logs", finished["id"], "--json").out


def test_work_orders_lists_what_there_is(shop: Shop, finished: dict[str, Any]) -> None:
    assert finished["id"] in shop("work-orders", "--limit", "500").out


def test_work_orders_can_be_asked_by_status(shop: Shop, finished: dict[str, Any]) -> None:
    found = shop.json("work-orders", "--status", "completed", "--limit", "500")["agent_work_orders"]
    assert {order["status"] for order in found} == {"completed"}


def test_the_status_of_the_shop(shop: Shop) -> None:
    told = shop.json("status")
    assert (told["status"], told["sandboxes"]["maximum"]) == ("ok", 4)


def test_explain_names_the_reason(shop: Shop, finished: dict[str, Any]) -> None:
    assert shop.json("explain", finished["id"])["status"] == "completed"


def test_completion_knows_the_orders(shop: Shop, finished: dict[str, Any]) -> None:
    asked = {"_SHOPFLOOR_COMPLETE": "complete_bash", "COMP_WORDS": "shopfloor status wo-", "COMP_CWORD": "2"}
    assert finished["id"] in shop(env=asked).out


def test_changes_shows_what_was_delivered(shop: Shop, finished: dict[str, Any]) -> None:
    assert finished["order"]["git_branch_name"] in shop("changes", "list").out


def test_changes_shows_the_diff(shop: Shop, finished: dict[str, Any]) -> None:
    assert "+print('good morning')" in shop("changes", "diff", finished["id"]).out


def test_attach_in_a_terminal_keeps_the_prompt_below(shop: Shop, waiting: str) -> None:
    """What is typed at the prompt reaches the agent, and the command ends with the order."""
    master, terminal = os.openpty()
    with os.fdopen(master, "rb+", buffering=0) as screen:
        process = shop.start("attach", waiting, stdin=terminal, stdout=terminal, env={"TERM": "xterm"})
        os.close(terminal)
        seen = b""
        while b"waiting for you" not in seen:
            seen += screen.read(4096)
        screen.write(b"typed by hand\n")
        assert process.wait(GENEROUS) == 0
    order = shop.json("status", waiting)
    assert git("show", f"{order['git_branch_name']}:heard.txt", cwd=Path(order["repository_url"])) == "typed by hand"
