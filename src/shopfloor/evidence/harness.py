"""What is usual in repositories, as data: where tests lie, which files steer how they run, what their runners say. Pure."""

import re

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
    *("conftest.py", "pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml", "tox.ini", "tox.toml", "setup.cfg"),
    *("noxfile.py", ".coveragerc", "sitecustomize.py", "usercustomize.py", "*.pth"),
    # what stands in for the runner itself, as Python looks first into the folders that a check names
    *("pytest.py", "unittest.py", "**/_pytest/**", "/pytest/**", "/unittest/**", "/pluggy/**", "/nose/**", "/tox.py"),
    *("/src/pytest/**", "/src/unittest/**", "/src/pluggy/**", "/lib/pytest/**", "/lib/unittest/**", "/lib/pluggy/**"),
    *("**/*.egg-info/entry_points.txt", "**/*.dist-info/entry_points.txt", "**/org/junit/**"),
    # what was made from sources or kept of another run, and is read in their place
    *("*.pyc", "*.so", "*.pyd", "*.class", "*.node", "*.tsbuildinfo", "/target/**", "**/.pytest_cache/**"),
    *("**/.mypy_cache/**", "**/.ruff_cache/**", "**/.nx/**", "**/.turbo/**", "**/.gradle/**"),
    *("Makefile", "GNUmakefile", "*.mk", "justfile", ".justfile", "Taskfile.yml", "Taskfile.yaml", "Rakefile"),
    *("jest.config.*", "vitest.config.*", "vitest.workspace.*", "vite.config.*", "karma.conf.*", ".mocharc*"),
    *("playwright.config.*", "cypress.config.*", "ava.config.*", "babel.config.*", ".babelrc*", ".swcrc", ".nycrc*"),
    *(".c8rc*", ".taprc", "bunfig.toml", "nx.json", "turbo.json", "**/node_modules/**"),
    *(".npmrc", ".yarnrc*", "**/.yarn/releases/**", "**/.yarn/plugins/**", ".pnp.*", ".pnpmfile.*"),
    *("phpunit.xml*", "phpunit.dist.xml", ".rspec", ".rspec-local", "spec_helper.rb", "rails_helper.rb"),
    *("test_helper.rb", ".simplecov", "**/.bundle/**"),
    *("**/.mvn/**", "gradle.properties", "gradlew*", "mvnw*", "**/gradle/wrapper/**", "**/buildSrc/**"),
    *("junit-platform.properties", "testng.xml", "**/META-INF/services/org.junit.*"),
    *("**/.cargo/config", "**/.cargo/config.toml", "rust-toolchain", "rust-toolchain.toml", "build.rs", "go.work"),
    *(".env", ".env.local", ".env.test*", ".envrc", "pyvenv.cfg"),
)
"""Protected also from being added: each of them can make a test pass that does not."""

BOTH = (
    "vite.config.*",
    "build.rs",
    "gradle.properties",
    ".npmrc",
    "turbo.json",
    "nx.json",
    ".pnp.*",
    "go.work",
)
"""Of these, what is changed for good reasons too, and cannot be told from what steers: the whole is protected, and a person is told why."""

NEAR = (
    *("package.json", "composer.json", "deno.json*", "pyproject.toml", "Cargo.toml", "tsconfig.json", "jsconfig.json"),
    *("pom.xml", "build.gradle*", "go.mod", "project.json", "setup.cfg", "tox.ini", "Makefile", "GNUmakefile"),
    *("justfile", "Taskfile.yml", "Taskfile.yaml", "Rakefile", "build.rs", "vite.config.*", "vitest.config.*"),
    *("jest.config.*", "babel.config.*", ".babelrc*", ".swcrc", "karma.conf.*", ".mocharc*", "phpunit.xml*"),
)
"""These steer what lies in their folder: welcome in a folder where the base has nothing, as a new package has them."""

