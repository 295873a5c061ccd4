"""No destroy loses work: what a sandbox did not hand out is pinned before it goes, listed, and can be had back."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.platform import GENEROUS, Platform, folder, git, platform, sample_repository, until

COMMIT = "git add by-agent.txt && git -c user.name=A -c user.email=a@b.invalid commit -qm 'by the agent'"
WORK = [
    {"write": {"path": "by-agent.txt", "content": "committed by the agent itself\n"}},
    {"run": COMMIT},
    {"write": {"path": "loose.txt", "content": "in no commit\n"}},
    {"append": {"path": "app.py", "content": "print('more')\n"}},
    {"run": "rm README.md; ln -s /etc/passwd link; mkdir node_modules; echo made > node_modules/made; mkfifo pipe"},
    {"say": "all of it is there"},
]
LOST = {"build": [*WORK, {"delay": 600, "if_attempt": 1}]}
SANDBOXES = ("local", "git_branch", "git_worktree")


def pins(house: Platform, order_id: str) -> dict[str, dict[str, Any]]:
    found: list[dict[str, Any]] = house.get(f"/agent-work-orders/{order_id}/pins")["pins"]
    return {pin["kind"]: pin for pin in reversed(found)}


def said(house: Platform, order_id: str) -> None:
    until(lambda: [e for e in house.events(order_id) if e["event"] == "agent.message"], what="the agent to speak")


def kill_sandboxes(house: Platform) -> None:
    """kill -9 of the keepers and all they hold."""
    for pid in [*house.keepers(), *house.inside(b"")]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def lost(house: Platform, place: Path, **fields: Any) -> str:
    """An order whose only attempt worked, and was then killed with everything around it."""
    wish = {"workflow_type": "build", "max_attempts": 1, "allow_no_isolation": True, **fields}
    order_id = house.order(sample_repository(place), LOST, **wish)
    said(house, order_id)
    kill_sandboxes(house)
    assert house.finished(order_id)["status"] == "failed"
    return order_id


def recover(house: Platform, *arguments: str, code: int = 0) -> str:
    """The command; answers what it printed."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SHOPFLOOR_")}
    environment |= {"SHOPFLOOR_URL": str(house.client.base_url), "NO_COLOR": "1"}
    command = [sys.executable, "-m", "shopfloor.cli.main", "recover", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=GENEROUS)
    assert done.returncode == code, done
    return done.stdout + done.stderr


@pytest.fixture(params=SANDBOXES)
def loss(request: pytest.FixtureRequest, house: Platform, place: Path) -> tuple[str, Path]:
    """A lost order, and a clone of its repository."""
    order_id = lost(house, place, sandbox_type=request.param)
    git("clone", "-q", str(place / "origin.git"), str(place / "clone"), cwd=place)
    return order_id, place


def test_what_a_lost_attempt_had_not_handed_out_is_listed_and_comes_back(
    house: Platform, loss: tuple[str, Path]
) -> None:
    order_id, place = loss
    found = pins(house, order_id)
    assert found["files"]["facts"]["gone"] == 1
    assert "pipe: is a pipe" in found["files"]["note"]
    assert "node_modules: is left out by the setting retention.leave" in found["files"]["note"]
    assert "died" in found["files"]["reason"]
    assert order_id in recover(house, order_id)
    outlook = house.get(f"/agent-work-orders/{order_id}/explain")["what_would_change_it"]
    assert "recover: 3 pins hold what it had not handed out" in outlook
    recover(house, order_id, "--into", str(place / "back"))
    back = place / "back"
    assert (back / "loose.txt").read_text() == "in no commit\n"
    assert (back / "app.py").read_text() == "print('hello')\nprint('more')\n"
    assert not (back / "link").is_symlink()
    assert json.loads((back / "shopfloor-manifest.json").read_text())["gone"] == ["README.md"]
    recover(house, order_id, "--branch", "mine", "--repository", str(place / "clone"))
    files = git("ls-tree", "--name-only", "mine", cwd=place / "clone").splitlines()
    assert files == ["app.py", "by-agent.txt", "link", "loose.txt"]
    assert git("log", "--format=%s", "main..mine", cwd=place / "clone").splitlines()[1:] == ["by the agent"]


