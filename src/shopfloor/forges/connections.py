"""Which forge a repository belongs to, and what is shown to it: a personal token, `gh`'s login, or an App's token made for one repository."""

import asyncio
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson

from shopfloor.forges.port import Connection
from shopfloor.forges.rules import Address, Kind
from shopfloor.kit import log
from shopfloor.kit.config import ForgeSettings
from shopfloor.kit.errors import Misconfigured, Unavailable
from shopfloor.kit.git import Credential

logger = log.get(__name__)

READ = {"contents": "read", "metadata": "read"}
WRITE = {"contents": "write", "pull_requests": "write", "issues": "write", "checks": "read", "statuses": "read"}
GH_SECONDS = 300.0
"""How long `gh`'s answer is believed."""
GH_ANSWER_SECONDS = 20.0


class ForgeTokenMissing(Misconfigured):
    """The variable that should hold this forge's token is not set."""

    hint = "Set the variable that token_env names where the server runs."


class GhUnavailable(Misconfigured):
    """gh has no login for this host."""

    hint = "Install GitHub's command line and run 'gh auth login' as the server's user, or set token_env instead."


class AppKeyUnreadable(Misconfigured):
    """The App's private key cannot be read."""

    hint = "Correct app_key_file: the .pem that GitHub offered when the key was made, readable by the server only."


class AppNotInstalled(Unavailable):
    """The App may not see this repository."""

    status = 422
    hint = "Install the App on the repository (its settings, 'Install App'), or add the repository to its installation."


class AppRightMissing(Unavailable):
    """The App was not given a right that it needs."""

    status = 422
    hint = (
        "Give the App contents, pull requests and issues (read and write), checks and commit statuses (read) in its "
        "settings, and let the owner of the installation accept them."
    )


@dataclass
class Minted:
    """A token of an App for one repository."""

    token: str = field(repr=False)
    until: float


class AppTokens:
    """Tokens of a GitHub App, each for one repository and with the least rights."""

    def __init__(self, api_url: str, settings: ForgeSettings) -> None:
        self.api_url, self.settings = api_url, settings
        self._minted: dict[tuple[str, bool], Minted] = {}
        self._slug = ""

    async def token(self, url: str, *, write: bool, fresh: bool = False) -> str:
        """A token for one repository; `fresh` makes a new one, as a push may come at the end of a long day."""
        key = (url, write)
        held = self._minted.get(key)
        if held is None or fresh or held.until < time.time():
            self._minted[key] = held = await self._mint(url, WRITE if write else READ)
        return held.token

    async def login(self) -> str:
        """The name under which the App writes."""
        if not self._slug:
            self._slug = str((await self._ask("GET", "/app"))["slug"])
        return f"{self._slug}[bot]"

    async def _mint(self, url: str, permissions: Mapping[str, str]) -> Minted:
        owner, _, name = urlsplit(url).path.strip("/").removesuffix(".git").partition("/")
        installation = (await self._ask("GET", f"/repos/{owner}/{name}/installation"))["id"]
        body = {"repositories": [name], "permissions": dict(permissions)}
        made = await self._ask("POST", f"/app/installations/{installation}/access_tokens", body)
        logger.info("forge_token_minted", repository_url=url, permissions=dict(permissions))
        return Minted(str(made["token"]), time.time() + 3000)

    async def _ask(self, method: str, path: str, body: Any = None) -> Any:
        from githubkit import AppAuthStrategy, GitHub
        from githubkit.cache import MemCacheStrategy
        from githubkit.exception import RequestError, RequestFailed

        try:
            key = await asyncio.to_thread(self.settings.app_key_file.read_text) if self.settings.app_key_file else ""
        except OSError as error:
            raise AppKeyUnreadable(f"{self.settings.app_key_file}: {error.strerror}") from error
        strategy = AppAuthStrategy(self.settings.app_id, key)
        # A cache of its own: githubkit's common one would answer with another host's App, or with a key that was replaced.
        options: dict[str, Any] = {"auto_retry": False, "follow_redirects": False, "http_cache": False, "timeout": 30}
        options["cache_strategy"] = MemCacheStrategy()
        try:
            async with GitHub(strategy, base_url=self.api_url, user_agent="shopfloor", **options) as github:
                return (await github.arequest(method, self.api_url.rstrip("/") + path, json=body)).json()
        except RequestFailed as error:
            status = error.response.status_code
            if status == 422:
                words = _words(error.response.content)
                raise AppRightMissing(f"the App {self.settings.app_id} was refused a token: {words}") from error
            if status == 404:
                raise AppNotInstalled(f"the App {self.settings.app_id} sees nothing at {path}") from error
            raise AppKeyUnreadable(f"the App {self.settings.app_id} was refused with {status}") from error
        except RequestError as error:
            if not isinstance(error.exc, httpx.HTTPError):
                raise AppKeyUnreadable(f"{self.settings.app_key_file} holds no private key") from error
            raise Unavailable(f"{self.api_url} does not answer: {type(error.exc).__name__}") from error


