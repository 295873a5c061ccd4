"""Find out about every check of a claimed run, one after the other, and write each down as it is found."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shopfloor.evidence import queries, rules, service
from shopfloor.evidence.models import CheckRun
from shopfloor.evidence.queries import Finding
from shopfloor.evidence.rules import Touched, Verdict
from shopfloor.evidence.steps import Bench, reading, sandboxed
from shopfloor.forges.mirrors.places import Place
from shopfloor.kit import log
from shopfloor.kit.db import AWAY
from shopfloor.kit.errors import Problem, Unavailable
from shopfloor.sandboxes.rules import SandboxState

logger = log.get(__name__)

ENDED = "its checks ended"
PAUSES = (1.0, 4.0)
"""Seconds before what cannot be done right now (an origin not reached, a sandbox not started) is tried again."""


@dataclass(frozen=True)
class Case:
    """A claimed run, where its commits lie, and what was touched between them."""

    bench: Bench
    run: CheckRun
    place: Place
    touched: list[Touched]
    called: list[str]
    """The scripts that the check runs by way of the base's own files."""


async def examine(bench: Bench, run: CheckRun) -> None:
    """Drive a claimed run to its end; stops without a trace as soon as the run is another engine's."""
    assert run.sandbox_id
    try:
        async with bench.database.transaction() as session:
            await bench.sandboxes.begin(session, run.sandbox_id)
        for item in run.checks:
            if item["number"] in queries.numbers_done(run):
                continue
            finding = await _found_out(bench, run, item)
            async with bench.database.transaction() as session:
                if not await service.record_finding(session, run.run_id, run.attempts, item, finding):
                    return
        async with bench.database.transaction() as session:
            await service.end_run(session, run.run_id, run.attempts)
    finally:
        await release(bench, run.sandbox_id, run.repository_url)


async def release(bench: Bench, sandbox_id: str, repository_url: str) -> None:
    """Remove what is left of a run's sandbox and give its place back. Idempotent."""
    await bench.sandboxes.remove(sandbox_id, bench.settings.checks.sandbox, reason=ENDED)
    sandboxed.word_file(bench, sandbox_id).unlink(missing_ok=True)
    await bench.repositories.unpin(repository_url, sandbox_id)
    await bench.sandboxes.move(sandbox_id, SandboxState.TERMINATED, reason=ENDED)


async def _found_out(bench: Bench, run: CheckRun, item: Mapping[str, Any]) -> Finding:
    """The finding; what cannot be judged is an error with the problem's own words."""
    for pause in (*PAUSES, None):
        try:
            place = await reading.at_hand(bench.repositories, run.repository_url, run.base_commit, run.commit)
            touched = await reading.touched(place, run.base_commit, run.commit)
            called = await reading.called(place, run.base_commit, item.get("line") or "")
            return await _judged(Case(bench, run, place, touched, called), item)
        except AWAY:  # the run is dropped, and taken up again when the database is back
            raise
        except (Problem, OSError) as error:
            why = f"{error.code}: {error.message} {error.hint}" if isinstance(error, Problem) else f"this host: {error}"
            logger.warning("check_failed", run_id=run.run_id, number=item["number"], reason=why)
            if pause is None or not isinstance(error, Unavailable | OSError):
                return Finding(Verdict.ERROR, why.strip()[:2000])
            await asyncio.sleep(pause)
    raise AssertionError


async def _judged(case: Case, item: Mapping[str, Any]) -> Finding:
    check, run = item["check"], case.run
    refused = _refusal(case, item)
    if refused and not await _waived(case, item):
        return Finding(Verdict.FAILED, refused)
    if check["kind"] == "file":
        return await reading.file_condition(case.place, run.commit, check)
    if check["kind"] == "review":
        return Finding(Verdict.ERROR, "this is for somebody to look at")
    if item["line"] is None:
        return Finding(Verdict.ERROR, "the project has no test_command to run a named test with")
    test = rules.test_file(check["name"]) if check["kind"] == "test" else None
    if test and not await reading.has_file(case.place, run.commit, test):
        return Finding(Verdict.FAILED, f"the commit has no {test}")
    timeout = check.get("timeout_seconds") or case.bench.settings.checks.timeout_seconds
    finding, text = await sandboxed.run_line(case.bench, run, item, timeout)
    if finding.verdict == Verdict.PASSED and (why := rules.ran_none(item["line"], text)):
        return Finding(Verdict.FAILED, why, finding.output, finding.output_sha256, finding.took_ms)
    return finding


def _refusal(case: Case, item: Mapping[str, Any]) -> str:
    """Why nothing that this commit can show would prove anything; empty when it may. What was merged has been looked at before."""
    check, run = item["check"], case.run
    if run.purpose != "criteria":
        return ""
    if not case.touched:
        return f"the commit changes nothing since {run.base_commit[:12]}"
    if check["kind"] not in {"command", "test"}:
        return ""
    bad = rules.tampered(case.touched, check.get("protects"), item["line"] or "", case.called)
    if not bad:
        return ""
    shown = ", ".join(bad[:10]) + (f" and {len(bad) - 10} more" if len(bad) > 10 else "")
    return f"what it is checked by was touched: {shown}; a person may look at this commit and say otherwise"


async def _waived(case: Case, item: Mapping[str, Any]) -> bool:
    if not item.get("criterion_id"):
        return False
    async with case.bench.database.reading() as session:
        return await queries.waived(session, item["criterion_id"], case.run.commit, item["check_hash"])