def test_a_retry_goes_on_from_what_was_pinned(house: Platform, place: Path) -> None:
    order_id = lost(house, place)
    # Links out of the repository are refused by policy: this order's work must be acceptable to be delivered.
    script = {"build": [{"run": "test -f loose.txt && test -f by-agent.txt && rm link"}, {"say": "found it"}]}
    with sqlite3.connect(house.data / "shopfloor.db", timeout=30) as database:
        database.execute("UPDATE work_orders SET agent_options = ?", (json.dumps({"script": script}),))
    recover(house, order_id, "--retry")
    order = house.finished(order_id)
    assert order["status"] == "completed", order["reason"]
    branch = order["git_branch_name"]
    files = git("ls-tree", "--name-only", branch, cwd=place / "origin.git").splitlines()
    assert files == ["app.py", "by-agent.txt", "loose.txt"]


def test_an_order_that_was_delivered_leaves_nothing_to_pin(house: Platform, place: Path) -> None:
    order_id = house.order(sample_repository(place), [*WORK[:1], {"say": "done"}], workflow_type="build")
    assert house.finished(order_id)["status"] == "completed"
    concluded = lambda: [e for e in house.events(order_id) if e.get("after") == "TERMINATED"]  # noqa: E731
    until(concluded, what="its sandbox to go")
    assert pins(house, order_id) == {}


def test_what_was_spooled_while_the_server_was_away_is_in_the_log_after_the_sandbox_died() -> None:
    script = [
        {"say": "before"},
        {"delay": 3},
        {"say": "while nobody listened"},
        {"write": {"path": "x", "content": "y"}},
    ]
    with platform(heartbeat_seconds=2) as house, folder() as place:
        order_id = house.order(
            sample_repository(place), [*script, {"delay": 600}], workflow_type="build", max_attempts=1
        )
        said(house, order_id)
        house.kill()
        spool = next((house.data / "spools").iterdir()) / "outbox.jsonl"
        until(lambda: b"while nobody listened" in spool.read_bytes(), what="the worker to write it down")
        kill_sandboxes(house)
        house.start()
        assert house.finished(order_id)["status"] == "failed"
        told = [e["text"] for e in house.events(order_id) if e["event"] == "agent.message"]
        assert told == ["before", "while nobody listened"]
        assert "spool" in pins(house, order_id)


def test_a_sandbox_that_a_person_deletes_is_pinned_first(house: Platform, place: Path) -> None:
    order_id = house.order(sample_repository(place), LOST, workflow_type="build", max_attempts=1)
    said(house, order_id)
    sandbox = house.show(order_id)["sandbox_identifier"]
    answer = house.client.delete(f"/api/v1/sandboxes/{sandbox}", params={"force": True, "grace_seconds": 0})
    assert answer.status_code == 200, answer.text
    assert {"commits", "files"} <= pins(house, order_id).keys()
    assert house.finished(order_id)["status"] == "failed"


def test_a_sandbox_of_no_order_is_pinned_too(house: Platform, place: Path) -> None:
    body = {"argv": ["sh", "-c", "echo mine > kept.txt; git init -q .; sleep 600"], "sandbox_type": "local"}
    sandbox = house.post("/sandboxes", body, expect=201)["sandbox_id"]
    upper = house.data / "sandboxes" / "local" / sandbox / "overlay" / "upper"
    until(lambda: (upper / ".git" / "HEAD").exists() or None, what="its work")
    house.client.delete(f"/api/v1/sandboxes/{sandbox}", params={"grace_seconds": 0})
    mine = [pin for pin in house.get("/pins", limit=500)["pins"] if pin["sandbox_id"] == sandbox]
    assert [pin["kind"] for pin in mine] == ["files"]
    recover(house, "--pin", str(mine[0]["id"]), "--into", str(place / "back"))
    assert (place / "back" / "kept.txt").read_text() == "mine\n"
    assert (place / "back" / "dot-git" / "HEAD").exists()
    assert not (place / "back" / ".git").exists()


