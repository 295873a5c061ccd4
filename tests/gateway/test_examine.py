"""Accounts tried for real by the doctor."""

import json

import pytest

from shopfloor.gateway import accounts
from shopfloor.gateway.steps.examine import examine
from shopfloor.kit.config import Settings
from tests.gateway.upstream import Reply, Seen, Upstream

GOOD = "sk-good-key"
HEADERS = {"anthropic": "x-api-key", "openai": "authorization", "gemini": "x-goog-api-key"}


def asked(seen: Seen) -> Reply:
    """A provider that knows one key."""
    shown = [seen.headers.get(name, "").removeprefix("Bearer ") for name in HEADERS.values()]
    status = 200 if GOOD in shown and seen.path.endswith("/models") else 401
    return Reply([json.dumps({"data": []}).encode()], status, {"content-type": "application/json"})


@pytest.mark.parametrize(("key", "ok"), [(GOOD, True), ("sk-bad", False)])
@pytest.mark.parametrize("api", sorted(HEADERS))
async def test_a_good_key_is_told_from_a_bad_one(api: str, key: str, ok: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUR_KEY", key)
    with Upstream() as provider:
        provider.answer = asked
        settings = Settings(accounts={"mine": {"api": api, "base_url": provider.url, "key_env": "OUR_KEY"}})
        found = await examine(accounts.account(settings, "mine"))
    assert found.ok is ok
    assert key not in found.detail + found.fix


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"api": "telepathy"}, "accounts.mine.api"),
        ({"api": "openai", "base_url": "ftp://x"}, "accounts.mine.base_url"),
        ({"api": "openai", "colour": "red"}, "accounts.mine.colour"),
        ({"api": "openai", "prices": {"m": {"input": -1, "output": 1}}}, "accounts.mine.prices.m.input"),
    ],
)
def test_a_wrong_setting_is_named(given: dict[str, object], said: str) -> None:
    with pytest.raises(accounts.BadAccount, match=said):
        accounts.account(Settings(accounts={"mine": given}), "mine")


def test_an_account_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(accounts.UnknownAccount) as refused:
        accounts.account(Settings(), "nobody")
    assert "anthropic" in refused.value.hint
