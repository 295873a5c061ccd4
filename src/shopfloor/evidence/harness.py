"""What is usual in repositories, as data: where tests lie, which files steer how they run, what their runners say. Pure."""

TESTS = (
    *("tests/**", "test/**", "spec/**", "specs/**", "__tests__/**", "**/__tests__/**", "e2e/**", "testdata/**"),
    *("**/tests/**", "**/test/**", "**/testdata/**"),
    *(
        "test_*.py",
        "*_test.py",
        "*_test.go",
        "*.test.*",
        "*.spec.*",
        "*_spec.rb",
        "*Test.java",
        "*Test.kt",
        "*Tests.cs",
    ),
)
"""Protected where they exist in the base; new ones are welcome."""

HARNESS = (
    *("conftest.py", "pytest.ini", ".pytest.ini", "tox.ini", "setup.cfg", "noxfile.py", ".coveragerc"),
    *("sitecustomize.py", "usercustomize.py", "*.pth"),
    # what stands in for the runner itself, as Python looks in the working folder first
    *("/pytest.py", "/pytest/**", "/_pytest/**", "/unittest.py", "/unittest/**", "/pluggy/**", "/nose/**", "/tox.py"),
    *("Makefile", "GNUmakefile", "justfile", "Taskfile.yml", "Taskfile.yaml", "Rakefile"),
    *("jest.config.*", "vitest.config.*", "karma.conf.*", ".mocharc*", "playwright.config.*", "cypress.config.*"),
    *("ava.config.*", "babel.config.*", ".babelrc*", "phpunit.xml*", ".rspec", "spec_helper.rb", "**/node_modules/**"),
)
"""Protected also from being added: each of them can make a test pass that does not."""

PARTS = {
    "package.json": ("scripts", "jest", "mocha", "ava", "vitest", "babel", "c8", "nyc", "type"),
    "composer.json": ("scripts",),
    "deno.json": ("tasks", "test"),
    "pyproject.toml": (
        *("tool.pytest", "tool.tox", "tool.nox", "tool.coverage", "tool.hatch.envs", "tool.pdm.scripts"),
        *("tool.poe", "tool.taskipy", "tool.unittest", "build-system"),
    ),
    "Cargo.toml": ("test", "bench", "lib", "bin", "profile.test"),
}
"""Files that are often changed for good reasons -> the parts of them that steer tests."""

SCRIPTS = ("*.sh", "*.bash", "*test*", "*check*", "*verify*", "*spec*", "*lint*", "bin/**", "ci/**", "scripts/**")
"""What a command names and looks like this is the check itself."""

AGENTS = (
    *("CLAUDE.md", "CLAUDE.local.md", "AGENTS.md", "AGENTS.override.md", "GEMINI.md", ".cursorrules", ".goosehints"),
    *("opencode.json*", ".mcp.json", ".shopfloor/**"),
    *("**/.claude/**", "**/.codex/**", "**/.gemini/**", "**/.opencode/**", "**/.openhands/**", "**/.agents/**"),
)
"""What agents read before they are told anything: whoever writes it steers the judge."""

SOURCE_ENDINGS = frozenset(
    {"py", "js", "ts", "jsx", "tsx", "mjs", "cjs", "go", "rb", "rs", "php", "java", "kt", "sh", "c", "cpp"}
)

STARTS = r"(?:^|[;&(]\s*|-m\s+|\b(?:run|npx|exec)\s+)(?:\w+=\S*\s+)*(?:[\w./-]*/)?"
"""Where the name of a program stands in a shell line."""

RAN = (
    (r"(pytest|py\.test)\b(?!\s+--(version|help))", r"\b[1-9]\d* passed\b"),
    (r"unittest\b", r"^Ran [1-9]\d* tests?\b"),
    (r"go test\b", r"^(ok\s+\S+\s+\S+\s*$|\s*--- PASS: )"),
    (r"cargo (\S+ )?test\b", r"^test result: ok\. [1-9]"),
    (r"(jest|vitest)\b", r"\b[1-9]\d* passed\b"),
    (r"mocha\b", r"^\s*[1-9]\d* passing\b"),
)
"""A known runner in a shell line -> what it prints only when a test ran and passed: without it an exit code of 0 shows nothing."""
