"""Agents: profiles from the settings, what a job and a sandbox need of them, commands, the worker's zipapp."""

import asyncio
import contextlib
import functools
import hashlib
import importlib.resources
import importlib.util
import os
import shutil
import subprocess
import tempfile
import threading
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from shopfloor.agents import rules
from shopfloor.agents.rules import BadCommand, Command
from shopfloor.kit import log
from shopfloor.kit.config import Settings
from shopfloor.kit.errors import Misconfigured

logger = log.get(__name__)

INSIDE = "/opt/agent"
SANDBOX_PYTHON = "/usr/bin/python3"
COMPILE = """
import py_compile, sys
for name in sys.argv[1:]:
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(name, cfile=name + "c", dfile=name, doraise=True, invalidation_mode=unchecked)
"""
BUILDING = threading.Lock()
CLAUDE_KEYS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN")
BUILT_IN: Mapping[str, Mapping[str, Any]] = {
    "claude": {
        "adapter": "claude",
        "env": {"IS_SANDBOX": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"},
        "env_allow": ["ANTHROPIC_MODEL"],
        "account": "anthropic",
    },
    "script": {"adapter": "script"},
}


class UnknownProfile(Misconfigured):
    """There is no agent profile of that name."""

    status = 422


class BadProfile(Misconfigured):
    """The agent profile is not usable."""


class ProgramMissing(Misconfigured):
    """The agent's program is not on this machine."""

    status = 422


class Profile(BaseModel):
    """`[agents.NAME]` in shopfloor.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    adapter: Literal["claude", "script"]
    program: list[str] | None = None
    """The program and its first arguments; None: look for it."""
    model: str | None = None
    env: dict[str, str] = Field(default_factory=dict)
    """Given to the agent as written."""
    env_allow: list[str] = Field(default_factory=list)
    """Names copied from the server's own environment, when set there."""
    allow: list[str] = Field(default_factory=list)
    """`host:port` the agent may reach."""
    pipes: dict[int, str] = Field(default_factory=dict)
    """Port on the sandbox's loopback -> host `address:port`."""
    turn_timeout_seconds: float = Field(3600, gt=0)
    max_turns: int | None = Field(None, ge=1)
    max_budget_usd: float | None = Field(None, gt=0)
    permission_mode: Literal["bypassPermissions", "acceptEdits", "default", "plan", "dontAsk"] = "bypassPermissions"
    """The sandbox is the boundary; other modes ask the profile's lists."""
    allow_tools: list[str] = Field(default_factory=list)
    """Empty: every tool that is not denied."""
    deny_tools: list[str] = Field(default_factory=list)
    script_file: Path | None = None
    """A YAML or JSON script, for the script adapter."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The adapter's own options."""
    account: str | None = None
    """The model account it uses through the gateway."""
    direct: bool = False
    """It talks to its provider by itself, with a login of its own that the gateway cannot stand in for."""

    @field_validator("allow")
    @classmethod
    def _host_and_port(cls, value: list[str]) -> list[str]:
        for entry in value:
            host, _, port = entry.rpartition(":")
            if not host or not port.isdigit() or not 0 < int(port) < 65536:
                raise ValueError(f"{entry!r} is not host:port")
        return value


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing `doctor` tried."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


def profiles(settings: Settings) -> dict[str, Profile]:
    """Every profile: ours, changed and added to by the settings. Raises BadProfile."""
    names = sorted({*BUILT_IN, *settings.agents})
    return {name: profile(settings, name) for name in names}


def profile(settings: Settings, name: str) -> Profile:
    """One profile. Raises UnknownProfile or BadProfile naming the key."""
    if name not in BUILT_IN and name not in settings.agents:
        known = ", ".join(sorted({*BUILT_IN, *settings.agents}))
        raise UnknownProfile(f"there is no agent profile {name!r}", hint=f"Known: {known}. Add [agents.{name}].")
    given = dict(settings.agents.get(name, {}))
    base = BUILT_IN.get(name) or BUILT_IN.get(str(given.get("adapter")), {})
    merged = {**base, **given, "env": {**base.get("env", {}), **_mapping(given.get("env"))}, "name": name}
    if not isinstance(given.get("env", {}), dict):
        merged["env"] = given["env"]
    try:
        made = Profile.model_validate(merged)
        rules.check_options(made.adapter, made.options)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(["agents", name, *map(str, first["loc"])])
        fields = ", ".join(sorted(set(Profile.model_fields) - {"name"}))
        raise BadProfile(
            f"{key}: {first['msg']}", hint=f"Correct {key} in shopfloor.toml. Keys: {fields}.", key=key
        ) from error
    except (rules.BadOption, rules.BadScript) as error:
        raise BadProfile(f"agents.{name}.options: {error.message}", hint=error.hint, key=f"agents.{name}") from error
    return _reaching_its_model(made)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _reaching_its_model(made: Profile) -> Profile:
    """Open the way to the model server that the environment names: a pipe for one on this machine, else the allow list."""
    address = environment(made).get("ANTHROPIC_BASE_URL")
    if not address:
        return made
    where = urlsplit(address)
    port = where.port or (443 if where.scheme == "https" else 80)
    if where.hostname in {"127.0.0.1", "localhost", "::1"}:
        return made.model_copy(update={"pipes": {port: f"127.0.0.1:{port}", **made.pipes}})
    return made.model_copy(update={"allow": [*made.allow, f"{where.hostname}:{port}"]})


def account(profile: Profile) -> str | None:
    """The model account it uses through the gateway."""
    return None if profile.direct else profile.account


def environment(profile: Profile) -> dict[str, str]:
    """What the agent's environment gets from the profile; holds secrets: never log it, never answer it."""
    return {**{n: os.environ[n] for n in profile.env_allow if n in os.environ}, **profile.env}


def checked_options(profile: Profile, options: Mapping[str, Any]) -> dict[str, Any]:
    """A work order's own options, judged; a script may be given as YAML text. Raises BadOption or BadScript."""
    given = dict(options)
    if profile.adapter == "script" and isinstance(given.get("script"), str):
        given["script"] = parse_script(given["script"])
    rules.check_options(profile.adapter, given)
    return given


def parse_script(text: str) -> Any:
    """A script from YAML or JSON text. Raises BadScript."""
    try:
        script = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date that is none is a ValueError
        raise rules.BadScript(f"script: {error}") from error
    rules.check_script(script)
    return script


def job_agent(
    profile: Profile,
    *,
    model: str | None = None,
    options: Mapping[str, Any] | None = None,
    resume_session: str | None = None,
) -> dict[str, Any]:
    """The `agent` part of job.json. Raises ProgramMissing."""
    own = {
        "permission_mode": profile.permission_mode,
        "allow_tools": profile.allow_tools,
        "deny_tools": profile.deny_tools,
    }
    limits = {"max_turns": profile.max_turns, "max_budget_usd": profile.max_budget_usd}
    ours = {} if profile.adapter == "script" else {**own, **{k: v for k, v in limits.items() if v is not None}}
    if profile.script_file:
        ours["script"] = _script_of(profile, profile.script_file)
    inside = [f"{INSIDE}/{profile.name}", *_arguments(profile)]
    return {
        "adapter": profile.adapter,
        "program": [] if profile.adapter == "script" else inside,
        "model": model or profile.model,
        "env": {},
        "options": {**ours, **profile.options, **(options or {})},
        "turn_timeout_seconds": profile.turn_timeout_seconds,
        "resume_session": resume_session if rules.CAPABILITIES[profile.adapter].resume else None,
    }


def _script_of(profile: Profile, file: Path) -> Any:
    try:
        return parse_script(file.read_text())
    except (OSError, UnicodeDecodeError, rules.BadScript) as error:
        key = f"agents.{profile.name}.script_file"
        raise BadProfile(f"{key}: {file}: {error}", hint=f"Correct the file or {key}.", key=key) from error


def _arguments(profile: Profile) -> list[str]:
    return (profile.program or [])[1:]


def mounts(profile: Profile) -> dict[str, Path]:
    """Where the agent's program is shown inside the sandbox, and the file it is here. Raises ProgramMissing."""
    return {} if profile.adapter == "script" else {f"{INSIDE}/{profile.name}": program(profile)}


def program(profile: Profile) -> Path:
    """The real file of the agent's program: as the profile names it, on PATH, else the one in the Agent SDK's package."""
    named = profile.program[0] if profile.program else "claude"
    found = shutil.which(named) or (None if profile.program else _bundled())
    key = f"agents.{profile.name}.program"
    if not found:
        hint = f"Install it (npm i -g @anthropic-ai/claude-code, or pip install claude-agent-sdk), or name it: {key} = ['/path']."
        raise ProgramMissing(f"the program {named!r} of agent {profile.name!r} is not here", hint=hint)
    real = Path(found).resolve()
    with real.open("rb") as file:
        if file.read(2) == b"#!":
            raise ProgramMissing(
                f"{real} is a script that needs other files",
                hint=f"Name the native binary: {key} = ['/path/to/claude'].",
            )
    return real


def _bundled() -> str | None:
    package = importlib.util.find_spec("claude_agent_sdk")
    if package is None or not package.origin:
        return None
    return shutil.which(str(Path(package.origin).parent / "_bundled" / "claude"))


async def doctor(profile: Profile) -> list[Finding]:
    """Run the program for its version and look whether a key is there (never at its value)."""
    if profile.adapter == "script":
        return [Finding(name="program", ok=True, detail="part of the worker")]
    try:
        path = program(profile)
    except ProgramMissing as missing:
        return [Finding(name="program", ok=False, detail=missing.message, fix=missing.hint)]
    process = await asyncio.create_subprocess_exec(
        str(path), *_arguments(profile), "--version", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), 30)
    except TimeoutError:
        process.kill()
        await process.wait()
        return [Finding(name="program", ok=False, detail=f"{path} --version did not end", fix="Install it again.")]
    said = out.decode(errors="replace").strip()[:200]
    ok = process.returncode == 0
    findings = [Finding(name="program", ok=ok, detail=f"{path}: {said}", fix="" if ok else "Install it again.")]
    present = [name for name in CLAUDE_KEYS if environment(profile).get(name)]
    detail = f"{', '.join(present)} is set" if present else "no key or token is set"
    fix = "" if present else f"Set one of {', '.join(CLAUDE_KEYS)} for the server, or agents.{profile.name}.env."
    return [*findings, Finding(name="key", ok=bool(present), detail=detail, fix=fix)]


