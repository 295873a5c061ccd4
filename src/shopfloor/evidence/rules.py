"""The law of evidence: what a check is, what may not be touched to pass it, what an ending means. Pure."""

import hashlib
import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from posixpath import normpath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from shopfloor.evidence import harness
from shopfloor.kit.errors import Malformed
from shopfloor.kit.machine import Machine


class Verdict(StrEnum):
    """What was found of a criterion."""

    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    """It could not be judged: never as good as passed."""


class Stand(StrEnum):
    """How a criterion stands at a commit."""

    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    MISSING = "missing"
    """Nothing was ever found of it."""
    STALE = "stale"
    """What was found is of another commit, or of another check."""
    RUNNING = "running"


class RunState(StrEnum):
    """Where a run of checks is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"


RUN = Machine(
    {
        RunState.QUEUED: {RunState.RUNNING},
        RunState.RUNNING: {RunState.QUEUED, RunState.DONE},
        RunState.DONE: set(),
    }
)
OPEN = (RunState.QUEUED, RunState.RUNNING)
MOST_ATTEMPTS = 5
"""Engines that may die over a run before it counts as what kills them."""
MOST_STARS = 8
MOST_CRITERIA = 200
"""Of one subject."""


class BadCheck(Malformed):
    """That is not a check."""

    hint = "Give kind: command {command}, test {name}, file {path, exists | absent | contains} or review {by: person | agent}."


def _glob(text: str) -> str:
    if text.count("*") > MOST_STARS or ".." in text.split("/") or not text.strip("/ "):
        raise ValueError(f"{text!r} is no glob of files of the repository (at most {MOST_STARS} stars, no '..')")
    return text


def _path(text: str) -> str:
    if normpath(text) != text or text.startswith("/") or re.match(r"\.\.?(/|$)", text):
        raise ValueError(f"{text!r} is no clean path in the repository")
    return text


Protects = Annotated[list[Annotated[str, Field(max_length=200), AfterValidator(_glob)]], Field(max_length=100)] | None


class _Check(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CommandCheck(_Check):
    """A shell line that must end with exit code 0."""

    kind: Literal["command"]
    command: str = Field(min_length=1, max_length=4000)
    timeout_seconds: float | None = Field(None, gt=0, le=7200)
    protects: Protects = None
    """Globs of files that may not be changed to pass. None: the tests and harness files that are usual. []: nothing."""
    network: Literal[True] | None = None
    """Let it reach the hosts that its project allows; else it has no network at all."""


class NamedTest(_Check):
    """One test, run by the project's test_command."""

    kind: Literal["test"]
    name: str = Field(min_length=1, max_length=500, pattern=r"^[^\n\r]+$")
    timeout_seconds: float | None = Field(None, gt=0, le=7200)
    protects: Protects = None
    network: Literal[True] | None = None


class FileCheck(_Check):
    """A condition of one file, read from the commit. Nothing said: it exists."""

    kind: Literal["file"]
    path: Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_path)]
    exists: Literal[True] | None = None
    absent: Literal[True] | None = None
    contains: str | None = Field(None, min_length=1, max_length=2000)


class ReviewCheck(_Check):
    """Somebody looks at it."""

    kind: Literal["review"]
    by: Literal["person", "agent"] = "person"
    agent: str | None = Field(None, min_length=1, max_length=60)
    """The profile of the agent that looks; else the project's own, which then judges work of its like."""


Check = Annotated[CommandCheck | NamedTest | FileCheck | ReviewCheck, Field(discriminator="kind")]
_ADAPTER: TypeAdapter[CommandCheck | NamedTest | FileCheck | ReviewCheck] = TypeAdapter(Check)


