"""What checks find, in real sandboxes over real commits, on both databases."""

import py_compile
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from shopfloor.evidence import queries, rules, service
from shopfloor.evidence.steps import reading
from shopfloor.forges.mirrors import bundles
from shopfloor.kit import git as host
from shopfloor.sandboxes import queries as sandboxes
from tests.evidence.conftest import FILES, RIGHT, House, engine_over, project
from tests.sandboxes.test_network import web

UNIT = "python3 -m unittest tests.test_app"
COMMAND: dict[str, Any] = {"kind": "command", "command": UNIT}
EASY = "import unittest\n\nclass T(unittest.TestCase):\n    def test_add(self):\n        pass\n"
LIE = "print('Ran 1 test in 0.1s\\n\\nOK')\n"
POM = "<modules><module>a</module></modules><dependencies><dependency><groupId>b</groupId></dependency></dependencies>"
FETCH = """
import sys, urllib.request, urllib.error
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())
except urllib.error.HTTPError as error:
    print(error.code)
except OSError:
    print("failed")
"""
TEST: dict[str, Any] = {"kind": "test", "name": "tests.test_app"}


async def test_a_commit_that_does_it_proves_its_criterion_by_command_and_by_named_test(house: House) -> None:
    commit = house.code.commit(RIGHT)
    assert await house.verdict(commit, **COMMAND) == ("passed", "")
    assert await house.verdict(commit, **TEST) == ("passed", "")


async def test_a_commit_that_does_it_wrong_fails_with_the_exit_code(house: House) -> None:
    commit = house.code.commit({"app.py": "def add(a, b):\n    return 5\n"})
    assert await house.verdict(commit, **COMMAND) == ("failed", "exit code 1")


async def test_a_commit_that_did_nothing_proves_nothing(house: House) -> None:
    """An agent that says "done" and did nothing: even what holds anyway is not its work."""
    verdict, reason = await house.verdict(house.code.commit({}), kind="command", command="true")
    assert (verdict, "changes nothing" in reason) == ("failed", True)


@pytest.mark.parametrize(
    ("trick", "command", "named"),
    [
        ({"tests/test_app.py": None}, "python3 -m unittest discover -s tests", "tests/test_app.py (deleted)"),
        ({"tests/test_app.py": "import unittest\n"}, UNIT, "tests/test_app.py (changed)"),
        ({"verify.sh": "exit 0\n"}, "sh verify.sh", "verify.sh (changed)"),
        ({"unittest.py": "print('Ran 1 test')\n"}, UNIT, "unittest.py (added)"),
        ({"sitecustomize.py": "import os; os._exit(0)\n"}, UNIT, "sitecustomize.py (added)"),
        ({"package.json": '{"scripts": {"test": "true"}}'}, "npm test", "package.json (changed)"),
        ({"package.json": "{broken"}, "npm test", "package.json (changed)"),
        (
            {"tests/test_app/__init__.py": EASY},
            UNIT,
            "tests/test_app/__init__.py (added: comes before tests/test_app.py)",
        ),
        ({"easy/__init__.py": EASY, "tests/test_app": Path("../easy")}, UNIT, "comes before tests/test_app.py"),
        ({"src/unittest.py": LIE}, f"PYTHONPATH=src {UNIT}", "src/unittest.py (added)"),
    ],
)
async def test_a_commit_that_touches_what_it_is_checked_by_proves_nothing(
    house: House, trick: dict[str, str | None], command: str, named: str
) -> None:
    verdict, reason = await house.verdict(house.code.commit(trick), kind="command", command=command)
    assert (verdict, named in reason) == ("failed", True)


@pytest.mark.parametrize(
    ("line", "build"),
    [
        ("make test", {"Makefile": "test:\n\tsh ./tools/run.sh\n"}),
        ("npm test", {"package.json": '{"scripts": {"test": "sh tools/run.sh"}}'}),
        ("sh verify.sh", {"verify.sh": "set -e\nsh ci/all && exit 0\n", "ci/all": "sh tools/run.sh\n"}),
    ],
)
async def test_a_script_that_the_bases_own_files_run_may_not_be_changed(
    house: House, line: str, build: dict[str, str]
) -> None:
    base = house.code.commit({**build, "tools/run.sh": UNIT, "tools/other.sh": "true"})
    place = await reading.at_hand(house.bench.repositories, str(house.code.origin), base)
    called = await reading.called(place, base, line)
    changed = [rules.Touched(path=f"tools/{name}.sh", existed=True) for name in ("run", "other")]
    assert rules.tampered(changed, None, line, called) == ["tools/run.sh (changed)"]
    commit = house.code.commit({"tools/run.sh": "true\n"}, on=base)
    await house.criterion(commit[:20], kind="command", command=line)
    run = await house.done((await house.ask(commit[:20], commit, base_commit=base)).run_id)
    assert (run.verdict, "tools/run.sh (changed)" in str(run.results)) == ("failed", True)


