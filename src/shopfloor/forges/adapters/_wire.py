"""One HTTP call to a forge's API: what is repeated, how long a limit is waited for, and what every refusal means."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from shopfloor.kit import log
from shopfloor.kit.errors import Conflict, Forbidden, Malformed, NotFound, Unavailable

logger = log.get(__name__)

REPEATED = frozenset({"GET", "PUT", "DELETE"})
"""A POST that was answered with an error may have taken effect: repeating it makes a second comment."""
TRIES = 3
PATIENCE = 20.0
"""Seconds that a rate limit is waited for within a call; a longer one is told with its end."""
PAUSE = 0.5


class ForgeNotReached(Unavailable):
    """The forge's API cannot be reached."""

    hint = "Check api_url below [forges] and this machine's network; then try again."


class ForgeFailed(Unavailable):
    """The forge answers with an error of its own."""

    hint = "Look at the forge's status page; try again in a moment. Nothing is lost."


class NotAForge(Malformed):
    """What answers there is not this forge's API."""

    hint = "Correct api_url or kind below [forges]: GitHub Enterprise has https://host/api/v3, Forgejo https://host/api/v1."


class TokenRefused(Forbidden):
    """The forge does not accept the token: it has expired, was revoked or is no token."""

    hint = "Make a new token and put it into the server's variable that token_env (or origin_tokens) names; restart the server."


class RightMissing(Forbidden):
    """The token may not do this."""

    hint = "Give the token (or the App's installation) contents, pull requests and issues with read and write access."


class RepositoryHidden(NotFound):
    """There is no such repository, or the token may not see it."""

    status = 422
    hint = "Check owner and name. A forge says 'not found' also when a right is missing: let the token (or App) see this repository."


class RepositoryMoved(Conflict):
    """The repository was renamed or moved."""

    hint = "Use its new address."


class RepositoryArchived(Forbidden):
    """The repository is archived: it can be read and no longer changed."""

    hint = "Unarchive it in its settings, or work on a fork."


class RateLimited(Unavailable):
    """The forge's rate limit is used up."""

    hint = "Wait until 'resets_at'; an App has a limit of its own for each installation."


class RequestRefused(Conflict):
    """The forge refuses the request."""

    status = 422
    hint = "Its own words are in 'detail'."


@dataclass(frozen=True)
class Answer:
    """What the API answered."""

    status: int
    headers: Mapping[str, str]
    body: Any = None
    """The JSON; None when there was none."""

    @property
    def words(self) -> str:
        """The forge's own explanation."""
        if not isinstance(self.body, dict):
            return ""
        told = [str(self.body.get("message") or self.body.get("detail") or "")]
        listed = self.body.get("errors")
        errors = listed if isinstance(listed, list) else []
        told += [str((e.get("message") or e.get("code") or "") if isinstance(e, dict) else e) for e in errors]
        return "; ".join(word for word in told if word)[:500]


class Wire(Protocol):
    """How bytes come to one forge."""

    async def once(self, method: str, path: str, token: str | None, params: Mapping[str, Any], body: Any) -> Answer:
        """One request; raises ForgeNotReached when there was no answer."""


async def send(
    wire: Wire, method: str, path: str, token: str | None, *, params: Mapping[str, Any] | None = None, body: Any = None
) -> Answer:
    """Ask, repeating only what may be repeated. Answers any status that is the caller's business; raises what never is."""
    for attempt in range(1, TRIES + 1):
        last = attempt == TRIES
        try:
            answer = await wire.once(method, path, token, params or {}, body)
        except ForgeNotReached:
            if last or method not in REPEATED:
                raise
            await asyncio.sleep(PAUSE * attempt)
            continue
        if (wait := limited(answer)) is not None:
            if last or wait > PATIENCE:
                raise RateLimited(f"the rate limit is used up for {wait:.0f} s", resets_at=int(time.time() + wait))
            logger.info("forge_rate_limit_waited", seconds=wait)
            await asyncio.sleep(wait)
            continue
        if answer.status < 500:
            return answer
        if last or method not in REPEATED:
            raise ForgeFailed(f"{method} {path} was answered with {answer.status} {answer.words}".strip())
        await asyncio.sleep(PAUSE * attempt)
    raise AssertionError


def limited(answer: Answer) -> float | None:
    """Seconds until the rate limit ends, if it was that."""
    if answer.status not in {403, 429}:
        return None
    headers = {name.lower(): value for name, value in answer.headers.items()}
    if (after := headers.get("retry-after", "")).isdigit():
        return float(after)
    if headers.get("x-ratelimit-remaining") == "0" and headers.get("x-ratelimit-reset", "").isdigit():
        return max(1.0, float(headers["x-ratelimit-reset"]) - time.time())
    return 60.0 if answer.status == 429 or "rate limit" in answer.words.lower() else None


def checked(answer: Answer, what: str) -> Any:
    """The JSON of a good answer; raises what any other means for a repository."""
    if answer.status in {301, 302, 307, 308}:
        raise RepositoryMoved(f"{what} leads to another address", location=answer.headers.get("location", "")[:300])
    if answer.status < 300:
        if answer.body is None and answer.status != 204:
            raise NotAForge(f"{what}: the answer is no JSON")
        return answer.body
    words, low = answer.words, answer.words.lower()
    if "archived" in low or answer.status == 423:
        raise RepositoryArchived(f"{what}: {words or 'archived'}")
    if answer.status == 401:
        raise TokenRefused(f"{what}: {words or 'not accepted'}")
    if answer.status == 403:
        needed = answer.headers.get("x-accepted-github-permissions", "")
        raise RightMissing(f"{what}: {words}" + (f" (needs {needed})" if needed else ""))
    if answer.status == 404:
        if answer.body is None:
            raise NotAForge(f"{what}: 404 without a word of a forge")
        raise RepositoryHidden(f"{what}: {words or 'not found'}")
    raise RequestRefused(f"{what}: {answer.status} {words}".strip())
