"""Agent profiles: the ones there are without any setting, and what `[agents.NAME]` in shopfloor.toml may say."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from shopfloor.agents import rules
from shopfloor.kit.config import Settings
from shopfloor.kit.errors import Misconfigured

AdapterName = Literal["acp", "claude", "codex", "mini", "openhands", "script"]
Api = Literal["anthropic", "openai", "gemini"]
CLAUDE_KEYS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN")
KEY_NAMES: Mapping[str, str] = {
    "anthropic": "ANTHROPIC_API_KEY",
    "openai": "OPENAI_API_KEY",
    "gemini": "GEMINI_API_KEY",
}
"""Where each provider's key is looked for in the server's environment."""
HOSTS: Mapping[str, str] = {
    "anthropic": "api.anthropic.com:443",
    "openai": "api.openai.com:443",
    "gemini": "generativelanguage.googleapis.com:443",
}
RESERVED = ("/workspace", "/in", "/spool", "/opt/shopfloor", "/proc", "/dev", "/sys", "/etc", "/run", "/home/agent")
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
"""Every sandbox shows these."""

GEMINI_SETTINGS = """{
  "security": {"auth": {"selectedType": "gemini-api-key"}, "folderTrust": {"enabled": false}},
  "privacy": {"usageStatisticsEnabled": false}, "telemetry": {"enabled": false},
  "general": {"disableAutoUpdate": true, "disableUpdateNag": true, "enableAutoUpdate": false},
  "tools": {"exclude": ${deny_tools}}
}
"""
OPENCODE_CONFIG = """{
  "model": "shopfloor/${model}", "small_model": "shopfloor/${model}", "autoupdate": false, "share": "disabled",
  "snapshot": false, "lsp": false, "formatter": false,
  "permission": {"edit": "${ask}", "bash": "${ask}", "webfetch": "${ask}"},
  "provider": {"shopfloor": {"npm": "${ai_sdk}", "name": "model server",
    "options": {"baseURL": "${base_url}/v1", "apiKey": "${key}"},
    "models": {"${model}": {"name": "${model}", "limit": {"context": 200000, "output": 32000}}}}}
}
"""
BUILT_IN: Mapping[str, Mapping[str, Any]] = {
    "claude": {
        "adapter": "claude",
        "env": {"IS_SANDBOX": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"},
        "env_allow": ["ANTHROPIC_MODEL"],
    },
    "codex": {"adapter": "codex"},
    "gemini": {
        "adapter": "acp",
        "api": "gemini",
        "program": ["gemini", "--acp"],
        "model_args": ["-m", "${model}"],
        "steer": "replace",
        "mode": "yolo",
        "env": {"GEMINI_CLI_TRUST_WORKSPACE": "true", "GEMINI_CLI_NO_RELAUNCH": "true"},
        "wired_env": {"GOOGLE_GEMINI_BASE_URL": "${base_url}", "GEMINI_API_KEY": "${key}"},
        "files": {".gemini/settings.json": GEMINI_SETTINGS},
    },
    "opencode": {
        "adapter": "acp",
        "program": ["opencode", "acp", "--pure"],
        "steer": "join",
        "env": {
            "OPENCODE_DISABLE_MODELS_FETCH": "1",
            "OPENCODE_DISABLE_AUTOUPDATE": "1",
            "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
            "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1",
        },
        "wired_env": {"OPENCODE_CONFIG": "${home}/.config/shopfloor/opencode.json"},
        "files": {".config/shopfloor/opencode.json": OPENCODE_CONFIG},
    },
    "openhands": {"adapter": "openhands"},
    "mini": {"adapter": "mini"},
    "script": {"adapter": "script"},
}
ADAPTER_API: Mapping[str, Api] = {"claude": "anthropic", "codex": "openai", "openhands": "openai", "mini": "openai"}


class UnknownProfile(Misconfigured):
    """There is no agent profile of that name."""

    status = 422


class BadProfile(Misconfigured):
    """The agent profile is not usable."""


class Profile(BaseModel):
    """`[agents.NAME]` in shopfloor.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    adapter: AdapterName
    program: list[str] | None = None
    """The program and its first arguments; None: look for it."""
    mounts: list[Path] = Field(default_factory=list)
    """Folders the program needs, shown read-only at their own paths."""
    model: str | None = None
    model_args: list[str] = Field(default_factory=list)
    """Arguments added when a model is chosen; `${model}` stands for it."""
    api: Api = "openai"
    """The kind of model server it talks to; fixed for claude, codex and gemini."""
    account: str | None = None
    """The model account that its calls go through; None: the one named as the api (the script agent: none)."""
    direct: bool = False
    """It talks to the provider itself, with what `env_allow` gives it: for logins of a subscription."""
    env: dict[str, str] = Field(default_factory=dict)
    """Given to the agent as written."""
    wired_env: dict[str, str] = Field(default_factory=dict)
    """Given to an agent of kind acp once its model server is known: see `files`."""
    files: dict[str, str] = Field(default_factory=dict)
    """Written into the agent's home before it starts: path -> text. `${base_url}`, `${key}`, `${model}`, `${home}`, `${ask}`,
    `${deny_tools}` and `${ai_sdk}` are filled in.
    """
    env_allow: list[str] = Field(default_factory=list)
    """Names copied from the server's own environment, when set there."""
    allow: list[str] = Field(default_factory=list)
    """`host:port` the agent may reach."""
    pipes: dict[int, str] = Field(default_factory=dict)
    """Port on the sandbox's loopback -> host `address:port`."""
    turn_timeout_seconds: float = Field(3600, gt=0)
    max_running: int | None = Field(None, ge=1)
    """Tasks that it may work on at once."""
    max_turns: int | None = Field(None, ge=1)
    max_budget_usd: float | None = Field(None, gt=0)
    permission_mode: Literal["bypassPermissions", "acceptEdits", "default", "plan", "dontAsk"] = "bypassPermissions"
    """Claude's; the sandbox is the boundary; other modes ask the profile's lists."""
    steer: rules.Steer | None = None
    """For acp: what a prompt means to the program while it works. None: it is held until the turn is over."""
    mode: str | None = None
    """For acp: the session mode to choose when no tool is denied or singled out."""
    auth: str | None = None
    """For acp: the id of the method to log in by, where the program wants that said."""
    allow_tools: list[str] = Field(default_factory=list)
    """Empty: every tool that is not denied."""
    deny_tools: list[str] = Field(default_factory=list)
    script_file: Path | None = None
    """A YAML or JSON script, for the script adapter."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The adapter's own options."""

    @field_validator("allow")
    @classmethod
    def _host_and_port(cls, value: list[str]) -> list[str]:
        for entry in value:
            host, _, port = entry.rpartition(":")
            if not host or not port.isdigit() or not 0 < int(port) < 65536:
                raise ValueError(f"{entry!r} is not host:port")
        return value

    @field_validator("files")
    @classmethod
    def _inside_the_home(cls, value: dict[str, str]) -> dict[str, str]:
        for path in value:
            if path.startswith("/") or not path or ".." in path.split("/"):
                raise ValueError(f"{path!r} is not a path below the agent's home")
        return value

    @field_validator("mounts")
    @classmethod
    def _harmless(cls, value: list[Path]) -> list[Path]:
        for path in value:
            own = Path(os.path.normpath(path))
            if not own.is_absolute() or own == Path("/"):
                raise ValueError(f"{str(path)!r} is not the absolute path of a folder")
            taken = [place for place in RESERVED if own.is_relative_to(place) or Path(place).is_relative_to(own)]
            if taken:
                raise ValueError(f"{str(path)!r} is in the way of the sandbox's own {taken[0]}")
        return [Path(os.path.normpath(path)) for path in value]

    @model_validator(mode="after")
    def _of_its_adapter(self) -> "Profile":
        if self.adapter == "acp" and not self.program:
            raise ValueError("an agent of kind acp needs its program")
        return self