def check_of(raw: Mapping[str, Any] | BaseModel) -> CommandCheck | NamedTest | FileCheck | ReviewCheck:
    """The check that some JSON says; raises BadCheck."""
    try:
        found = _ADAPTER.validate_python(raw if isinstance(raw, BaseModel) else dict(raw))
    except ValidationError as error:
        first = error.errors()[0]
        raise BadCheck(f"check: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    if isinstance(found, FileCheck) and found.absent and (found.exists or found.contains):
        raise BadCheck("check: a file cannot be absent and there at once")
    return found


def stored(check: BaseModel) -> dict[str, Any]:
    """The check as it is kept: what was not said is left out."""
    return check.model_dump(mode="json", exclude_none=True)


def automatic(check: Mapping[str, Any] | None) -> bool:
    """Whether a run can find out about it."""
    return check is not None and check.get("kind") != "review"


def check_hash(check: Mapping[str, Any] | None, text: str) -> str:
    """What a finding is a finding of: the check; where somebody judges, the words that are judged."""
    said: Any = check if automatic(check) else [check, text]
    return hashlib.sha256(json.dumps(said, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def may_say(check: Mapping[str, Any] | None, said_by: str) -> bool:
    """Whether this one may judge by word alone: a person always, an agent where the criterion asks for one."""
    by_agent = check is not None and check.get("kind") == "review" and check.get("by") == "agent"
    return said_by.startswith("person:") or (by_agent and said_by.startswith("agent:"))


def shell_line(check: Mapping[str, Any], test_command: str | None) -> str | None:
    """What is run for a command or a named test; None when the project has no test_command."""
    if check["kind"] == "command":
        return str(check["command"])
    return test_command.replace("{test}", shlex.quote(str(check["name"]))) if test_command else None


def test_file(name: str) -> str | None:
    """The file that a test's name begins with (`tests/test_a.py::test_b`), when it names one."""
    first = name.partition("::")[0].strip()
    return first if re.fullmatch(r"[\w./ -]*[\w-]\.[A-Za-z]\w{0,4}", first) and _is_path(first) else None


def _is_path(text: str) -> bool:
    """`tests/test_a.py`, not `tests.test_a.Case`."""
    return "/" in text or text.rpartition(".")[2] in harness.SOURCE_ENDINGS


class Touched(BaseModel):
    """A file that differs between base and commit."""

    path: str
    existed: bool
    """In the base."""
    remains: bool = True
    """In the commit."""
    same_parts: bool | None = None
    """For files whose harness is a part of them (harness.PARTS): whether that part is as it was."""


def tampered(touched: Iterable[Touched], protects: Sequence[str] | None, command: str) -> list[str]:
    """The files that were changed, deleted or added in a way that makes passing worth nothing, with what happened to them."""
    mine = protects if protects is not None else [*harness.TESTS, *harness.HARNESS, *harness.PARTS, *named(command)]
    found = []
    for file in touched:
        if not matches(file.path, mine):
            continue
        if protects is None and file.same_parts and not matches(file.path, (*harness.TESTS, *named(command))):
            continue
        if file.existed:
            found.append(f"{file.path} ({'changed' if file.remains else 'deleted'})")
        elif matches(file.path, [*harness.HARNESS, *harness.PARTS]):
            found.append(f"{file.path} (added)")
    return sorted(found)


def steered(touched: Iterable[Touched], *more: str) -> list[str]:
    """The files that were touched and steer an agent who looks at the work, or are globs of `more`."""
    return sorted(file.path for file in touched if matches(file.path, (*harness.AGENTS, *more)))


def named(command: str) -> list[str]:
    """The scripts a command names that look like a check: the code under work is not among them."""
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    found = [normpath(word) for word in words if re.fullmatch(r"(\./)?[\w./-]+", word) and "." != word != ".."]
    return [path for path in found if not path.startswith(("/", "..")) and matches(path, harness.SCRIPTS)]


def matches(path: str, globs: Iterable[str]) -> bool:
    """Whether a path is meant by one of the globs; one without a slash means the name in any folder. Case does not matter."""
    return any(re.fullmatch(_pattern(glob), path, re.IGNORECASE | re.DOTALL) for glob in globs)


def _pattern(glob: str) -> str:
    glob = glob if "/" in glob else f"**/{glob}"
    made = re.escape(glob.removeprefix("/")).replace(r"\?", "[^/]")
    return made.replace(r"\*\*/", "(?:.*/)?").replace(r"\*\*", ".*").replace(r"\*", "[^/]*")


ENDED_BY = {
    "disk_limit": "it wrote more than it may",
    "file_limit": "it wrote more files than it may",
    "memory_limit": "it used more memory than it may",
}
"""Why a sandbox was ended by what ran in it."""


def judge(
    *, exit_code: int | None, ended_by: str, witnessed: bool, timed_out_after: float | None = None
) -> tuple[Verdict, str]:
    """What the end of a check's sandbox means, and why. `exit_code` None: nobody knows how it ended; `witnessed`: the line itself ended with 0."""
    if timed_out_after is not None:
        return Verdict.FAILED, f"it ran longer than {timed_out_after:g} s and was ended"
    if ended_by in ENDED_BY:
        return Verdict.FAILED, ENDED_BY[ended_by]
    if ended_by or exit_code is None:
        return Verdict.ERROR, f"its sandbox did not come to its own end: {ended_by or 'lost'}"
    if exit_code == 0 and witnessed:
        return Verdict.PASSED, ""
    if exit_code == 0:
        return Verdict.FAILED, "its sandbox ended with exit code 0, but the check did not: what ran in it meddled"
    if exit_code > 128:
        return Verdict.FAILED, f"it was ended by signal {exit_code - 128}"
    return Verdict.FAILED, f"exit code {exit_code}" + (": its program was not found" if exit_code == 127 else "")


def ran_none(line: str, output: str) -> str:
    """Why an exit code of 0 does not show that a test ran; empty when it does, when the output goes elsewhere, or no runner is known."""
    if re.search(r"[|>]", line):
        return ""
    for runner, sign in harness.RAN:
        if re.search(harness.STARTS + runner, line) and not re.search(sign, output, re.MULTILINE):
            return "the runner ended well, but did not say that any test passed: is the test there?"
    return ""


def overall(verdicts: Iterable[str]) -> Verdict:
    """A run's verdict: the worst of its checks', a failed one before one that could not be judged."""
    found = set(verdicts)
    return next((v for v in (Verdict.FAILED, Verdict.ERROR) if v in found), Verdict.PASSED)


def stand(newest: tuple[str, str] | None, *, ever: bool, wanted_hash: str, running: bool) -> Stand:
    """How a criterion stands. `newest` is (verdict, check_hash) of the newest finding on the commit; `ever`: on any."""
    if running:
        return Stand.RUNNING
    if newest is not None and newest[1] == wanted_hash:
        return Stand(newest[0])
    return Stand.STALE if ever else Stand.MISSING