async def test_new_tests_and_other_parts_of_a_harness_file_are_welcome(house: House) -> None:
    more = {
        "tests/test_more.py": FILES["tests/test_app.py"],
        "package.json": FILES["package.json"].replace('"app"', '"better"'),
    }
    assert await house.verdict(house.code.commit(RIGHT | more), **COMMAND) == ("passed", "")


async def test_what_python_compiled_elsewhere_is_neither_read_nor_held_against_anybody(house: House) -> None:
    """An agent that ran the tests and added all files; or one that compiled an easier test, never to be compared with its source."""
    name = f"tests/__pycache__/test_app.{sys.implementation.cache_tag}.pyc"
    with tempfile.TemporaryDirectory() as made:
        (easy := Path(made) / "easy.py").write_text(EASY)
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        py_compile.compile(str(easy), cfile=f"{made}/easy.pyc", invalidation_mode=mode, doraise=True)
        compiled = (Path(made) / "easy.pyc").read_bytes()
    assert await house.verdict(house.code.commit({name: compiled}), **COMMAND) == ("failed", "exit code 1")
    assert await house.verdict(house.code.commit(RIGHT | {name: compiled}), **COMMAND) == ("passed", "")


@pytest.mark.parametrize(
    ("files", "welcome"),
    [
        ({"web/package.json": '{"scripts": {"test": "jest"}}', "web/vite.config.ts": "export default {}\n"}, True),
        ({"package.json": FILES["package.json"][:-1] + ', "dependencies": {"left-pad": "1"}}'}, True),
        ({"package.json": FILES["package.json"][:-1] + ', "dependencies": {"jest": "file:./easy"}}'}, False),
        ({"package.json": FILES["package.json"][:-1] + ', "workspaces": ["web"]}'}, True),
        ({"package.json": FILES["package.json"][:-1] + ', "workspaces": ["!web"]}'}, False),
        ({"tsconfig.json": '{\n  // strict\n  "compilerOptions": {"strict": true,},\n}\n'}, True),
        ({"tsconfig.json": '{"compilerOptions": {"paths": {"vitest": ["./easy"]}}}'}, False),
        ({"Cargo.toml": '[package]\nname = "a"\n[dependencies]\nserde = "1"\n', "src/lib.rs": ""}, False),
        ({"crates/a/Cargo.toml": '[package]\nname = "a"\n[dependencies]\nserde = "1"\n'}, True),
        ({"go.mod": "require (\n\tgithub.com/a/b v1.2.3 // indirect\n)\n"}, True),
        ({"go.mod": "replace github.com/a/b => ./easy\n"}, False),
        ({"settings.gradle": "include ':web'\n", "web/build.gradle": "test { enabled = true }\n"}, True),
        ({"pom.xml": f"<project>{POM}</project>"}, True),
        ({"pom.xml": f"<project><build/>{POM}</project>"}, False),
        ({"pom.xml": f"<project>{POM.replace('<g', '<scope>test</scope><g')}</project>"}, False),
        ({"pom.xml": f"<!DOCTYPE a><project>{POM}</project>"}, False),
        ({"pom.xml": f"<project>{POM}"}, False),
        ({".gitattributes": "*.svg linguist-generated\n# kept\n*.png binary\n"}, True),
        ({".gitattributes": "tests/* working-tree-encoding=UTF-7\n"}, False),
        ({"requirements.txt": "requests[socks]>=2,<3  # why\nx==1 \\\n    --hash=sha256:ab\n"}, True),
        ({"requirements.txt": "pytest @ file:./easy\n"}, False),
        ({"requirements.txt": "-e ./easy\n"}, False),
        ({"Gemfile": "gem 'rack', '~> 3.0'\n"}, True),
        ({"Gemfile": "gem 'rspec', path: 'easy'\n"}, False),
        ({"build.gradle.kts": 'implementation("a:b:1.0")\n'}, True),
        ({"build.gradle.kts": "tasks.test { enabled = false }\n"}, False),
        ({"src/__init__.py": "", "src/sums.py": ""}, True),
        ({"tests/__pycache__/conftest.cpython-312.pyc": "x"}, True),
    ],
)
async def test_ordinary_work_on_files_that_steer_too_is_told_from_steering(
    house: House, files: dict[str, str], *, welcome: bool
) -> None:
    commit = house.code.commit(files)
    place = await reading.at_hand(house.bench.repositories, str(house.code.origin), house.code.base, commit)
    touched = await reading.touched(place, house.code.base, commit)
    assert (rules.tampered(touched, None, "npm test") == []) == welcome


