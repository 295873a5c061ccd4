"""Can this repository be worked on? Asked before the first order, answered within a time limit (AWA-01)."""

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime

from shopfloor.forges import rules
from shopfloor.forges.service import Repositories
from shopfloor.kit import log
from shopfloor.kit.clock import now
from shopfloor.kit.errors import Problem, Unavailable

logger = log.get(__name__)

VERIFY_SECONDS = 30.0


class VerificationTimedOut(Unavailable):
    """The repository did not answer in time."""

    hint = "The server may be slow or unreachable; try again."


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was found out about a repository (AWM-11, AWM-12)."""

    owner: str = ""
    name: str = ""
    url: str
    default_branch: str = "main"
    accessible: bool = False
    can_write: bool = False
    why_not: str = ""
    """Why it can be read and not written, and what to do."""
    verified_at: datetime | None = None
    problem: Problem | None = None


async def verify(repositories: Repositories, text: str, *, limit: float = VERIFY_SECONDS) -> Verification:
    """Try to read and to write, and say what is in the way; never raises for a bad repository."""
    try:
        address = rules.address(text)
    except rules.CredentialsInUrl as problem:
        return Verification(url="", problem=problem)
    except Problem as problem:
        return Verification(url=text[:200], problem=problem)
    asked = Verification(owner=address.owner, name=address.name, url=address.url)
    try:
        async with asyncio.timeout(limit):
            access = await repositories.adapter(address.url).verify(address.url)
    except TimeoutError:
        return replace(asked, problem=VerificationTimedOut(f"no answer within {limit:.0f} s"))
    except Problem as problem:
        logger.info("repository_verification_failed", code=problem.code, reason=problem.message)
        return replace(asked, problem=problem)
    logger.info("github_repository_verified", repository_url=address.url, can_write=access.can_write)
    return replace(
        asked,
        default_branch=access.default_branch,
        accessible=True,
        can_write=access.can_write,
        why_not=access.why_not,
        verified_at=now(),
    )
