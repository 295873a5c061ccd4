"""The demo, as a newcomer runs it: twice, and once interrupted."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Done, Shop
from tests.support.platform import GENEROUS, folder, git

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def room() -> Iterator[Path]:
    """Where the demos here put their own temporary folders: what others left on this machine is not theirs."""
    with folder() as place:
        yield place


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, room: Path) -> list[Done]:
    """The demo twice, in the same place."""
    place = tmp_path_factory.mktemp("demo")
    demo = Shop("", {"SHOPFLOOR_CONFIG": str(place / "none.toml"), "TMPDIR": str(room)})
    return [demo("demo", "--json", "--keep", str(place / "kept")) for _ in range(2)]


@pytest.mark.parametrize("run", [0, 1])
def test_it_works(runs: list[Done], run: int) -> None:
    done = runs[run]
    assert (done.code, json.loads(done.out)["ok"]) == (0, True), done.err


def test_every_branch_is_where_it_says(runs: list[Done]) -> None:
    told = json.loads(runs[1].out)
    branches = set(git("branch", "--format", "%(refname:short)", cwd=Path(told["repository"])).split())
    assert {order["branch"] for order in told["orders"]} < branches


def test_one_was_steered_and_its_agent_heard_it(runs: list[Done]) -> None:
    told = json.loads(runs[1].out)
    (steered,) = (order for order in told["orders"] if order["steered"])
    notes = git("show", f"{steered['branch']}:specs/units.md", cwd=Path(told["repository"]))
    assert "exact definitions" in notes


def test_one_was_killed_and_recovered(runs: list[Done]) -> None:
    (recovered,) = (order for order in json.loads(runs[1].out)["orders"] if order["recovered"])
    assert (recovered["name"], recovered["status"]) == ("spell", "completed")


def test_it_takes_less_than_a_minute(runs: list[Done]) -> None:
    assert min(json.loads(run.out)["seconds"] for run in runs) < 60


def test_nothing_is_left_behind(runs: list[Done], room: Path) -> None:
    assert {run.code for run in runs} == {0}
    assert leftovers(room) == ([], [])


def test_ctrl_c_cleans_up(tmp_path: Path, room: Path) -> None:
    demo = Shop("", {"TMPDIR": str(room)})
    process = demo.start("demo", "--keep", str(tmp_path / "kept"), stderr=subprocess.STDOUT)
    assert process.stdout
    assert any("sandbox started" in line for line in process.stdout)
    assert leftovers(room) != ([], [])
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=GENEROUS)
    assert (process.returncode, leftovers(room)) == (130, ([], []))


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    done = Shop("")("demo", "--keep", str(tmp_path))
    assert (done.code, (tmp_path / "precious").read_text()) == (1, "mine")


def leftovers(room: Path) -> tuple[list[str], list[Path]]:
    """What demos left: servers or keepers with a folder in `room` in their command line or as their place, and files."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            said = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace") + os.readlink(f"/proc/{pid}/cwd")
        except OSError:
            continue
        if str(room) in said:
            found.append(said)
    return found, list(room.iterdir())
