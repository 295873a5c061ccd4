"""Settings of the platform: environment (SHOPFLOOR_*), then shopfloor.toml, then defaults. An adapter's own settings live in its Config."""

import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import platformdirs
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from shopfloor.kit.errors import Misconfigured

CONFIG_VARIABLE = "SHOPFLOOR_CONFIG"
ORIGIN_PROTOCOLS = ("https", "http", "ssh", "file")


def _protocols(given: Any) -> Any:
    """`https,ssh` as a variable of the environment writes it, or a list; raises ValueError naming what is not known."""
    names = [name.strip() for name in given.split(",")] if isinstance(given, str) else given
    if (
        not isinstance(names, list | tuple | set | frozenset)
        or not names
        or not set(map(str, names)) <= set(ORIGIN_PROTOCOLS)
    ):
        raise ValueError(f"name one or more of {', '.join(ORIGIN_PROTOCOLS)}")
    return names


def _tokens(given: dict[str, str]) -> dict[str, str]:
    """The table as it is; raises ValueError that repeats nothing of it, as what stands in the wrong place may be a secret."""
    for origin, variable in given.items():
        if not re.fullmatch(r"https?://[^/@\s]+/?", origin) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
            raise ValueError('write "https://host" = "NAME_OF_A_VARIABLE", and the token into that variable')
    return given


class BadConfiguration(Misconfigured):
    """The configuration is not usable."""