_BUILD = re.compile(
    r"//.*|(implementation|api|compileOnly|runtimeOnly)\s*+\(?\s*+"
    r"(['\"][\w.:+@-]+['\"]|project\(\s*['\"][\w:.-]+['\"]\s*\)|libs\.[\w.]+)\s*\)?"
)
_SETTINGS = re.compile(r"//.*|(?P<grows>include\s*+\(?\s*+['\"][\w:./-]+['\"](\s*,\s*['\"][\w:./-]+['\"])*\s*\)?)")
_REQUIRED = re.compile(
    r"#.*|[\w.-]+(\[[\w,\s-]+\])?\s*+([<>=!~]{1,3}\s*+[\w.*+-]++\s*+,?\s*+)*+(;[^#\\]*)?(#.*)?\\?|--hash=\w+:\w+\s*\\?"
)
RUNNERS = ("jest", "vitest", "mocha", "ava", "tap", "chai", "@playwright/test", "cypress", "ts-jest", "babel-jest")
PARTS: dict[str, tuple[str, ...] | re.Pattern[str]] = {
    "package.json": (
        *("scripts", "jest", "mocha", "ava", "vitest", "babel", "c8", "nyc", "tap", "type", "workspaces+"),
        *("overrides", "resolutions", "pnpm"),
        *(f"{kind}.{name}" for kind in ("dependencies", "devDependencies") for name in RUNNERS),
    ),
    "project.json": ("targets",),
    "tsconfig.json": ("extends", "compilerOptions.paths", "compilerOptions.baseUrl", "ts-node"),
    "jsconfig.json": ("extends", "compilerOptions.paths", "compilerOptions.baseUrl"),
    "composer.json": ("scripts", "autoload-dev"),
    "deno.json": ("tasks", "test", "exclude", "importMap"),
    "deno.jsonc": ("tasks", "test", "exclude", "importMap"),
    "pyproject.toml": (
        *("tool.pytest", "tool.tox", "tool.nox", "tool.coverage", "tool.hatch.envs", "tool.pdm.scripts"),
        *("tool.poe", "tool.taskipy", "tool.rye.scripts", "tool.pixi.tasks", "tool.unittest", "build-system"),
        *("project.entry-points.pytest11", "project.scripts.pytest", "tool.poetry.plugins.pytest11"),
        *("tool.poetry.scripts.pytest", "tool.uv.sources.pytest", "tool.uv.sources.pluggy"),
    ),
    "Cargo.toml": (
        *("test", "bench", "lib", "bin+", "profile.test", "profile.dev", "package.autotests", "package.build"),
        *("package.name", "workspace.exclude", "workspace.default-members", "workspace.members+", "patch", "replace"),
    ),
    "pom.xml": (
        *("parent", "packaging", "properties", "build", "profiles", "reporting", "repositories", "pluginRepositories"),
        *("dependencyManagement", "steering", "modules+"),
    ),
    "build.gradle": _BUILD,
    "build.gradle.kts": _BUILD,
    "settings.gradle": _SETTINGS,
    "settings.gradle.kts": _SETTINGS,
    "pnpm-workspace.yaml": re.compile(r"#.*|(?P<grows>-\s+['\"]?[\w@.][\w@./*-]*['\"]?)"),
    # what a checkout makes of a file's bytes
    ".gitattributes": re.compile(
        r"#.*|\S+(\s+(-?(diff|merge)|diff=\w+|-?linguist-[\w-]+(=\w+)?|export-(ignore|subst)|binary))+"
    ),
    "requirements.txt": _REQUIRED,
    "requirements-dev.txt": _REQUIRED,
    "requirements-test.txt": _REQUIRED,
    "Gemfile": re.compile(r"#.*|gem\s+['\"][\w-]+['\"](\s*,\s*['\"][~<>=!\s\w.]+['\"])*"),
    "go.mod": re.compile(r"//.*|require \(|\)|(require\s+)?[\w./~-]+\s+v[\w.+-]+(\s*// indirect)?|go [\d.]+"),
}
"""Files that are often changed for good reasons -> the parts of them that steer tests: names (one with + may grow), or
a pattern of the lines that do not (a line that it calls `grows` may come, not go)."""

CACHES = ("**/__pycache__/*.pyc",)
ROOTS = ("src/", "lib/")
"""Folders that are often put into the way on which Python looks for modules."""
SCRIPT_ENDINGS = frozenset({"js", "mjs", "cjs", "jsx", "ts", "mts", "cts", "tsx"})
"""Modules of these are named without their ending: which of two is read, is the runner's own matter."""

SCRIPTS = ("*.sh", "*.bash", "*test*", "*check*", "*verify*", "*spec*", "*lint*", "bin/**", "ci/**", "scripts/**")
"""What a command names and looks like this is the check itself."""

STEERING_DEPENDENCY = r"'(test|system)'|systemPath|junit|testng|surefire"
"""Of a pom's dependencies, those that are its part `steering`."""

