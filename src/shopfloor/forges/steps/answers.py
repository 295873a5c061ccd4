"""What answers to facts from a forge are made of, whoever gives them: each once, the words that are handed on, what is said there."""

from collections.abc import Awaitable, Callable, Sequence

from shopfloor.forges import inbox, texts
from shopfloor.forges.models import Change, Delivery
from shopfloor.forges.service import Repositories
from shopfloor.forges.signals import Kind, Signal
from shopfloor.kit import log
from shopfloor.kit.db import Database
from shopfloor.kit.errors import Problem, Unavailable

logger = log.get(__name__)

REPAIRS = 2
"""How many commits of one order or ticket whose checks failed are answered by another try; then a person must look."""
MOST_WORDS, MOST_FAILURES = 40_000, 12_000


async def answer_each(
    database: Database, rows: Sequence[Delivery], answer: Callable[[Delivery], Awaitable[bool]]
) -> int:
    """Answer facts, each for itself; answers how many. What cannot be done now is left for the next look, what never can is refused."""
    done = 0
    for row in rows:
        try:
            done += await answer(row)
        except Unavailable as problem:
            logger.info("forge_reaction_waits", delivery_id=row.delivery_id, reason=problem.message)
        except Problem as problem:
            logger.warning(
                "forge_reaction_failed", delivery_id=row.delivery_id, code=problem.code, reason=problem.message
            )
            async with database.transaction() as session:
                done += await inbox.answer(session, row.delivery_id, f"refused: {problem.code}")
    return done


async def reply_each(database: Database, rows: Sequence[Delivery], reply: Callable[[Delivery], Awaitable[str]]) -> None:
    """Tell the authors of reviews how it ended. `reply` answers what became of it, or nothing while the work goes on."""
    for row in rows:
        try:
            reaction = await reply(row)
        except Problem as problem:
            logger.warning("forge_reply_failed", delivery_id=row.delivery_id, code=problem.code, reason=problem.message)
            reaction = "" if isinstance(problem, Unavailable) else f"continued, {problem.code}"
        if reaction:
            async with database.transaction() as session:
                await inbox.replied(session, row.delivery_id, reaction)


async def said(repositories: Repositories, row: Delivery, signal: Signal) -> str:
    """The review's own words and all its threads, or the comment; empty when it says nothing."""
    if signal.kind != Kind.REVIEWED or signal.number is None:
        return signal.text.strip()
    threads = await repositories.adapter(row.repository_url).threads(row.repository_url, signal.number, signal.item)
    places = [f"{one.path}{f', line {one.line}' if one.line else ''}: {one.body}" for one in threads]
    return "\n\n".join(part for part in (signal.text.strip(), *places) if part)[:MOST_WORDS]


def review_words(signal: Signal, words: str) -> str:
    """What an agent is told of a review."""
    return f"A reviewer ({signal.verdict or 'comment'}) says about your change:\n{texts.fenced(words)}"


async def failures(repositories: Repositories, row: Delivery, signal: Signal) -> str:
    """The checks that failed on the commit, with what they say."""
    checks = await repositories.adapter(row.repository_url).checks(row.repository_url, signal.head_commit)
    failed = [f"{one.name}\n{one.summary}" for one in checks if one.state == "failed"]
    return "\n\n".join(failed)[:MOST_FAILURES] or signal.item


def failure_words(signal: Signal, told: str) -> str:
    """What an agent is told of failed checks."""
    return (
        f"Checks failed on your last commit {signal.head_commit[:12]}. Mend the cause; do not skip, weaken or delete tests.\n"
        f"{texts.fenced(told)}"
    )


async def give_up(repositories: Repositories, change: Change) -> None:
    """Say on the change, once, that a person has to look."""
    if change.number is None:
        return
    text = f"The checks failed again after {REPAIRS} repairs by Shopfloor. A person has to look."
    sign = texts.marker("gaveup", change.work_order_id)
    await repositories.adapter(change.repository_url).comment(change.repository_url, change.number, text, marker=sign)


async def say_done(repositories: Repositories, row: Delivery, signal: Signal, commit: str) -> None:
    """Answer every thread of a review with the commit that followed it, each once."""
    forge, url, number = repositories.adapter(row.repository_url), row.repository_url, signal.number or 0
    for thread in await forge.threads(url, number, signal.item):
        sign = texts.marker("reply", f"{signal.item}-{thread.comment_id}")
        await forge.reply(url, number, thread.comment_id, f"Done in {commit}.", marker=sign)