async def test_a_person_who_looked_at_the_commit_lets_its_changed_tests_count(house: House) -> None:
    better = {"tests/test_app.py": FILES["tests/test_app.py"] + "\n# clearer\n"}
    commit = house.code.commit(RIGHT | better)
    criterion = await house.criterion("TKT-waived", **COMMAND)
    assert (await house.done((await house.ask("TKT-waived", commit)).run_id)).verdict == "failed"
    async with house.database.transaction() as session:
        await service.record_review(session, criterion.criterion_id, commit, "passed", "person:ann", "only a comment")
    assert (await house.done((await house.ask("TKT-waived", commit, again=True)).run_id)).verdict == "passed"
    (found,) = await house.standing("TKT-waived", commit)
    assert found.evidence
    assert (found.verdict, found.evidence.said_by) == ("passed", "check")


async def test_a_merged_commit_is_only_checked(house: House) -> None:
    """Its tests were changed with a person's consent on the ticket's head; the merge must not reopen the ticket for it."""
    commit = house.code.commit(RIGHT | {"tests/test_app.py": FILES["tests/test_app.py"] + "\n# clearer\n"})
    await house.criterion("TKT-merged", **COMMAND)
    assert (await house.done((await house.ask("TKT-merged", commit, purpose="merged")).run_id)).verdict == "passed"


async def test_a_named_test_that_is_not_there_fails(house: House) -> None:
    commit = house.code.commit(RIGHT)
    missing: dict[str, Any] = {"kind": "test", "name": "tests/test_gone.py::test_x"}
    assert await house.verdict(commit, **missing) == ("failed", "the commit has no tests/test_gone.py")


@pytest.mark.parametrize(
    "files", [RIGHT, {"app.py": "import os\nos._exit(0)\n"}], ids=["empty selection", "early exit"]
)
async def test_a_named_test_that_did_not_run_fails_in_spite_of_exit_code_0(house: House, files: dict[str, str]) -> None:
    house.project.test_command = "python3 -m unittest discover -s tests -t . -k {test}"
    commit = house.code.commit(files)
    name = "nothing_is_called_so" if files is RIGHT else "test_add"
    verdict, reason = await house.verdict(commit, kind="test", name=name)
    assert (verdict, "did not say that any test passed" in reason) == ("failed", True)


async def test_code_that_ends_the_runner_early_proves_nothing_by_command_either(house: House) -> None:
    verdict, reason = await house.verdict(house.code.commit({"app.py": "import os\nos._exit(0)\n"}), **COMMAND)
    assert (verdict, "did not say that any test passed" in reason) == ("failed", True)


@pytest.mark.parametrize(
    ("app", "command"),
    [
        ("import os\nos._exit(0)\n", f"{UNIT} 2>&1"),
        ("import os\nos._exit(0)\n", f"{UNIT} -k 'test_add|other'"),
        ("import os\nos._exit(0)\n", f"cd .\ntimeout -k 1 60 env A=1 {UNIT}"),
        ("import unittest\ndef add(a, b):\n    raise unittest.SkipTest\n", UNIT),
        ("import atexit, os\natexit.register(os._exit, 0)\n" + FILES["app.py"], UNIT),
    ],
    ids=["stderr with stdout", "quoted bar", "wrapped, second line", "skipped", "another exit code"],
)
async def test_code_that_keeps_its_test_from_the_end_proves_nothing(house: House, app: str, command: str) -> None:
    verdict, reason = await house.verdict(house.code.commit({"app.py": app}), kind="command", command=command)
    assert (verdict, "did not say that any test passed" in reason) == ("failed", True)


async def test_without_a_test_command_a_named_test_cannot_be_judged(house: House) -> None:
    house.project.test_command = None
    verdict, reason = await house.verdict(house.code.commit(RIGHT), **TEST)
    assert (verdict, "test_command" in reason) == ("error", True)


@pytest.mark.parametrize(
    ("check", "verdict"),
    [
        ({"path": "docs/a.md"}, "passed"),
        ({"path": "docs"}, "passed"),
        ({"path": "docs/b.md"}, "failed"),
        ({"path": "docs/b.md", "absent": True}, "passed"),
        ({"path": "docs/a.md", "absent": True}, "failed"),
        ({"path": "docs/a.md", "contains": "How it works"}, "passed"),
        ({"path": "docs/a.md", "contains": "Why"}, "failed"),
        ({"path": "docs", "contains": "Why"}, "failed"),
    ],
)
async def test_a_file_is_read_from_the_commit(house: House, check: dict[str, Any], verdict: str) -> None:
    commit = house.code.commit({"docs/a.md": "# How it works\n"})
    assert (await house.verdict(commit, kind="file", **check))[0] == verdict


async def test_a_link_is_not_followed_out_of_the_repository(house: House) -> None:
    commit = house.code.commit({"passwd": Path("/etc/passwd")})
    verdict = await house.verdict(commit, kind="file", path="passwd", contains="root")
    assert verdict == ("failed", "passwd is a symbolic link, which is not followed")


