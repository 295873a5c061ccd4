"""The examples are run as their readers run them."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_ten_tickets_go_over_the_board_by_themselves(tmp_path: Path) -> None:
    """ORC-04: picked up, sandbox, result, move, proof and merge without a person."""
    command = (sys.executable, str(ROOT / "examples" / "ten_tickets" / "run.py"), "--keep", str(tmp_path / "kept"))
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "17 tests pass on main" in done.stdout
    assert done.stdout.count("criteria proven on") == 10


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    command = (sys.executable, str(ROOT / "examples" / "ten_tickets" / "run.py"), "--keep", str(tmp_path))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "is not empty" in done.stderr + done.stdout) == (1, True)