def commands(files: Mapping[str, str]) -> dict[str, Command]:
    """Commands by name: the shipped ones, replaced and added to by a repository's `.claude/commands/*.md`.

    A file that is no usable command raises BadCommand when it stands for a shipped one and is left out otherwise.
    """
    found = dict(_shipped())
    for file, text in files.items():
        name = file.removesuffix(".md").lstrip("/")
        try:
            found[name] = parse_command(name, text, "repository")
        except BadCommand as error:
            if name in rules.SHIPPED:
                raise
            logger.warning("agent_command_skipped", command=name[:60], reason=error.message)
    return found


@functools.cache
def _shipped() -> dict[str, Command]:
    folder = importlib.resources.files("shopfloor.agents") / "commands"
    return {name: parse_command(name, (folder / f"{name}.md").read_text(), "shipped") for name in rules.SHIPPED}


def parse_command(name: str, text: str, source: str) -> Command:
    """A command from its file's text. Raises BadCommand."""
    where = f".claude/commands/{name}.md"
    if not rules.COMMAND_NAME.fullmatch(name):
        raise BadCommand(f"{where}: the name must match {rules.COMMAND_NAME.pattern}", hint="Rename the file.")
    if len(text.encode(errors="replace")) > rules.MOST_COMMAND:
        raise BadCommand(f"{where}: larger than {rules.MOST_COMMAND} bytes", hint="Shorten it.")
    body = text.replace("\r\n", "\n")
    if body.startswith("---\n"):
        _, closed, body = body[3:].partition("\n---")
        if not closed:
            raise BadCommand(f"{where}: the front matter is not closed", hint="End it with a line '---'.")
    if not body.strip() or "\x00" in body:
        raise BadCommand(f"{where}: needs a prompt as its body", hint="Write the prompt below the front matter.")
    return Command(name=name, body=body.strip(), source=source)


