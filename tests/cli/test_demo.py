"""The demo, as a newcomer runs it: twice, and once interrupted."""

import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.cli.conftest import Done, Shop
from tests.support.platform import GENEROUS, git

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Done]:
    """The demo twice, in the same place."""
    place = tmp_path_factory.mktemp("demo")
    demo = Shop("", {"SHOPFLOOR_CONFIG": str(place / "none.toml")})
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


def test_nothing_is_left_behind(runs: list[Done]) -> None:
    assert (leftovers(), list(Path(tempfile.gettempdir()).glob("shopfloor-demo-*"))) == ([], [])


def test_ctrl_c_cleans_up(tmp_path: Path) -> None:
    process = Shop("").start("demo", "--keep", str(tmp_path / "kept"), stderr=subprocess.STDOUT)
    assert process.stdout
    assert any("sandbox started" in line for line in process.stdout)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=GENEROUS)
    assert (process.returncode, leftovers()) == (130, [])


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    done = Shop("")("demo", "--keep", str(tmp_path))
    assert (done.code, (tmp_path / "precious").read_text()) == (1, "mine")


def leftovers() -> list[str]:
    """Processes that a demo left: servers or keepers with its data folder in their command line or as their place."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            said = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace") + os.readlink(f"/proc/{pid}/cwd")
        except OSError:
            continue
        if "shopfloor-demo-" in said:
            found.append(said)
    return found