class ForgeSettings(BaseModel):
    """How one host of repositories is worked with: `[forges."https://host"]`. Secrets stand in variables and files that are named here."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    kind: Literal["github", "forgejo", "plain_git"]
    api_url: str = Field("", pattern=r"^(https?://[^@\s]+)?$")
    """Empty: https://api.github.com, https://host/api/v3 for another GitHub, https://host/api/v1 for Forgejo."""
    token_env: str = Field("", pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")
    """The variable of the server's environment that holds a token."""
    gh_login: bool = False
    """Use the login that GitHub's command line `gh` has."""
    app_id: str = ""
    app_key_file: Path | None = None
    """A GitHub App: tokens are made for each push, for one repository."""
    draft: bool = True
    """Offer changes as drafts."""
    delete_branch: bool = True
    """Remove a change's branch once it is merged."""
    webhook_secret_env: str = Field("", pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")
    """The variable that holds the secret of the webhook; without one, deliveries are refused."""
    poll_seconds: float = Field(0, ge=0)
    """How often the forge is asked what happened, where its webhooks cannot reach this server; 0: never."""
    repositories: list[str] = Field(default_factory=list)
    """`owner/name` of repositories that are polled even while they have no open change."""
    trigger_label: str = "shopfloor"
    """The label that asks for work on an issue."""
    agent: str = ""
    workflow_type: str = "agent_workflow_plan_build_test"
    """What works on an issue that asks for it; no agent: `default_agent`."""
    mention: str = "/shopfloor"
    """How a comment on an issue or change addresses us."""

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        if sum((bool(self.token_env), self.gh_login, bool(self.app_id))) > 1:
            raise ValueError("name one of token_env, gh_login and app_id")
        if bool(self.app_id) != (self.app_key_file is not None):
            raise ValueError("an App needs app_id and app_key_file")
        return self


def _origins(given: dict[str, Any]) -> dict[str, Any]:
    for origin in given:
        if not re.fullmatch(r"https?://[^/@\s]+/?", origin):
            raise ValueError('write [forges."https://host"]')
    return given


class Retention(BaseModel):
    """What is kept of sandboxes that were removed, and for how long. Days count from the order's end; 0 removes at the next sweep."""

    model_config = ConfigDict(extra="forbid")

    completed: float = Field(14, ge=0)
    """Days that pins of completed orders are kept. Their homes and spools go at once: all they led to is delivered."""
    failed: float = Field(60, ge=0)
    """Days that pins, homes and spools of failed orders are kept."""
    cancelled: float = Field(30, ge=0)
    """The same for cancelled orders."""
    no_order: float = Field(14, ge=0)
    """The same for sandboxes that belong to no order."""
    logs: float = Field(90, ge=0)
    """Days that the log lines of orders are kept below `data_dir`/logs."""
    pin_bytes: int = Field(1 << 30, gt=0)
    """Most bytes of files that one pin holds; the largest files are left out, and listed."""
    leave: frozenset[str] = frozenset(
        {"node_modules", ".venv", "venv", "__pycache__", ".tox", ".nox", ".mypy_cache", ".pytest_cache", ".ruff_cache"}
    )
    """Names of folders that tools make anew: not kept unless the repository itself has files there; named in the pin's note."""


class Board(BaseModel):
    """How tickets are looked after: `[board]`."""

    model_config = ConfigDict(extra="forbid")

    approval_seconds: float = Field(1800, ge=60, le=86400)
    """How long a person has to approve a ticket."""
    blocking_seconds: float = Field(1800, gt=0)
    """A ticket in a working column that gets no further for so long is looked at: something is in its way."""
    remedy: bool = True
    """Whether a ticket of an autonomous project that is found blocked gets a task to clear its way."""
    duplicate_score: float = Field(0.65, gt=0, le=1)
    """How alike a new ticket and another may be, 0 to 1, before somebody must insist on it."""
    duplicate_model: str = ""
    """A folder, or a name on the Hugging Face hub, of a static embedding model that compares tickets by what they mean (`shopfloor[embeddings]`).
    Empty: by their letters; nothing is loaded or downloaded."""
    duplicate_model_score: float = Field(0.7, gt=0, le=1)
    """In the place of `duplicate_score` where there is a model."""
    duplicate_candidates: int = Field(5, ge=1, le=50)
    most_returns: int = Field(3, ge=0)
    """How often a ticket goes back by itself because something failed, before it waits for a person."""
    sweep_seconds: float = Field(5, gt=0)
    """How often the board looks for what nobody told it."""

    @property
    def duplicates_from(self) -> float:
        """The score in force from which on a ticket is a duplicate."""
        return self.duplicate_model_score if self.duplicate_model else self.duplicate_score


Priority = Literal["critical", "high", "medium", "low"]


def _head_starts() -> dict[Priority, float]:
    return {"critical": 4 * 3600.0, "high": 3600.0, "medium": 1200.0, "low": 0.0}


class Scheduling(BaseModel):
    """Where tasks stand in the queue: everybody waits from his own birth on, and these are the seconds somebody is older than he is."""

    model_config = ConfigDict(extra="forbid")

    head_start_seconds: dict[Priority, Annotated[float, Field(ge=0)]] = Field(default_factory=_head_starts)
    """Of each priority; one that is not named has none."""
    retry_head_start_seconds: float = Field(600, ge=0)
    """Of a task for each time it was tried already."""
    deadline_lead_seconds: float = Field(3600, ge=0)
    """A task with a deadline stands no later than one born so long before it."""
    retry_seconds: float = Field(10, gt=0)
    """How long a failed task waits for its next try; doubled by each further one, at most ten minutes."""


class Checks(BaseModel):
    """How checks of criteria are run."""

    model_config = ConfigDict(extra="forbid")

    sandbox: str = "local"
    """The sandbox type they run in. It must isolate: without that, code under test could write its own verdict."""
    timeout_seconds: float = Field(600, gt=0)
    """How long one check may take when it does not say."""
    max_runs: int = Field(2, ge=1)
    """How many runs one engine drives at once; each also takes a sandbox place."""


class Settings(BaseSettings):
    """Everything an operator may set. Durations in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix="SHOPFLOOR_", env_nested_delimiter="__", extra="forbid")

    data_dir: Path = Field(default_factory=lambda: Path(platformdirs.user_data_dir("shopfloor")))
    host: str = "127.0.0.1"
    port: int = Field(18000, ge=0, le=65535)
    database_url: str = ""
    """Empty: SQLite below data_dir. Else `postgresql://user@host/name`."""
    api_key: str = ""
    """Required from every caller when set; must be set to listen on anything but loopback."""
    log_level: str = "info"
    log_json: bool | None = None

    max_sandboxes: int = Field(4, ge=1)
    """Sandboxes that may run on this host at once."""
    heartbeat_seconds: float = Field(15, gt=0)
    """How often a worker says it is alive; every deadline is derived from it."""
    engine_lease_seconds: float = Field(5, gt=0)
    """An engine process silent for longer is dead and its work is adopted."""
    orphan_seconds: float = Field(900, gt=0)
    """How long a sandbox goes on working while no server renews its lease."""
    max_attempts: int = Field(3, ge=1)
    """Attempts at one work order before it needs a person."""
    work_order_timeout_seconds: float = Field(7200, gt=0)
    max_upload_bytes: int = Field(512 * 1024 * 1024, gt=0)

    blobs_dir: Path | None = None
    """Where uploads are kept; default `data_dir`/blobs. Several hosts need a folder they all see, to go on with each other's work."""

    origin_protocols: Annotated[frozenset[str], NoDecode, BeforeValidator(_protocols)] = frozenset({"https", "file"})
    """How repositories may be reached: https, http (unencrypted, with any token), ssh (by the ssh-agent's keys), file (paths of this machine)."""
    origin_tokens: Annotated[dict[str, str], AfterValidator(_tokens)] = Field(default_factory=dict)
    """`"https://git.example.org" = "VARIABLE"`: the variable of the server's environment that holds the token for that host."""
    forges: Annotated[dict[str, ForgeSettings], AfterValidator(_origins)] = Field(default_factory=dict)
    """Where changes are reviewed: `[forges."https://github.com"]`. A host that is not named is plain git."""

    default_agent: str = "claude"
    default_sandbox: str = "local"
    agents: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Agent profiles by name: `[agents.NAME]` in shopfloor.toml."""
    accounts: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Model accounts by name: `[accounts.anthropic]`; their keys stay in the server's environment."""
    work_order_budget_usd: float | None = Field(None, gt=0)
    """What the models of one work order may cost when nothing else is said; empty: no limit."""
    sandboxes: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Settings of sandbox adapters by name: `[sandboxes.local]`."""

    board: Board = Field(default_factory=Board)
    """`[board]`: approval, duplicates, blocked tickets."""
    scheduling: Scheduling = Field(default_factory=Scheduling)
    """`[scheduling]`: which task is next."""
    checks: Checks = Field(default_factory=Checks)
    """`[checks]`: how evidence is made."""
    retention: Retention = Field(default_factory=Retention)
    """`[retention]`: what is kept of removed sandboxes."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments beat the environment, the environment beats the file."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, config_file())

    @property
    def database(self) -> str:
        """The database URL in force."""
        return self.database_url or f"sqlite:///{self.data_dir / 'shopfloor.db'}"

    @property
    def blobs(self) -> Path:
        """The folder of uploads in force."""
        return self.blobs_dir or self.data_dir / "blobs"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host in {"127.0.0.1", "::1", "localhost"}


def config_file() -> Path:
    """The file settings are read from: $SHOPFLOOR_CONFIG, else shopfloor.toml here, else in the platform's config folder."""
    if named := os.environ.get(CONFIG_VARIABLE):
        return Path(named)
    here = Path("shopfloor.toml")
    return here if here.exists() else Path(platformdirs.user_config_dir("shopfloor")) / "shopfloor.toml"


def load(**overrides: Any) -> Settings:
    """Read the settings; a mistake raises BadConfiguration naming the key and the fix."""
    try:
        settings = Settings(**{k: v for k, v in overrides.items() if v is not None})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise BadConfiguration(
            f"setting {key!r}: {first['msg']}",
            hint=f"Correct {key} in {config_file()} or the environment variable SHOPFLOOR_{key.upper().replace('.', '__')}.",
            key=key,
        ) from error
    except SettingsError as error:
        raise BadConfiguration(str(error), hint="Tables and lists in the environment are written as JSON.") from error
    except (tomllib.TOMLDecodeError, OSError) as error:
        raise BadConfiguration(f"{config_file()}: {error}", hint="Correct the file; it must be valid TOML.") from error
    if not settings.loopback and not settings.api_key:
        raise BadConfiguration(
            f"host {settings.host} can be reached by others and no api_key is set",
            hint="Set api_key (SHOPFLOOR_API_KEY), or host = '127.0.0.1'.",
            key="api_key",
        )
    return settings
