"""The worker as one file."""

import ast
import asyncio
import importlib.resources
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

from shopfloor.agents import rules
from shopfloor.agents import service as agents


def sources() -> dict[str, ast.Module]:
    root = Path(str(importlib.resources.files("shopfloor_worker")))
    return {str(path.relative_to(root)): ast.parse(path.read_text()) for path in root.rglob("*.py")}


async def test_the_file_is_built_once(tmp_path: Path) -> None:
    first = await agents.worker_zipapp(tmp_path)
    made = first.stat().st_mtime_ns
    assert (await agents.worker_zipapp(tmp_path)).stat().st_mtime_ns == made


async def test_the_file_is_the_same_wherever_it_is_built(tmp_path: Path) -> None:
    one, two = await agents.worker_zipapp(tmp_path / "a"), await agents.worker_zipapp(tmp_path / "b")
    assert (one.name, one.read_bytes()) == (two.name, two.read_bytes())


async def test_builders_do_not_disturb_each_other(tmp_path: Path) -> None:
    places = await asyncio.gather(*(agents.worker_zipapp(tmp_path) for _ in range(8)))
    assert len(set(places)) == 1
    assert zipfile.ZipFile(places[0]).testzip() is None


def test_it_runs_and_says_how(pyz: Path, python: str) -> None:
    done = subprocess.run([python, "-I", str(pyz)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (64, "usage: python3 -I worker.pyz JOB.json\n")


def test_it_needs_nothing_but_the_standard_library() -> None:
    """The runners aside: they are run by the Python of an environment that has their packages."""
    assert imported(lambda path: "runners/" not in str(path)) == {"shopfloor_worker"}


def test_runners_need_only_what_they_run_and_that_needs_itself() -> None:
    needed = imported(lambda path: "runners/" in str(path))
    assert needed == {"shopfloor_worker", "openhands", "minisweagent", "pydantic", "yaml"}


def imported(wanted: Callable[[object], bool]) -> set[str]:
    """The packages that some of the worker's files import, but for the standard library's."""
    found = {
        name.split(".")[0]
        for path, tree in sources().items()
        if wanted(path)
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    return found - set(sys.stdlib_module_names)


def test_every_action_the_host_knows_can_be_played() -> None:
    verbs = {
        node.name.removeprefix("do_")
        for node in ast.walk(sources()["script_agent.py"])
        if isinstance(node, ast.FunctionDef) and node.name.startswith("do_")
    }
    assert verbs == rules.VERBS