def profiles(settings: Settings) -> dict[str, Profile]:
    """Every profile: ours, changed and added to by the settings. Raises BadProfile."""
    names = sorted({*BUILT_IN, *settings.agents})
    return {name: profile(settings, name) for name in names}


def profile(settings: Settings, name: str) -> Profile:
    """One profile. Raises UnknownProfile or BadProfile naming the key."""
    if name not in BUILT_IN and name not in settings.agents:
        known = ", ".join(sorted({*BUILT_IN, *settings.agents}))
        raise UnknownProfile(f"there is no agent profile {name!r}", hint=f"Known: {known}. Add [agents.{name}].")
    try:
        made = Profile.model_validate(_merged(dict(settings.agents.get(name, {})), name))
        rules.check_options(made.adapter, made.options)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(["agents", name, *map(str, first["loc"])])
        fields = ", ".join(sorted(set(Profile.model_fields) - {"name"} | {"like"}))
        raise BadProfile(
            f"{key}: {first['msg']}", hint=f"Correct {key} in shopfloor.toml. Keys: {fields}.", key=key
        ) from error
    except (rules.BadOption, rules.BadScript) as error:
        raise BadProfile(f"agents.{name}.options: {error.message}", hint=error.hint, key=f"agents.{name}") from error
    return _direct(made) if made.direct else made