async def test_a_commit_that_only_the_host_has_is_checked_without_any_other_work(house: House) -> None:
    """A merged tree is in no origin yet; the checkout holds its objects and nobody else's."""
    repositories, url = house.bench.repositories, str(house.code.origin)
    known = house.code.commit(RIGHT)
    await repositories.sync(url)
    place = repositories.place(url)
    await bundles.orders(place)
    tree = (await host.run("rev-parse", f"{known}^{{tree}}", git_dir=place.orders)).decode().strip()
    merged = await repositories.commit_merge(url, tree, (house.code.base,), "merged here")
    other = await repositories.commit_merge(url, tree, (house.code.base,), "another's work")
    command = f'test -z "$(git status -s)" && git cat-file -e {merged} && ! git cat-file -e {other} && {UNIT}'
    assert await house.verdict(merged, kind="command", command=command) == ("passed", "")


async def test_a_check_runs_without_token_worker_or_network(house: House) -> None:
    probe = (
        "! env | grep -qiE 'token|key|secret|proxy|shopfloor' && test ! -e /in && test ! -e /spool && test -z \"$(ls -A ~)\""
        " && ! python3 -c \"import socket; socket.create_connection(('127.0.0.1', 8787), 2)\""
        " && ! python3 -c \"import socket; socket.create_connection(('10.0.0.1', 80), 2)\""
    )
    assert await house.verdict(house.code.commit(RIGHT), kind="command", command=probe) == ("passed", "")


async def test_a_check_that_asks_for_network_reaches_its_projects_hosts_and_not_our_api(house: House) -> None:
    async with web() as allowed, web() as other:
        house.project.allow = [f"127.0.0.1:{allowed.port}"]
        ask = f"python3 -c '{FETCH}'"
        get = f"env -u NO_PROXY -u no_proxy {ask}"
        command = (
            f"{get} http://127.0.0.1:{allowed.port} | grep -q hello && {get} http://127.0.0.1:{other.port} | grep -q 403"
            f" && {ask} http://127.0.0.1:8787/healthz | grep -q failed"
        )
        verdict = await house.verdict(house.code.commit(RIGHT), kind="command", command=command, network=True)
    assert (verdict, len(allowed.requests), other.requests) == (("passed", ""), 1, [])


async def test_a_sandbox_that_does_not_isolate_cannot_prove_anything(house: House, place: Path) -> None:
    async with engine_over(house.database, place / "open", checks={"sandbox": "git_worktree"}) as (checks, hub):
        other = House(house.database, checks, checks.bench, project(house.code.origin), house.code, hub)
        await house.checks.background.close()
        verdict, reason = await other.verdict(house.code.commit(RIGHT), **COMMAND)
    assert (verdict, "does not isolate" in reason) == ("error", True)


async def test_an_origin_that_lacks_the_commit_is_an_error_not_a_pass(house: House) -> None:
    verdict, reason = await house.verdict("0" * 39 + "1", **COMMAND)
    assert (verdict, "no commit" in reason) == ("error", True)


async def test_the_ledger_keeps_what_was_printed(house: House) -> None:
    criterion = await house.criterion("TKT-said", kind="command", command="printf 'seen \\033[31mred\\n'; exit 3")
    run = await house.done((await house.ask("TKT-said", house.code.commit(RIGHT))).run_id)
    async with house.database.reading() as session:
        (row,) = await queries.of_criterion(session, criterion.criterion_id)
    assert (row.verdict, row.output, row.said_by, row.run_id) == ("failed", "seen [31mred", "check", run.run_id)
    assert row.output_sha256
    assert house.bench.blobs.path(row.output_sha256).read_bytes() == b"seen \x1b[31mred\n"


async def test_each_check_of_a_run_starts_from_the_commit_itself(house: House) -> None:
    subject = "TKT-clean"
    for number in range(3):
        await house.criterion(subject, kind="command", command=f"test ! -e left && touch left && echo {number}")
    run = await house.done((await house.ask(subject, house.code.commit(RIGHT))).run_id)
    assert [one["verdict"] for one in run.results] == ["passed"] * 3


async def test_nothing_of_a_run_is_left_when_it_is_over(house: House) -> None:
    await house.criterion("ticket-left", **COMMAND)
    run = await house.done((await house.ask("ticket-left", house.code.commit(RIGHT))).run_id)
    await house.checks.idle()
    async with house.database.reading() as session:
        assert await sandboxes.live_count(session, "host-test") == 0
    found = await house.bench.sandboxes.adapter("local").list()
    assert [one.sandbox_id for one in found if one.sandbox_id.startswith(run.run_id)] == []
    assert not list(house.bench.repositories.place(str(house.code.origin)).pins.glob(f"*/{run.run_id}*"))
