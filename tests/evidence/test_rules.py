"""The law of evidence."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shopfloor.evidence import harness, rules
from shopfloor.evidence.rules import BadCheck, Stand, Touched, Verdict
from shopfloor.evidence.steps import reading

PATHS = st.from_regex(r"[a-z]{1,6}(/[a-z]{1,6}){0,3}(\.py)?", fullmatch=True)


def changed(path: str, *, same_parts: bool | None = None) -> Touched:
    return Touched(path=path, existed=True, same_parts=same_parts)


def deleted(path: str) -> Touched:
    return Touched(path=path, existed=True, remains=False)


def added(path: str, *, same_parts: bool | None = None, instead_of: str = "", new_ground: bool = False) -> Touched:
    before = (instead_of,) if instead_of else ()
    return Touched(path=path, existed=False, same_parts=same_parts, instead_of=before, new_ground=new_ground)


def link(path: str) -> Touched:
    return Touched(path=path, existed=False, link=True, new_ground=True)


STEERING = (
    *("pytest.toml", ".pytest.toml", "tests/test_a.so", "tests/test_a.pyc", "x.egg-info/entry_points.txt"),
    *("vitest.workspace.ts", "web/vitest.config.mts", ".mvn/jvm.config", ".cargo/config.toml", ".cargo/config"),
    *("bunfig.toml", ".yarnrc.yml", ".pnpmfile.cjs", ".c8rc.json", ".swcrc", ".rspec-local", "test_helper.rb"),
    *("phpunit.dist.xml", "rust-toolchain.toml", "buildSrc/build.gradle", "gradle/wrapper/gradle-wrapper.jar"),
    *("build.gradle.kts", "settings.gradle", "pom.xml", "project.json", "tsconfig.json", ".env", ".env.test", ".envrc"),
    *(".turbo/cache/a.tar.zst", ".pytest_cache/v/cache/lastfailed", "src/main/java/org/junit/Assert.java"),
)
BOTH = ("vite.config.ts", "gradle.properties", ".npmrc", ".pnp.cjs", "build.rs", "nx.json", "turbo.json")


@pytest.mark.parametrize(
    ("touched", "named"),
    [
        (changed("tests/test_a.py"), "tests/test_a.py (changed)"),
        (deleted("pkg/sub/test_b.py"), "pkg/sub/test_b.py (deleted)"),
        (deleted("web/button.spec.ts"), "web/button.spec.ts (deleted)"),
        (added("tests/conftest.py"), "tests/conftest.py (added)"),
        (added("sub/CONFTEST.py"), "sub/CONFTEST.py (added)"),
        (added("unittest.py"), "unittest.py (added)"),
        (added("node_modules/.bin/jest"), "node_modules/.bin/jest (added)"),
        (changed("Makefile"), "Makefile (changed)"),
        (changed("package.json", same_parts=False), "package.json (changed)"),
        (added("pyproject.toml", same_parts=False), "pyproject.toml (added)"),
        (changed("verify.sh"), "verify.sh (changed)"),
        (added("src/unittest.py"), "src/unittest.py (added)"),
        (added("tests/pytest.py"), "tests/pytest.py (added)"),
        (added("src/_pytest/runner.py"), "src/_pytest/runner.py (added)"),
        (link("pytest"), "pytest (added)"),
        (link("node_modules"), "node_modules (added)"),
        *((added(path), f"{path} (added)") for path in STEERING),
        *((changed(path), f"{path} (changed)") for path in STEERING),
        *((added(path), f"{path} (added: it also steers how tests run)") for path in BOTH),
        (added("tests/a/__init__.py", instead_of="tests/a.py"), "tests/a/__init__.py (added: comes before tests/a.py)"),
        (added("lib/x.js", instead_of="lib/x.test.ts"), "lib/x.js (added: comes before lib/x.test.ts)"),
    ],
)
def test_what_steers_the_check_may_not_be_touched(touched: Touched, named: str) -> None:
    assert rules.tampered([touched], None, "sh ./verify.sh") == [named]


@pytest.mark.parametrize(
    "touched",
    [
        added("tests/test_new.py"),
        added("test_new.py"),
        changed("app.py"),
        deleted("app.py"),
        changed("package.json", same_parts=True),
        added("pyproject.toml", same_parts=True),
        added("verify.sh"),
        added("sums/__init__.py", instead_of="sums.py"),
        added("tests/__pycache__/test_a.cpython-312.pyc"),
        added("packages/new/package.json", same_parts=False, new_ground=True),
        added("packages/new/vite.config.ts", new_ground=True),
        added("new/pom.xml", new_ground=True),
        added("tests/unit/unittest/__init__.py"),
        added(".env.example"),
    ],
)
def test_work_and_new_tests_are_welcome(touched: Touched) -> None:
    assert rules.tampered([touched], None, "./verify.sh && python3 app.py") == []


@pytest.mark.parametrize(
    ("path", "how", "before"),
    [
        ("tests/test_a/__init__.py", {"empty": True}, ["tests/test_a.py"]),
        ("tests/test_a/data.txt", {}, []),
        ("tests/test_a", {"link": True}, ["tests/test_a.py"]),
        ("tests/__init__.py", {}, ["tests/help.ts/x.py", "tests/test_a.py"]),
        ("tests/__init__.py", {"empty": True}, []),
        ("tests.py", {}, ["tests/help.ts/x.py", "tests/test_a.py"]),
        ("src/tests/__init__.py", {"empty": True}, ["tests/help.ts/x.py", "tests/test_a.py"]),
        ("src/tests.py", {}, ["tests/help.ts/x.py", "tests/test_a.py"]),
        ("other/tests/__init__.py", {}, []),
        ("pack.py", {}, []),
        ("__init__.py", {}, []),
        ("web/a.test.js", {}, ["web/a.test.ts"]),
        ("web/kit.ts", {}, ["web/kit/index.tsx"]),
        ("web/a.test.json", {}, []),
        ("new/__init__.py", {}, []),
    ],
)
def test_what_an_added_file_comes_before_is_known(path: str, how: dict[str, bool], before: list[str]) -> None:
    ground = rules.Ground(
        ["tests/test_a.py", "tests/help.ts/x.py", "pack/__init__.py", "pack/b.py", "web/a.test.ts", "web/kit/index.tsx"]
    )
    assert list(ground.behind(path, **how)) == before


def test_a_line_that_lets_python_read_what_was_compiled_lets_nobody_add_it() -> None:
    compiled = added("tests/__pycache__/test_a.cpython-312.pyc")
    assert [
        line for line in ("tox", "env -i pytest", "python3 -I x", "pytest") if rules.tampered([compiled], None, line)
    ] == [
        "tox",
        "env -i pytest",
        "python3 -I x",
    ]


def test_who_names_what_is_protected_protects_nothing_else() -> None:
    touched = [changed("tests/test_a.py"), changed("data/golden.txt"), changed("package.json", same_parts=True)]
    assert rules.tampered(touched, ["data/**", "package.json"], "true") == [
        "data/golden.txt (changed)",
        "package.json (changed)",
    ]
    assert rules.tampered(touched, [], "true") == []


@given(PATHS)
def test_a_path_is_meant_by_itself_by_its_name_and_by_two_stars(path: str) -> None:
    assert all(rules.matches(path, [glob]) for glob in (path, f"/{path}", path.rpartition("/")[2], "**", "**/*"))


@given(PATHS, st.text(alphabet="abcdef./*?[]()+\\", max_size=20))
def test_any_glob_can_be_asked(path: str, glob: str) -> None:
    assert rules.matches(path, [glob]) in {True, False}


@given(PATHS)
def test_one_star_does_not_cross_a_slash(path: str) -> None:
    assert rules.matches(path, ["/*"]) == ("/" not in path)


@given(
    st.one_of(st.none(), st.integers(0, 255)),
    st.sampled_from(["", "lease_expired", "stopped", "disk_limit"]),
    st.booleans(),
)
def test_only_an_end_of_its_own_with_code_0_and_a_witness_passes(
    exit_code: int | None, ended_by: str, witnessed: bool
) -> None:
    verdict, reason = rules.judge(exit_code=exit_code, ended_by=ended_by, witnessed=witnessed)
    assert (verdict == Verdict.PASSED) == (exit_code == 0 and not ended_by and witnessed)
    assert bool(reason) == (verdict != Verdict.PASSED)


def test_what_is_ended_for_being_late_failed() -> None:
    assert rules.judge(exit_code=0, ended_by="stopped", witnessed=True, timed_out_after=3) == (
        Verdict.FAILED,
        "it ran longer than 3 s and was ended",
    )


@given(st.lists(st.sampled_from(list(Verdict))))
def test_a_run_passes_only_when_all_of_it_does(verdicts: list[Verdict]) -> None:
    assert (rules.overall(verdicts) == Verdict.PASSED) == all(one == Verdict.PASSED for one in verdicts)


@given(
    st.one_of(st.none(), st.tuples(st.sampled_from(list(Verdict)), st.sampled_from(["h1", "h2"]))),
    st.booleans(),
    st.booleans(),
)
def test_only_a_fresh_pass_stands_as_passed(newest: tuple[str, str] | None, ever: bool, running: bool) -> None:
    stand = rules.stand(newest, ever=ever or newest is not None, wanted_hash="h1", running=running)
    assert (stand == Stand.PASSED) == (newest == ("passed", "h1") and not running)


RUNS = (
    *(
        "pytest 2>&1",
        "pytest -k 'a|b'",
        'pytest -k "a > b"',
        "pytest x | tee log",
        "pytest || exit 1",
        "cd a\npytest x",
    ),
    *(
        "timeout 60 pytest",
        "timeout -k 5 -s KILL 60s pytest",
        "env -u A X=1 pytest",
        "X='a b' pytest",
        "nice -n 5 pytest",
    ),
    *("uv run --frozen pytest", "uv run --with a --python 3.12 pytest", "npx --no-install jest", "npx -y vitest run"),
    *(
        "pnpm exec jest",
        "yarn jest",
        "pnpm --silent vitest",
        "python3 -B -m pytest",
        "python3 -munittest x",
        "(cd a; pytest)",
    ),
    *(
        "if true; then pytest; fi",
        "echo x > y; pytest",
        "bash -lc 'cd a && pytest'",
        "time pytest",
        "go test ./... 2>&1",
    ),
    *("timeout 60 env A=1 go test ./...", "cargo +nightly test"),
)
NO_RUNS = (
    *("pytest > log 2>&1", "pytest | grep passed", "(pytest; cargo test) > log", "command -v pytest", "yarn add jest"),
    *(
        "uv run --with pytest ./mine",
        "bash -c 'pytest > log'",
        "echo 'x; pytest'",
        'pip install "pytest"',
    ),
    "exec > log; pytest",
)


@pytest.mark.parametrize(
    ("command", "said", "ran"),
    [
        ("pytest -q x", "1 passed in 0.1s", True),
        ("pytest -q x", "no tests ran in 0.1s", False),
        ("pytest -q x", "", False),
        ("python -m unittest x", "Ran 0 tests in 0.0s\n\nOK", False),
        ("python -m unittest x", "Ran 2 tests in 0.0s\n\nOK", True),
        ("go test -run X ./...", "ok  \tpkg\t0.01s [no tests to run]", False),
        ("go test -run X ./...", "ok  \tpkg\t0.01s", False),
        ("go test ./...", "--- PASS: TestX (0.00s)\nPASS\nok  \tpkg\t0.01s\n?   \tb\t[no test files]", True),
        ("go test -cover ./...", "--- PASS: TestX (0.00s)\nPASS\ncoverage: 5% of statements\nok  \tpkg\t0.01s", True),
        ("go test ./...", "--- PASS: TestX (0.00s)\nPASS\nok  \tpkg\t0.01s\nok  \tended\t0.01s", False),
        ("python -m unittest x", "Ran 1 test in 0.0s\n\nOK (skipped=1)", False),
        ("python -m unittest x", "Ran 2 tests in 0.0s\n\nOK (skipped=1)", True),
        ("python -m unittest x && python -m unittest y", "Ran 1 test\n\nOK\nRan 2 tests\n\nOK (skipped=1)", True),
        ("python -m unittest x", "Ran 2 tests in 0.0s\n\nFAILED (failures=1)", False),
        ("python -m unittest x; python -m unittest y", "Ran 1 test\n\nFAILED (errors=1)\nRan 1 test\n\nOK", False),
        ("pytest x", "==== 1 failed, 3 passed in 0.1s ====", False),
        ("pytest -q x", "3 passed, 1 error in 0.1s", False),
        ("pytest -q x", "3 passed, 1 xfailed in 0.1s", True),
        ("jest", "Tests:       1 failed, 2 passed, 3 total", False),
        ("jest", "Tests:       2 passed, 2 total", True),
        ("npx vitest run", " Test Files  1 passed (1)\n      Tests  1 failed | 2 passed (3)", False),
        ("npx mocha", "  2 passing (3ms)\n  1 failing\n", False),
        (
            "cargo test",
            "running 1 test\ntest result: FAILED. 0 passed\nrunning 1 test\ntest result: ok. 1 passed",
            False,
        ),
        ("go test ./...", "--- PASS: TestX (0.00s)\n--- FAIL: TestY (0.00s)\nFAIL\nok  \tpkg\t0.01s", False),
        ("pytest x", "!!! _pytest.outcomes.Exit: bye !!!\n1 passed in 0.1s", False),
        ("cargo test", "running 2 tests\nok\ntest result: ok. 2 passed\nrunning 1 test\n", False),
        ("cargo test", "running 1 test\nrunning 2 tests\ntest result: ok. 2 passed\n", False),
        ("cargo test", "running 2 tests\ntest result: ok. 2 passed\nrunning 0 tests\ntest result: ok. 0 passed", True),
        ("cargo test x", "test result: ok. 0 passed; 0 failed", False),
        ("cargo test x", "test result: ok. 0 passed\ntest result: ok. 3 passed", True),
        ("./mine", "", True),
        ("CI=1 .venv/bin/pytest x", "", False),
        ("uv run pytest x", "", False),
        ("pip install pytest", "", True),
        ("grep -q pytest pyproject.toml", "", True),
        ("pytest --version", "", True),
        ("pytest -q > /dev/null", "", True),
        ("pytest -q && cargo test", "3 passed", False),
        *((line, "", False) for line in RUNS),
        *((line, "", True) for line in NO_RUNS),
    ],
)
def test_a_known_runner_must_say_that_a_test_passed(command: str, said: str, *, ran: bool) -> None:
    assert (rules.ran_none(command, said) == "") == ran


@pytest.mark.parametrize(
    "line",
    ["pytest", "python3 -m unittest", "go test", "cargo test", "jest", "mocha"],
    ids=lambda line: line.split()[0],
)
@pytest.mark.parametrize(
    "said", ["\n", "Ran 1 test\n", "OK (", "OK (a\n", "running 1 test\n", '"Action":"pass",', "1 a, ", "=", "ok \n"]
)
def test_output_made_to_be_slow_to_look_through_is_looked_through(line: str, said: str) -> None:
    """A pattern that looked at each part of it from each other would take minutes."""
    assert rules.ran_none(line, said * (65536 // len(said)))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("requirements.txt", "x" + "=a  " * 60000 + "@"),
        ("requirements.txt", "x!=" + "!a" * 100000 + "@"),
        ("build.gradle", "api" + " " * 200000 + "x"),
        ("settings.gradle", "include" + " " * 200000 + "x"),
        (".gitattributes", "a" + " diff" * 50000 + "!"),
        ("Gemfile", "gem 'a'" + ", '1'" * 40000 + "!"),
        ("go.mod", "require" + " " * 200000 + "x"),
    ],
    ids=lambda text: text[:20],
)
def test_a_line_made_to_be_slow_to_look_at_is_looked_at(path: str, text: str) -> None:
    pattern = harness.PARTS[path]
    assert isinstance(pattern, re.Pattern)
    assert not pattern.fullmatch(text)


@pytest.mark.parametrize("text", ['"' + '\\"' * 100000, "/*" * 100000, '"' + '\\"' * 1000 + "\\\n", "," * 100000 + "]"])
def test_json_made_to_be_slow_to_read_is_read(text: str) -> None:
    assert reading.bare("tsconfig.json", text) is not None


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("tests/test_a.py::test_b[x/y.py]", "tests/test_a.py"),
        ("test_a.py", "test_a.py"),
        ("tests.test_a.Case.test_b", None),
        ("TestThing", None),
        ("web/a.spec.ts", "web/a.spec.ts"),
    ],
)
def test_the_file_of_a_named_test_is_known_where_its_name_tells(name: str, file: str | None) -> None:
    assert rules.test_file(name) == file


def test_the_name_of_a_test_reaches_the_shell_as_one_word() -> None:
    check = {"kind": "test", "name": "x; echo 'pwned'"}
    assert rules.shell_line(check, "run {test} -q") == "run 'x; echo '\"'\"'pwned'\"'\"'' -q"


@pytest.mark.parametrize(
    "check",
    [
        {},
        {"kind": "magic"},
        {"kind": "command"},
        {"kind": "command", "command": "x", "more": 1},
        {"kind": "command", "command": "x", "protects": ["../x"]},
        {"kind": "command", "command": "x", "protects": ["*a*a*a*a*a*a*a*a*a*"]},
        {"kind": "command", "command": "x", "timeout_seconds": 0},
        {"kind": "test", "name": "a\nb"},
        {"kind": "file", "path": "../etc/passwd"},
        {"kind": "file", "path": "/etc/passwd"},
        {"kind": "file", "path": "a//b"},
        {"kind": "file", "path": "a", "absent": True, "contains": "x"},
        {"kind": "review", "by": "cat"},
    ],
)
def test_what_is_no_check_is_refused(check: dict[str, object]) -> None:
    with pytest.raises(BadCheck):
        rules.check_of(check)


def test_words_count_only_where_somebody_judges_them() -> None:
    command, review = {"kind": "command", "command": "x"}, {"kind": "review", "by": "person"}
    assert rules.check_hash(command, "a") == rules.check_hash(command, "b")
    assert rules.check_hash(review, "a") != rules.check_hash(review, "b")
    assert rules.check_hash(None, "a") != rules.check_hash(None, "b")
    assert rules.check_hash(command, "a") != rules.check_hash(command | {"timeout_seconds": 3}, "a")


@pytest.mark.parametrize(
    ("check", "person", "agent"),
    [
        (None, True, False),
        ({"kind": "command", "command": "x"}, True, False),
        ({"kind": "review", "by": "person"}, True, False),
        ({"kind": "review", "by": "agent"}, True, True),
    ],
)
def test_an_agent_speaks_only_where_it_is_asked(check: dict[str, str] | None, *, person: bool, agent: bool) -> None:
    assert rules.may_say(check, "person:ann") == person
    assert rules.may_say(check, "agent:wo-1") == agent
    assert not rules.may_say(check, "check")