READS = {
    r"\bg?make\b": ("GNUmakefile", "makefile", "Makefile"),
    r"\b(npm|npx|pnpm|yarn|bun)\b": ("package.json",),
    r"\b(tox|nox)\b": ("tox.ini", "noxfile.py", "pyproject.toml"),
    r"\b(poe|hatch|pdm|rye|pixi)\b": ("pyproject.toml",),
    r"\b(just|task|rake)\b": ("justfile", ".justfile", "Taskfile.yml", "Taskfile.yaml", "Rakefile"),
    r"\b(composer|deno)\b": ("composer.json", "deno.json", "deno.jsonc"),
}
"""What a shell line runs -> the files that it reads what to do from."""
CALLED = (
    *("*.sh", "*.bash", "ci/**"),
    *(f"{folder}/*{word}*" for folder in ("bin", "script", "scripts", "tools") for word in ("test", "check", "verify")),
)
"""What these files or such a script name and looks like this is the check too. Less than of a command: they name sources as well."""

AGENTS = (
    *("CLAUDE.md", "CLAUDE.local.md", "AGENTS.md", "AGENTS.override.md", "GEMINI.md", ".cursorrules", ".goosehints"),
    *("opencode.json*", ".mcp.json", ".shopfloor/**"),
    *("**/.claude/**", "**/.codex/**", "**/.gemini/**", "**/.opencode/**", "**/.openhands/**", "**/.agents/**"),
)
"""What agents read before they are told anything: whoever writes it steers the judge."""

SOURCE_ENDINGS = frozenset(
    {"py", "js", "ts", "jsx", "tsx", "mjs", "cjs", "go", "rb", "rs", "php", "java", "kt", "sh", "c", "cpp"}
)

STARTS = (
    r"(?:^[\s({]*|\s-\w*m\s*|\b(?:run|npx|pnpm|yarn|bunx|exec|env|time|timeout|nice|nohup|stdbuf|command(?!\s+-[vV])|sudo|then|do|else)\s+"
    r"(?:(?>-s\s+[A-Z\d]+|--?(?:with|python|p|extra|group|package|project|directory|env-file|n|k|u|C|signal|kill-after)"
    r"\s+\S+|-\S+|\d[\d.]*[smhd]?)\s+)*+)"
    r"(?:\w+=\S*\s+)*(?:[\w./-]*/)?"
)
"""Where the name of a program stands in one command of a shell line: at its start, or behind what runs it."""

RAN = (
    (
        r"(pytest|py\.test)\b(?!\s+--(version|help))",
        r"\b[1-9]\d* passed\b",
        r"^!+ _pytest\.outcomes\.Exit|^=* ?(\d+ \w+, )*[1-9]\d* (failed|errors?)\b",
    ),
    (
        r"unittest\b",
        r"^Ran [1-9]\d* tests?\b(?:(?!^Ran )[\s\S])*^OK\b",
        r"^Ran \d+ tests?\b[^\n]*\n\nFAILED|^Ran (\d+) tests?\b(?:(?!^Ran )[\s\S])*^OK \([^)\n]{0,200}skipped=\1\b",
    ),
    # with SURROUNDINGS: each package says PASS before its `ok`, unless its TestMain or init ends it before
    (
        r"go test\b",
        r"^[ \t]*--- PASS: |\"Action\":\"pass\",[^}\n]{0,500}\"Test\":",
        r"(?:\A|^(?!.*PASS$|coverage: ).*\n)ok\s",
    ),
    (
        r"cargo (\S+ )?test\b",
        r"^test result: ok\. [1-9]",
        r"^test result: FAILED|^running [1-9]\d* tests?$(?:(?!^test result:)[\s\S])*(?:^running |\Z)",
    ),
    (r"(jest|vitest)\b", r"\b[1-9]\d* passed\b", r"^[ \t]*Test(s|s:| Files| Suites:)\s+[1-9]\d* failed\b"),
    (r"mocha\b", r"^[ \t]*[1-9]\d* passing\b", r"^[ \t]*[1-9]\d* failing$"),
)
"""A known runner in a shell line -> what it prints only when a test ran and passed: without it an exit code of 0 shows nothing;
and what it prints when tests failed or were kept from their end, whatever its exit code was turned into."""

SURROUNDINGS = {"GOFLAGS": "-v"}
"""What `go test` needs in its environment to name the tests that passed."""
APART = {"PYTHONPYCACHEPREFIX": "/tmp/.pycache"}  # noqa: S108 -- inside, where /tmp is private
"""Every check's environment: what Python compiled elsewhere, and a commit brings along, is not read."""
BARE = r"\btox\b|\benv\s+-|\bpython[\d.]*\s+(-\w+\s+)*-\w*[EI]"
"""Lines that take that away: there no `__pycache__` may be added."""
