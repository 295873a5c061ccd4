"""Code under test that wants to be believed: none of it gets a passing verdict, and nothing outside is touched (pitfall W30)."""

import platform
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


REWRITE = """
import os, platform, sys
assert platform.machine() == "x86_64"
EXIT_0 = bytes.fromhex("31ff" "b8e7000000" "0f05")
opened = []
for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
    if pid == os.getpid() or (sys.argv[1:] and str(pid) not in sys.argv[1:]):
        continue
    try:
        with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
            opened.append(pid)
            for line in open(f"/proc/{pid}/maps"):
                span, rights = line.split()[:2]
                start, end = (int(part, 16) for part in span.split("-"))
                if rights.startswith("r-x") and "[" not in line:
                    memory.seek(start)
                    memory.write(b"\\x90" * (end - start - len(EXIT_0)) + EXIT_0)
    except OSError:
        pass
print("opened", opened, flush=True)
for pid in opened:
    try:
        os.kill(pid, 17)
    except OSError:
        pass
import time; time.sleep(2)
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the trick is machine code")
@pytest.mark.parametrize("whom", ["", "1"], ids=["everybody", "process 1"])
async def test_code_that_rewrites_the_memory_of_others_is_not_believed(house: House, whom: str) -> None:
    """One user inside: the kernel lets a program into the memory of process 1, which then ends the sandbox with 0."""
    commit = house.code.commit({"app.py": REWRITE})
    criterion = await house.criterion(commit[:20], kind="command", command=f'test "$(python3 app.py {whom})" = 4')
    await house.done((await house.ask(commit[:20], commit)).run_id)
    async with house.database.reading() as session:
        (row,) = await queries.of_criterion(session, criterion.criterion_id)
    assert row.verdict == "failed", row.reason


async def test_nobody_can_look_into_the_shell_that_judges_or_learn_its_word(house: House) -> None:
    look = (
        "import os; me = os.getppid()\n"
        "for name in ('mem', 'environ', 'maps', 'fd'):\n"
        "    try:\n"
        "        print(os.listdir(f'/proc/{me}/fd') if name == 'fd' else open(f'/proc/{me}/{name}', 'rb').read(1))\n"
        "    except OSError as error:\n"
        "        print(name, 'closed')\n"
        "print(repr(open('/opt/shopfloor/word').read()))\n"
    )
    commit = house.code.commit({"app.py": look})
    expected = "mem closed\\nenviron closed\\nmaps closed\\nfd closed\\n"
    command = f"""test "$(python3 app.py)" = "$(printf "{expected}''")" && test -z "$word" """
    assert await house.verdict(commit, kind="command", command=command) == ("passed", "")


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