def _merged(given: dict[str, Any], name: str) -> dict[str, Any]:
    """The profile's own words over those of the built-in one it changes, or of its adapter's."""
    if (like := given.pop("like", name)) != name and like not in BUILT_IN:
        key = f"agents.{name}.like"
        raise BadProfile(f"{key}: there is no built-in agent {like!r}", hint=f"Known: {', '.join(BUILT_IN)}.", key=key)
    base = dict(BUILT_IN.get(str(like)) or BUILT_IN.get(str(given.get("adapter")), {}))
    api = ADAPTER_API.get(str(given.get("adapter") or base.get("adapter")))
    merged = {**({"api": api} if api else {}), **base, **given, "name": name}
    for field in ("env", "wired_env", "files"):
        if isinstance(given.get(field, {}), dict):
            merged[field] = {**base.get(field, {}), **given.get(field, {})}
    return merged


def _direct(made: Profile) -> Profile:
    """With what an agent needs that talks to its provider itself: a key or login of the server's, and the way there."""
    keys = [*CLAUDE_KEYS, "ANTHROPIC_BASE_URL"] if made.adapter == "claude" else [KEY_NAMES[made.api]]
    return made.model_copy(update={"env_allow": [*made.env_allow, *keys], "allow": made.allow or [HOSTS[made.api]]})


def paid_by(profile: Profile) -> str | None:
    """The model account that its calls go through; None: it asks no model, or by itself."""
    if profile.direct:
        return None
    return profile.account or (None if profile.adapter == "script" else profile.api)


def environment(profile: Profile) -> dict[str, str]:
    """What the agent's environment gets from the profile; holds secrets: never log it, never answer it."""
    return {**{n: os.environ[n] for n in profile.env_allow if n in os.environ}, **profile.env}


def key(profile: Profile) -> str | None:
    """The key of its provider in the server's environment."""
    return os.environ.get(KEY_NAMES[profile.api]) or profile.env.get(KEY_NAMES[profile.api]) or None


def capability(profile: Profile) -> rules.Capability:
    """What an agent of this profile can do."""
    return rules.capability(
        profile.adapter,
        steer=profile.steer,
        models=profile.adapter != "acp"
        or any(
            "${model}" in text for text in (*profile.files.values(), *profile.wired_env.values(), *profile.model_args)
        ),
    )