def test_what_cannot_be_pinned_is_not_destroyed_and_says_why() -> None:
    with platform() as house, folder() as place:
        blobs = house.data / "blobs"
        order_id = house.order(sample_repository(place), LOST, workflow_type="build", max_attempts=1)
        said(house, order_id)
        blobs.write_text("in the way")
        kill_sandboxes(house)
        refused = lambda: [e for e in house.events(order_id) if e["event"] == "work.not_pinned"]  # noqa: E731
        until(refused, what="the refusal")
        sandbox = house.show(order_id)["sandbox_identifier"]
        assert (house.data / "sandboxes" / "local" / sandbox / "overlay" / "upper" / "loose.txt").exists()
        until(lambda: "could not be pinned" in house.show(order_id)["reason"], what="the reason to be told")
        assert house.show(order_id)["status"] == "running"
        blobs.unlink()
        assert house.finished(order_id)["status"] == "failed"
        assert {"commits", "files"} <= pins(house, order_id).keys()
        assert not (house.data / "sandboxes" / "local" / sandbox).exists()


@pytest.fixture
def forgetful() -> Iterator[tuple[Platform, Path]]:
    """A platform that keeps nothing of failed orders beyond the next sweep."""
    with platform(retention={"failed": 0, "completed": 0}) as house, folder() as place:
        yield house, place


def test_policy_says_what_would_go_then_lets_it_go_and_says_so(forgetful: tuple[Platform, Path]) -> None:
    house, place = forgetful
    order_id = lost(house, place)
    home = house.data / "homes" / order_id
    blob = next(pin for pin in house.get("/pins")["pins"] if pin["kind"] == "files")["content"]
    os.utime(house.data / "blobs" / blob[:2] / blob[2:], (0, 0))
    assert f"home\t{order_id}" in recover(house, "--sweep", "--dry-run")
    assert home.exists()
    assert not any(pin["gone_at"] for pin in pins(house, order_id).values())
    recover(house, "--sweep")
    assert not home.exists()
    assert all(pin["gone_at"] for pin in pins(house, order_id).values())
    assert not (house.data / "blobs" / blob[:2] / blob[2:]).exists()
    events = [e["event"] for e in house.events(order_id)]
    assert events.count("work.pin_expired") == len(pins(house, order_id))
    assert events.count("work.leftovers_removed") == 2
    orders = next((house.data / "repositories").glob("*/orders.git"))
    assert git("for-each-ref", "refs/shopfloor/pins", cwd=orders) == ""
    number = pins(house, order_id)["files"]["id"]
    assert "was let go" in recover(house, order_id, "--pin", str(number), "--into", str(place / "late"), code=1)


def test_policy_touches_nothing_of_an_order_that_still_runs(forgetful: tuple[Platform, Path]) -> None:
    house, place = forgetful
    order_id = house.order(sample_repository(place), LOST, workflow_type="build")
    said(house, order_id)
    assert house.post("/retention/sweep?dry_run=false")["going"] == []
    assert (house.data / "homes" / order_id).exists()


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("wo-none",), "there is no work order"),
        (("ID", "--pin", "999"), "there is no pin 999"),
        (("ID", "--into", "FULL"), "Name a new or an empty folder"),
        (("ID", "--branch", "main", "--repository", "CLONE"), "exists already"),
        (("ID", "--branch", "a..b", "--repository", "CLONE"), "no name for a branch"),
        (("ID", "--branch", "x", "--repository", "FULL"), "is not a git repository"),
        (("ID", "--branch", "x", "--repository", "STRANGER"), "fetch from its origin first"),
        (("--retry",), "say which work order"),
    ],
)
def test_a_wish_that_cannot_be_met_says_what_to_do(
    broken: tuple[Platform, str, Path], arguments: tuple[str, ...], hint: str
) -> None:
    house, order_id, place = broken
    names = {
        "ID": order_id,
        "FULL": str(place / "full"),
        "CLONE": str(place / "clone"),
        "STRANGER": str(place / "other"),
    }
    command = [names.get(word, word) for word in arguments]
    with pytest.raises(AssertionError) as refused:
        recover(house, *command)
    assert hint in str(refused.value)