class Connections:
    """The operator's forges, by host."""

    def __init__(self, forges: Mapping[str, ForgeSettings], origin_tokens: Mapping[str, str] | None = None) -> None:
        self.forges = {urlsplit(origin).netloc.lower(): (origin.rstrip("/"), one) for origin, one in forges.items()}
        for origin, variable in (origin_tokens or {}).items():
            host = urlsplit(origin).netloc.lower()
            if host == "github.com":
                self.forges.setdefault(host, (origin.rstrip("/"), ForgeSettings(kind="github", token_env=variable)))
        self._apps: dict[str, AppTokens] = {}
        self._gh: dict[str, tuple[float, str]] = {}

    def settings(self, address: Address) -> ForgeSettings | None:
        """What the operator said about a repository's host."""
        found = self.forges.get(_netloc(address))
        return found[1] if found and address.kind != Kind.FILE else None

    def origin(self, host: str) -> str:
        """`https://host` as the operator wrote it."""
        return self.forges[host][0]

    def canonical(self, address: Address) -> str:
        """The address of a connected repository as its forge tells it, however a person spelled it; capitals stay."""
        return f"{self.origin(_netloc(address))}/{address.owner}/{address.name}"

    def polled(self) -> list[str]:
        """Addresses of the repositories that are to be polled."""
        return [
            f"{origin}/{name}" for origin, one in self.forges.values() if one.poll_seconds for name in one.repositories
        ]

    def webhook_secrets(self, kind: str) -> dict[str, str]:
        """Host -> the secret of its webhooks, where one is set."""
        named = {host: s.webhook_secret_env for host, (_, s) in self.forges.items() if s.kind == kind}
        found = {host: os.environ.get(variable, "") for host, variable in named.items() if variable}
        return {host: secret for host, secret in found.items() if secret}

    def kind(self, address: Address) -> str:
        """The adapter of a repository: plain git, unless its host is connected."""
        found = self.settings(address)
        return found.kind if found and (found.kind == "plain_git" or _credential(found)) else "plain_git"

    def connection(self, address: Address) -> Connection | None:
        """How its API is reached; None for plain git."""
        if self.kind(address) == "plain_git":
            return None
        origin, settings = self.forges[_netloc(address)]

        async def token(url: str) -> str | None:
            del url
            return await self._token(address, write=True, fresh=False)

        return Connection(
            origin=origin,
            api_url=api_url(origin, settings),
            token=token,
            draft=settings.draft,
            login=self._app(_netloc(address)).login if settings.app_id else None,
        )

    async def credential(self, address: Address, *, write: bool = False) -> Credential | None:
        """What git shows to the repository's host; None when this host is not ours or needs nothing."""
        found = self.settings(address)
        if found is None or not _credential(found) or address.kind not in {Kind.HTTPS, Kind.HTTP}:
            return None
        if address.kind != urlsplit(self.origin(_netloc(address))).scheme.lower():
            return None  # what is meant for https is not shown to everybody on the way
        return Credential(address.origin, await self._token(address, write=write, fresh=write))

    async def _token(self, address: Address, *, write: bool, fresh: bool) -> str:
        host = _netloc(address)
        settings = self.forges[host][1]
        if settings.app_id:
            return await self._app(host).token(address.url, write=write, fresh=fresh)
        if settings.gh_login:
            return await self._login(host.partition("@")[2] or host)
        if not (token := os.environ.get(settings.token_env)):
            raise ForgeTokenMissing(f"the variable that token_env names for {self.forges[host][0]} is not set")
        return token

    def _app(self, host: str) -> AppTokens:
        origin, settings = self.forges[host]
        return self._apps.setdefault(host, AppTokens(api_url(origin, settings), settings))

    async def _login(self, host: str) -> str:
        """Ask GitHub's own program for the login that a person made with it."""
        at, token = self._gh.get(host, (0.0, ""))
        if not token or time.monotonic() - at > GH_SECONDS:
            try:
                gh = await asyncio.create_subprocess_exec(
                    *("gh", "auth", "token", "--hostname", host),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.DEVNULL,
                )
            except OSError as error:
                raise GhUnavailable("the program gh is not installed where the server runs") from error
            try:
                async with asyncio.timeout(GH_ANSWER_SECONDS):
                    token = (await gh.communicate())[0].decode(errors="replace").strip()
            except TimeoutError as error:
                raise GhUnavailable("gh does not answer: it may wait for a keyring that nobody unlocks") from error
            finally:
                if gh.returncode is None:
                    gh.kill()
                    await gh.wait()
            if gh.returncode or not token:
                raise GhUnavailable(f"gh has no login for {host}")
            self._gh[host] = (time.monotonic(), token)
        return token


def api_url(origin: str, settings: ForgeSettings) -> str:
    """Where the API of a forge is, unless the operator says otherwise."""
    if settings.api_url:
        return settings.api_url
    if settings.kind == "github":
        return "https://api.github.com" if urlsplit(origin).netloc == "github.com" else f"{origin}/api/v3"
    return f"{origin}/api/v1"


def _words(content: bytes) -> str:
    """What GitHub says about a refusal."""
    try:
        return str(orjson.loads(content)["message"])[:300]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return "it gives no reason"


def _credential(settings: ForgeSettings) -> bool:
    return bool(settings.token_env or settings.gh_login or settings.app_id)


def _netloc(address: Address) -> str:
    """The host as the settings name it; an ssh address names a user and a port of its own."""
    return address.host.lower()
