"""Try an account for real: its server lists its models to whoever shows a good key."""

from dataclasses import dataclass

import httpx

from shopfloor.gateway.accounts import Account, KeyMissing

SECONDS = 15.0


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What trying an account showed."""

    ok: bool
    detail: str
    fix: str = ""


async def examine(account: Account) -> Finding:
    """Ask for the account's models; costs nothing, shows nothing of the key."""
    try:
        key = account.key()
    except KeyMissing as missing:
        return Finding(ok=False, detail=f"{account.key_name} is not set", fix=missing.hint)
    headers = {**account.speaks.key(key), "anthropic-version": "2023-06-01"} if key else {}
    try:
        async with httpx.AsyncClient(timeout=SECONDS) as http:
            answer = await http.get(account.url + account.speaks.models_path, headers=headers)
    except httpx.HTTPError as error:
        fix = f"Check this machine's network, or accounts.{account.name}.base_url."
        return Finding(ok=False, detail=f"{account.url} was not reached: {type(error).__name__}", fix=fix)
    if answer.is_success:
        return Finding(ok=True, detail=f"{account.url} takes the key in {account.key_name or 'no variable'}")
    fix = f"Put a good key into {account.key_name} and start the server again."
    return Finding(ok=False, detail=f"{account.url} answered {answer.status_code}", fix=fix)
