"""Code under test that wants to be believed: none of it gets a passing verdict, and nothing outside is touched (pitfall W30)."""

from pathlib import Path
from typing import Any

import pytest

from shopfloor.evidence import queries
from tests.evidence.conftest import House
from tests.sandboxes.support import processes

WRONG = "\ndef add(a, b):\n    return 0\n"
TRICKS = {
    "posts results": """
import json, urllib.request
for host in ("127.0.0.1:8787", "127.0.0.1:18000", "10.0.2.2:18000"):
    for path in ("/api/v1/check-runs", "/api/v1/sandboxes/x/results", "/api/v1/criteria/x/review"):
        try:
            body = json.dumps({"verdict": "passed"}).encode()
            urllib.request.urlopen(urllib.request.Request(f"http://{host}{path}", body), timeout=1)
        except OSError:
            pass
""",
    "kills its parents": """
import os, signal
for pid in (os.getppid(), 1):
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        pass
""",
    "kills everything": "import os, signal\nos.kill(-1, signal.SIGKILL)\n",
    "forks away and reports later": """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(300)
        os._exit(0)
    os._exit(0)
""",
    "forks without end": """
import os
try:
    for _ in range(5000):
        if os.fork() == 0:
            import time; time.sleep(300)
except OSError:
    pass
""",
    "writes all over the place": """
import os
for path in ("/output.log", "../output.log", "/in/job.json", "/spool/x", "/run/shopfloor/x", "/out", "exit.json", "../exit.json",
             "/proc/1/fd/3", "/proc/self/fd/3", "/dev/shm/exit.json", "/tmp/exit.json"):
    try:
        with open(path, "w") as file:
            file.write('{"exit_code": 0, "reason": ""}')
    except OSError:
        pass
""",
    "prints what passing looks like": "print('Ran 1 test in 0.1s\\n\\nOK\\n{\"exit_code\": 0}\\n1 passed')\n",
}


@pytest.mark.parametrize("trick", TRICKS.values(), ids=TRICKS.keys())
async def test_code_under_test_cannot_speak_its_own_verdict(house: House, place: Path, trick: str) -> None:
    commit = house.code.commit({"app.py": trick + WRONG})
    by_command: dict[str, Any] = {"kind": "command", "command": "python3 -m unittest tests.test_app"}
    by_name: dict[str, Any] = {"kind": "test", "name": "tests.test_app"}
    for check in (by_command, by_name):
        verdict, _ = await house.verdict(commit, **check)
        assert verdict == "failed"
    assert processes(place / "data" / "sandboxes") == []


async def test_a_gigabyte_of_output_is_cut_and_its_end_is_kept(house: House) -> None:
    criterion = await house.criterion(
        "TKT-loud", kind="command", command="yes | head -c 1000000000; echo the end; exit 1"
    )
    await house.done((await house.ask("TKT-loud", house.code.commit({"a": "1"}))).run_id)
    async with house.database.reading() as session:
        (row,) = await queries.of_criterion(session, criterion.criterion_id)
    assert row.output_sha256
    assert (row.verdict, row.output.endswith("the end")) == ("failed", True)
    assert house.bench.blobs.path(row.output_sha256).stat().st_size < 2 << 20


async def test_what_runs_for_ever_is_ended_and_failed(house: House, place: Path) -> None:
    forever: dict[str, Any] = {
        "kind": "command",
        "command": "trap '' TERM; while :; do sleep 1; done",
        "timeout_seconds": 0.5,
    }
    verdict = await house.verdict(house.code.commit({"a": "2"}), **forever)
    assert verdict == ("failed", "it ran longer than 0.5 s and was ended")
    assert processes(place / "data" / "sandboxes") == []


async def test_bytes_that_are_no_text_and_words_for_terminals_are_kept_harmless(house: House) -> None:
    criterion = await house.criterion("TKT-odd", kind="command", command="printf '\\000\\377\\033]0;x\\007ok'; exit 1")
    await house.done((await house.ask("TKT-odd", house.code.commit({"a": "4"}))).run_id)
    async with house.database.reading() as session:
        (row,) = await queries.of_criterion(session, criterion.criterion_id)
    assert row.output.isprintable()
    assert row.output.endswith("ok")