def render(command: Command, arguments: str, *, order_id: str) -> str:
    """The prompt of a step."""
    return rules.fill(command, arguments, order_id)


async def worker_zipapp(folder: Path) -> Path:
    """The worker as one file below `folder`, named by its content; built when it is not there yet."""
    name, files = _worker_sources()
    place = folder / name
    if not place.exists():
        await asyncio.to_thread(_build_zipapp, place, files)
    return place


@functools.cache
def _worker_sources() -> tuple[str, dict[str, bytes]]:
    """The file's name, by its sources and the Python they are compiled for, and the sources."""
    with importlib.resources.as_file(importlib.resources.files("shopfloor_worker")) as root:
        files = {f"shopfloor_worker/{p.relative_to(root)}": p.read_bytes() for p in sorted(root.rglob("*.py"))}
    files["__main__.py"] = b"import sys\nfrom shopfloor_worker.__main__ import main\nsys.exit(main())\n"
    said = hashlib.sha256(COMPILE.encode())
    with contextlib.suppress(OSError):
        python = os.stat(SANDBOX_PYTHON)
        said.update(f"{os.path.realpath(SANDBOX_PYTHON)} {python.st_mtime_ns} {python.st_size}".encode())
    for name in sorted(files):
        said.update(f"{name} {len(files[name])}\n".encode() + files[name])
    return f"worker-{said.hexdigest()[:16]}.pyz", files


def _build_zipapp(place: Path, files: Mapping[str, bytes]) -> None:
    with BUILDING, contextlib.suppress(FileExistsError):
        if place.exists():
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(f"{place.name}.{os.getpid()}.part")
        with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
            for name, content in sorted({**files, **_compiled(files)}.items()):
                archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)
        part.chmod(0o444)
        part.rename(place)


def _compiled(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The sources as the sandbox's Python would compile them at every start; another Python passes them over for the sources."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, content in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(content)
        try:
            subprocess.run(
                [SANDBOX_PYTHON, "-I", "-S", "-c", COMPILE, *files],
                cwd=folder,
                check=True,
                capture_output=True,
                timeout=60,
            )
        except (OSError, subprocess.SubprocessError) as error:
            logger.info("worker_not_compiled", reason=str(error))
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.pyc")}
