"""How each agent is pointed at a model server: variables, and files below its home. Also what keeps it from calling home."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from shopfloor.agents.profiles import HOSTS, Profile

DEFAULT_MODELS: Mapping[str, str] = {"anthropic": "claude-sonnet-4-5", "openai": "gpt-5", "gemini": "gemini-2.5-pro"}
"""For programs that must be told one."""
AI_SDKS: Mapping[str, str] = {
    "anthropic": "@ai-sdk/anthropic",
    "openai": "@ai-sdk/openai-compatible",
    "gemini": "@ai-sdk/google",
}
NO_KEY = "none"
"""For model servers that want none; programs insist on something."""
_PLACE = re.compile(r"\$\{([a-z_]+)\}")

CODEX_QUIET = """\
check_for_update_on_startup = false
[analytics]
enabled = false
[feedback]
enabled = false
[features]
plugins = false
apps = false
"""


@dataclass(frozen=True, kw_only=True)
class Wiring:
    """What a sandbox needs so that its agent talks to a certain model server. Holds a key: never log it."""

    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    """Path below the agent's home -> text."""


def wiring(profile: Profile, *, base_url: str, key: str, home: str, model: str | None = None) -> Wiring:
    """Point the profile's agent at a model server that speaks the profile's api. `base_url` ends without a version, `home` is
    the agent's home as it is called inside.
    """
    return _WIRINGS[profile.adapter](_Line(profile, base_url.rstrip("/"), key or NO_KEY, home, model or profile.model))


def unwired(profile: Profile, *, key: str | None, home: str, model: str | None = None) -> Wiring:
    """The same for an agent that talks to its provider itself, or to none."""
    address = "https://" + HOSTS[profile.api].removesuffix(":443")
    line = _Line(profile, address, key or NO_KEY, home, model or profile.model)
    if profile.adapter in {"claude", "script"}:
        return Wiring(files=_files(line))
    if profile.adapter == "codex":  # its login lies in its home
        return Wiring(files={".codex/config.toml": CODEX_QUIET, **_files(line)})
    return _WIRINGS[profile.adapter](line)


@dataclass(frozen=True)
class _Line:
    profile: Profile
    base_url: str
    key: str
    home: str
    model: str | None


def _claude(line: _Line) -> Wiring:
    return Wiring(env={"ANTHROPIC_BASE_URL": line.base_url, "ANTHROPIC_API_KEY": line.key})


def _codex(line: _Line) -> Wiring:
    provider = {
        "name": "model server",
        "base_url": f"{line.base_url}/v1",
        "env_key": "OPENAI_API_KEY",
        "wire_api": "responses",
    }
    said = "\n".join(f"{name} = {_quoted(value)}" for name, value in provider.items())
    config = f'model_provider = "shopfloor"\n{CODEX_QUIET}[model_providers.shopfloor]\n{said}\n'
    return Wiring(env={"OPENAI_API_KEY": line.key}, files={".codex/config.toml": config, **_files(line)})


def _acp(line: _Line) -> Wiring:
    """As the profile's own templates say."""
    return Wiring(
        env={name: _filled(text, line, quoted=False) for name, text in line.profile.wired_env.items()},
        files=_files(line),
    )


def _litellm(line: _Line) -> Wiring:
    env = {
        "LLM_API": line.profile.api,
        "LLM_BASE_URL": line.base_url,
        "LLM_API_KEY": line.key,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "OPENHANDS_SUPPRESS_BANNER": "1",
        "MSWEA_CONFIGURED": "true",
        "MSWEA_SILENT_STARTUP": "1",
        "MSWEA_COST_TRACKING": "ignore_errors",
    }
    return Wiring(env=env, files=_files(line))


def _script(line: _Line) -> Wiring:
    """For commands of a script that ask a model."""
    return Wiring(env={"MODEL_BASE_URL": line.base_url, "MODEL_API_KEY": line.key}, files=_files(line))


def _files(line: _Line) -> dict[str, str]:
    return {path: _filled(text, line) for path, text in line.profile.files.items()}


def _filled(text: str, line: _Line, *, quoted: bool = True) -> str:
    """The template with its places filled; `quoted`: as they stand inside a string of JSON or TOML."""
    profile = line.profile
    limited = bool(profile.allow_tools or profile.deny_tools)
    values = {
        "base_url": line.base_url,
        "key": line.key,
        "home": line.home,
        "model": line.model or DEFAULT_MODELS[profile.api],
        "ask": "ask" if limited else "allow",
        "ai_sdk": AI_SDKS[profile.api],
    }
    filled = {name: _quoted(value)[1:-1] if quoted else value for name, value in values.items()}
    filled["deny_tools"] = json.dumps(profile.deny_tools)
    return _PLACE.sub(lambda place: filled.get(place[1], place[0]), text)


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


_WIRINGS: Mapping[str, Callable[[_Line], Wiring]] = {
    "acp": _acp,
    "claude": _claude,
    "codex": _codex,
    "mini": _litellm,
    "openhands": _litellm,
    "script": _script,
}
