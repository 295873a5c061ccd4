"""Help at once, usage, and what is said when there is no server or no repository."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Shop, repository
from tests.support.platform import git

HEAVY = {"httpx", "fastapi", "sqlalchemy", "dbos", "rich", "pydantic", "uvicorn", "yaml", "asyncio", "structlog"}


@pytest.fixture(scope="module")
def imported() -> set[str]:
    """What Python imports to answer --help."""
    command = [sys.executable, "-X", "importtime", "-m", "shopfloor.cli.main", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


def test_help_imports_nothing_heavy(imported: set[str]) -> None:
    assert imported & HEAVY == set()


def test_help_imports_little(imported: set[str]) -> None:
    assert len(imported) < 250


def test_help_tells_the_exit_codes(nobody: Shop) -> None:
    done = nobody("--help")
    assert (done.code, "Exit codes:" in done.out) == (0, True)


@pytest.mark.parametrize(
    "command",
    [
        "up",
        "run",
        "status",
        "logs",
        "attach",
        "steer",
        "cancel",
        "retry",
        "work-orders",
        "doctor",
        "demo",
        "serve",
        "engine",
        "explain",
        "changes",
    ],
)
def test_every_command_has_help(nobody: Shop, command: str) -> None:
    assert nobody(command, "--help").code == 0


def test_the_version(nobody: Shop) -> None:
    assert nobody("--version").out.startswith("shopfloor ")


def test_wrong_usage_is_2(nobody: Shop) -> None:
    assert nobody("cancel").code == 2


def test_no_server_is_3_and_says_how_to_start_one(nobody: Shop, place: Path) -> None:
    done = nobody("run", str(repository(place)), "Do it")
    assert (done.code, "shopfloor up" in done.err) == (3, True)


def test_no_server_with_json_is_a_problem_document(nobody: Shop) -> None:
    assert json.loads(nobody("status", "--json").err)["code"] == "server_unreachable"


def test_a_folder_without_git_is_2_and_says_how_to_make_one(nobody: Shop, place: Path) -> None:
    done = nobody("run", str(place), "Do it")
    assert (done.code, "git init" in done.err) == (2, True)


def test_a_repository_without_commits_is_2(nobody: Shop, place: Path) -> None:
    git("init", "-q", cwd=place)
    done = nobody("run", str(place), "Do it")
    assert (done.code, "no commit" in done.err) == (2, True)


def test_a_folder_that_is_not_there_is_2(nobody: Shop, place: Path) -> None:
    assert nobody("run", str(place / "nowhere" / "deep"), "Do it").code == 2


def test_a_bad_setting_is_1_and_named_with_the_fix(nobody: Shop) -> None:
    done = nobody("up", env={"SHOPFLOOR_PORT": "many"})
    assert (done.code, "SHOPFLOOR_PORT" in done.err) == (1, True)


def test_listening_to_others_without_a_key_is_refused(nobody: Shop) -> None:
    done = nobody("up", "--host", "0.0.0.0")
    assert (done.code, "api_key" in done.err) == (1, True)


def test_a_taken_address_is_1(shop: Shop, nobody: Shop, place: Path) -> None:
    done = nobody("up", "--port", shop.url.rpartition(":")[2], "--data-dir", str(place / "other"))
    assert (done.code, "--port" in done.err) == (1, True)


def test_a_used_data_folder_is_1(shop: Shop) -> None:
    done = shop("up", "--port", "0")
    assert (done.code, "data_dir" in done.err) == (1, True)


def test_completion_knows_the_commands(nobody: Shop) -> None:
    asked = {"_SHOPFLOOR_COMPLETE": "complete_bash", "COMP_WORDS": "shopfloor st", "COMP_CWORD": "1"}
    assert nobody(env=asked).out.split() == ["status", "steer"]


def test_completion_of_ids_without_a_server_is_empty(nobody: Shop) -> None:
    asked = {"_SHOPFLOOR_COMPLETE": "complete_bash", "COMP_WORDS": "shopfloor status wo-", "COMP_CWORD": "2"}
    assert nobody(env=asked).out.strip() == ""
