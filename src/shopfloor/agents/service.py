"""Agents: what a job and a sandbox need of a profile, commands, and what `doctor` tries."""

import asyncio
import functools
import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from shopfloor.agents import programs, rules
from shopfloor.agents.profiles import (
    CLAUDE_KEYS,
    KEY_NAMES,
    BadProfile,
    Profile,
    UnknownProfile,
    capability,
    environment,
    key,
    paid_by,
    profile,
    profiles,
)
from shopfloor.agents.programs import Program, ProgramMissing
from shopfloor.agents.recount import TOLD as TOLD_IN_RECOUNTS
from shopfloor.agents.recount import recount
from shopfloor.agents.rules import BadCommand, Command
from shopfloor.agents.wiring import DEFAULT_MODELS, Wiring, unwired, wiring
from shopfloor.agents.zipapp import worker_zipapp
from shopfloor.kit import log

__all__ = [
    "CLAUDE_KEYS",
    "TOLD_IN_RECOUNTS",
    "BadProfile",
    "Profile",
    "ProgramMissing",
    "UnknownProfile",
    "Wiring",
    "capability",
    "environment",
    "key",
    "paid_by",
    "profile",
    "profiles",
    "recount",
    "wiring",
    "worker_zipapp",
]

logger = log.get(__name__)

PROVIDER_KEYS = frozenset({*CLAUDE_KEYS, *KEY_NAMES.values()})
TOLD_THEIR_MODEL = frozenset({"openhands", "mini"})
"""Programs without a model of their own to fall back on."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing `doctor` tried."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


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
    if profile.adapter == "acp":
        ours |= _session_options(profile)
    chosen = model or profile.model or (DEFAULT_MODELS[profile.api] if profile.adapter in TOLD_THEIR_MODEL else None)
    return {
        "adapter": profile.adapter,
        "program": _command(profile, chosen),
        "model": chosen,
        "env": {},
        "files": {},
        "options": {**ours, **profile.options, **(options or {})},
        "turn_timeout_seconds": profile.turn_timeout_seconds,
        "resume_session": resume_session if rules.CAPABILITIES[profile.adapter].resume else None,
    }


def _command(profile: Profile, model: str | None) -> list[str]:
    if profile.adapter == "script":
        return []
    more = [part.replace("${model}", model) for part in profile.model_args] if model else []
    return [*programs.find(profile).command, *more]


def _session_options(profile: Profile) -> dict[str, Any]:
    """How a program of kind acp is to be treated. Its mode may let everything through, so it is not chosen where tools are denied."""
    mode = None if profile.allow_tools or profile.deny_tools else profile.mode
    said = {"steer": profile.steer or rules.Steer.QUEUE, "mode": mode, "auth": profile.auth}
    return {name: str(value) for name, value in said.items() if value}


def wired(profile: Profile, *, gateway: str | None, token: str, home: str, model: str | None = None) -> Wiring:
    """How the agent reaches its model: through the gateway, where it has an account there, else its provider."""
    if gateway:
        return wiring(profile, base_url=gateway, key=token, home=home, model=model)
    return unwired(profile, key=key(profile), home=home, model=model)


def agent_environment(profile: Profile, wired: Wiring) -> dict[str, str]:
    """The agent's whole environment. No key of a provider is in it, unless the agent talks to its provider itself."""
    own = environment(profile)
    if not profile.direct:
        own = {name: value for name, value in own.items() if name not in PROVIDER_KEYS}
    return {**own, **wired.env}


def _script_of(profile: Profile, file: Path) -> Any:
    try:
        return parse_script(file.read_text())
    except (OSError, UnicodeDecodeError, rules.BadScript) as error:
        key = f"agents.{profile.name}.script_file"
        raise BadProfile(f"{key}: {file}: {error}", hint=f"Correct the file or {key}.", key=key) from error


def mounts(profile: Profile) -> dict[str, Path]:
    """What a sandbox is shown of the agent's program, path inside -> file or folder here. Raises ProgramMissing."""
    return {} if profile.adapter == "script" else programs.find(profile).shown


def program(profile: Profile) -> Path:
    """The real file of the agent's program. Raises ProgramMissing."""
    return programs.find(profile).file


async def doctor(profile: Profile) -> list[Finding]:
    """Run the program for its version and look whether a key is there (never at its value)."""
    if profile.adapter == "script":
        return [Finding(name="program", ok=True, detail="part of the worker")]
    try:
        found = programs.find(profile)
    except ProgramMissing as missing:
        return [Finding(name="program", ok=False, detail=missing.message, fix=missing.hint)]
    return [await _version(profile, found), _key_there(profile)]


async def _version(profile: Profile, found: Program) -> Finding:
    here = [str(found.file) if found.command[0].startswith(programs.INSIDE) else found.command[0]]
    arguments = found.command[1:] if profile.adapter != "acp" else [part for part in found.command[1:] if "/" in part]
    process = await asyncio.create_subprocess_exec(
        *here, *arguments, "--version", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), 30)
    except TimeoutError:
        process.kill()
        await process.wait()
        return Finding(name="program", ok=False, detail=f"{here[0]} --version did not end", fix="Install it again.")
    said = out.decode(errors="replace").strip().splitlines()[-1:]
    ok = process.returncode == 0
    detail = f"{found.file}: {(said or [''])[0][:200]}"
    return Finding(name="program", ok=ok, detail=detail, fix="" if ok else "Install it again.")


def _key_there(profile: Profile) -> Finding:
    if account := paid_by(profile):
        return Finding(name="key", ok=True, detail=f"the account {account} pays, outside")
    names = CLAUDE_KEYS if profile.adapter == "claude" else (KEY_NAMES[profile.api],)
    present = [name for name in names if environment(profile).get(name)]
    detail = f"{', '.join(present)} is set" if present else "no key or token is set"
    fix = "" if present else f"Set one of {', '.join(names)} for the server, or agents.{profile.name}.env."
    return Finding(name="key", ok=bool(present), detail=detail, fix=fix)


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