@pytest.fixture(scope="module")
def broken(house: Platform) -> Iterator[tuple[Platform, str, Path]]:
    """A lost order, with folders that are not fit to restore into."""
    with folder() as place:
        order_id = lost(house, place)
        (place / "full").mkdir()
        (place / "full" / "mine.txt").write_text("do not touch")
        git("clone", "-q", str(place / "origin.git"), str(place / "clone"), cwd=place)
        git("init", "-q", str(place / "other"), cwd=place)
        yield house, order_id, place
        assert os.listdir(place / "full") == ["mine.txt"]


def test_the_archive_itself_can_be_fetched(house: Platform, broken: tuple[Platform, str, Path]) -> None:
    _, order_id, place = broken
    number = pins(house, order_id)["files"]["id"]
    answer = house.client.get(f"/api/v1/agent-work-orders/{order_id}/pins/{number}/content")
    (place / "archive.tar.gz").write_bytes(answer.content)
    with tarfile.open(place / "archive.tar.gz") as archive:
        assert archive.getnames() == ["manifest.json", "files/app.py", "files/link", "files/loose.txt"]


def test_pins_outlive_the_eviction_and_the_folding_of_the_mirror(broken: tuple[Platform, str, Path]) -> None:
    house, order_id, place = broken
    mirrors = (house.data / "repositories").glob("*/mirror.git")
    for mirror in mirrors:
        git("repack", "-q", "-a", "-d", cwd=mirror)
    recover(house, order_id, "--branch", "after-repack", "--repository", str(place / "clone"))
    assert git("show", "after-repack:by-agent.txt", cwd=place / "clone") == "committed by the agent itself"


def test_of_several_attempts_the_newest_is_restored_and_none_before_it_unasked(house: Platform, place: Path) -> None:
    def step(number: int) -> list[dict[str, Any]]:
        return [
            {"write": {"path": f"attempt-{number}.txt", "content": "x"}, "if_attempt": number},
            {"say": f"attempt {number}", "if_attempt": number},
        ]

    script = [
        *step(1),
        {"run": COMMIT.replace("by-agent", "attempt-1"), "if_attempt": 1},
        {"say": "1 waits", "if_attempt": 1},
    ]
    script += [{"delay": 600, "if_attempt": 1}, *step(2), {"delay": 600, "if_attempt": 2}, {"fail": "no more"}]
    order_id = house.order(sample_repository(place), script, workflow_type="build", max_attempts=2)
    for words in ("1 waits", "attempt 2"):
        until(lambda: words in [e.get("text") for e in house.events(order_id)], what=words)  # noqa: B023 - called at once
        kill_sandboxes(house)
    assert house.finished(order_id)["status"] == "failed"
    recover(house, order_id, "--into", str(place / "back"))
    assert (place / "back" / "attempt-2.txt").exists()
    git("clone", "-q", str(place / "origin.git"), str(place / "clone"), cwd=place)
    recover(house, order_id, "--branch", "newest", "--repository", str(place / "clone"))
    assert "attempt-2.txt" in git("ls-tree", "--name-only", "newest", cwd=place / "clone")
    house.post(f"/agent-work-orders/{order_id}/retry", {})
    assert house.finished(order_id)["status"] == "failed"
    said = recover(house, order_id, "--retry", code=1)
    assert "handed out all it had" in said
