"""Model accounts from the settings: whose key, where, and what happens at its limits."""

import functools
import os
import re
from collections.abc import Mapping
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from shopfloor.gateway.port import Api
from shopfloor.kit import plugins
from shopfloor.kit.config import Settings
from shopfloor.kit.errors import Misconfigured

ADAPTERS = "shopfloor.gateway.adapters"
PER = 1_000_000


class UnknownAccount(Misconfigured):
    """There is no model account of that name."""

    status = 422


class BadAccount(Misconfigured):
    """The model account is not usable."""


class KeyMissing(Misconfigured):
    """The key of the model account is not set."""

    status = 422


class Price(BaseModel):
    """US dollars for a million tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cache_read: float | None = Field(None, ge=0)
    cache_write: float | None = Field(None, ge=0)

    def of(self, tokens: Any) -> float:
        """What `genai_prices.Usage` tokens cost."""
        read, written = tokens.cache_read_tokens or 0, tokens.cache_write_tokens or 0
        plain = max(0, (tokens.input_tokens or 0) - read - written)
        parts = (
            (plain, self.input),
            (read, self.input if self.cache_read is None else self.cache_read),
            (written, self.input if self.cache_write is None else self.cache_write),
            (tokens.output_tokens or 0, self.output),
        )
        return sum(count * each for count, each in parts) / PER


class Account(BaseModel):
    """`[accounts.NAME]` in shopfloor.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    api: str
    """anthropic, openai or gemini: how its server speaks."""
    base_url: str = ""
    """Where it is, without the version; empty: as the provider's own programs find it."""
    key_env: str | None = None
    """The variable of the server's environment that holds the key; empty: no key is needed; None: the provider's usual one."""
    pause_on_limit: bool = True
    """Whether a usage limit pauses everything that uses the account until its reset."""
    hold_seconds: float = Field(300, gt=0)
    """How long a call waits for the reset before its agent is told and its order waits instead."""
    prices: dict[str, Price] = Field(default_factory=dict)
    """By model, where the price list does not know it or is wrong."""

    @field_validator("base_url")
    @classmethod
    def _plain(cls, value: str) -> str:
        if value and not re.fullmatch(r"https?://[^/?#@\s]+(/[^?#\s]*)?", value):
            raise ValueError("write http(s)://host, without a query")
        return re.sub(r"/v1(beta)?/*$", "", value.rstrip("/"))

    @functools.cached_property
    def speaks(self) -> Api:
        """Its provider's API."""
        return cast("Api", plugins.load(ADAPTERS, self.api).API)

    @functools.cached_property
    def url(self) -> str:
        """Where calls go."""
        told = self.base_url or os.environ.get(self.speaks.base_url_env, "") or self.speaks.base_url
        return self._plain(told)

    @property
    def key_name(self) -> str:
        """The variable that holds the key."""
        return self.speaks.key_env if self.key_env is None else self.key_env

    def key(self) -> str:
        """The real key: never log it, never hand it in. Raises KeyMissing."""
        if not self.key_name:
            return ""
        if not (found := os.environ.get(self.key_name, "").strip()):
            raise KeyMissing(
                f"the model account {self.name!r} has no key: {self.key_name} is not set for the server",
                hint=f"Set {self.key_name} and start the server again; or, for an agent that brings a login of its own, "
                "agents.NAME.direct = true.",
            )
        return found


def names(settings: Settings) -> list[str]:
    """Every account there is."""
    return sorted({*plugins.names(ADAPTERS), *settings.accounts})


def account(settings: Settings, name: str) -> Account:
    """One account. Raises UnknownAccount or BadAccount naming the key."""
    given: Mapping[str, Any] = settings.accounts.get(name, {})
    ours = name in plugins.names(ADAPTERS)
    if not ours and name not in settings.accounts:
        raise UnknownAccount(f"there is no model account {name!r}", hint=f"Known: {', '.join(names(settings))}.")
    try:
        made = Account.model_validate({**({"api": name} if ours else {}), **given, "name": name})
        plugins.load(ADAPTERS, made.api)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(["accounts", name, *map(str, first["loc"])])
        fields = ", ".join(sorted(set(Account.model_fields) - {"name"}))
        raise BadAccount(f"{key}: {first['msg']}", hint=f"Correct it in shopfloor.toml. Keys: {fields}.") from error
    except plugins.UnknownAdapter as error:
        raise BadAccount(f"accounts.{name}.api: {error.message}", hint=error.hint) from error
    return made
