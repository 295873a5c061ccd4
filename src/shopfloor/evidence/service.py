"""Criteria, runs of checks and the ledger. Sole writer of their tables."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from shopfloor.events import log as events
from shopfloor.events.catalog.evidence import CheckRunChanged, CriteriaChanged, EvidenceRecorded
from shopfloor.evidence import queries, rules
from shopfloor.evidence.models import OPEN_ONLY, CheckRun, Criterion, Evidence
from shopfloor.evidence.queries import Finding
from shopfloor.evidence.rules import RUN, RunState, Stand, Verdict
from shopfloor.kit import ids, log
from shopfloor.kit.db import Session, db_time
from shopfloor.kit.errors import Conflict, Forbidden, Malformed
from shopfloor.projects.models import Project
from shopfloor.sandboxes.service import Sandboxes

logger = log.get(__name__)

MOST_TEXT = 4000
UNCHANGED: Any = object()


class TooManyCriteria(Conflict):
    """The subject has as many criteria as one may have."""

    hint = "Retire some, or say several things in one."


class BadCriterion(Malformed):
    """That is not a criterion."""


class CriterionRetired(Conflict):
    """The criterion was taken back."""

    hint = "Add it again."


class NotYoursToSay(Forbidden):
    """This criterion is not proven by word."""

    hint = "A person may judge any criterion; an agent only one whose check is a review by an agent."


async def add_criteria(session: Session, subject_id: str, items: Sequence[Mapping[str, Any]]) -> list[Criterion]:
    """Let these hold before the subject is done: each `{text, check?}`. Raises BadCriterion, BadCheck, TooManyCriteria."""
    known = await queries.criteria(session, subject_id)
    if len(known) + len(items) > rules.MOST_CRITERIA:
        raise TooManyCriteria(f"a subject has at most {rules.MOST_CRITERIA} criteria")
    position = max((one.position for one in known), default=-1) + 1
    made = []
    for number, item in enumerate(items):
        row = Criterion(criterion_id=ids.new("crit", 12), subject_id=subject_id, position=position + number)
        _say(row, str(item.get("text", "")), item.get("check"))
        made.append(row)
    session.add_all(made)
    await session.flush()
    for one in made:
        await _tell(session, one, "added")
    return made


async def change_criterion(
    session: Session, criterion_id: str, *, text: str | None = None, check: Any = UNCHANGED, position: int | None = None
) -> Criterion:
    """Say it otherwise; `check=None`: only a person can say. What was proven of another check is stale from now on."""
    row = await queries.criterion(session, criterion_id, locked=True)
    if row.retired_at is not None:
        raise CriterionRetired(f"{criterion_id} was taken back")
    _say(row, row.text if text is None else text, row.check if check is UNCHANGED else check)
    row.position = row.position if position is None else position
    await session.flush()
    await _tell(session, row, "changed")
    return row


async def retire(session: Session, criterion_id: str) -> Criterion:
    """Let it no longer count. Idempotent; what was proven of it stays."""
    row = await queries.criterion(session, criterion_id, locked=True)
    if row.retired_at is None:
        row.retired_at = cast("Any", db_time())
        await session.flush()
        await _tell(session, row, "retired")
    return row


def _say(row: Criterion, text: str, check: Any) -> None:
    if not (text := text.strip()) or len(text) > MOST_TEXT:
        raise BadCriterion(f"a criterion has 1 to {MOST_TEXT} letters")
    row.text, row.check = text, rules.stored(rules.check_of(check)) if check else None
    row.check_hash = rules.check_hash(row.check, text)


async def _tell(session: Session, row: Criterion, what: str) -> None:
    fact = CriteriaChanged(
        ticket_id=row.subject_id,
        criterion_id=row.criterion_id,
        what=what,
        check_hash=rules.check_hash(row.check, row.text),
    )
    await events.append(session, fact)


async def request_run(
    session: Session,
    *,
    subject_id: str,
    purpose: str,
    project: Project,
    base_commit: str,
    commit: str,
    checks: Sequence[Mapping[str, Any]] | None = None,
    again: bool = False,
    host_id: str | None = None,
) -> CheckRun | None:
    """Have checks run on a commit; the open run of the same subject, purpose and commit is answered as it is.

    `checks` are `{criterion_id?, check}`. None: all criteria that a run can judge and that have no finding on this commit (`again`: whether or
    not they have one). `host_id`: the only host that has the commit. Answers None when there is nothing to run.
    """
    if (found := await queries.open_run(session, subject_id, purpose, commit)) is not None:
        return found
    wanted = await _due(session, subject_id, commit, again=again) if checks is None else list(checks)
    if not wanted:  # or whoever asked at this moment has it looked for
        return await queries.open_run(session, subject_id, purpose, commit)
    row = _row(project, wanted, subject_id=subject_id, purpose=purpose, base_commit=base_commit, commit=commit)
    row["host_id"] = host_id
    if not await _insert_once(session, row):  # another asked for the same at this moment
        return await queries.open_run(session, subject_id, purpose, commit)
    run = await queries.run(session, str(row["run_id"]))
    await _tell_run(session, run, before="", after=RunState.QUEUED)
    return run


def _row(project: Project, wanted: Sequence[Mapping[str, Any]], **columns: str) -> dict[str, Any]:
    return {
        **columns,
        "run_id": ids.new("check", 12),
        "project_id": project.project_id,
        "repository_url": project.repository_url,
        "checks": [_planned(number, one, project) for number, one in enumerate(wanted)],
        "state": RunState.QUEUED,
        "reason": "",
        "results": [],
        "attempts": 0,
    }


async def _due(session: Session, subject_id: str, commit: str, *, again: bool) -> list[dict[str, Any]]:
    standings = (await queries.standings(session, {subject_id: commit}))[subject_id]
    unknown = {Stand.MISSING, Stand.STALE}
    return [
        {"criterion_id": one.criterion.criterion_id, "check": one.criterion.check, "text": one.criterion.text}
        for one in standings
        if rules.automatic(one.criterion.check) and (again or one.verdict in unknown)
    ]


def _planned(number: int, wanted: Mapping[str, Any], project: Project) -> dict[str, Any]:
    check = rules.stored(rules.check_of(wanted["check"]))
    made = {
        "number": number,
        "criterion_id": wanted.get("criterion_id"),
        "check": check,
        "check_hash": rules.check_hash(check, str(wanted.get("text", ""))),
    }
    if check["kind"] in {"command", "test"}:
        made["line"] = rules.shell_line(check, project.test_command)
        made["allow"] = list(project.allow or ()) if check.get("network") else None
    return made


async def _insert_once(session: Session, row: dict[str, Any]) -> bool:
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    where = OPEN_ONLY["sqlite_where"]
    statement = insert(CheckRun).values(row)
    statement = statement.on_conflict_do_nothing(index_elements=["subject_id", "purpose", "commit"], index_where=where)
    made = await session.execute(statement.returning(CheckRun.run_id))
    return made.first() is not None


async def claim(session: Session, sandboxes: Sandboxes, engine_id: str, *, sandbox_type: str) -> CheckRun | None:
    """Take the oldest queued run with a sandbox place; None when there is no run or no place."""
    await sandboxes.lock_places(session)
    if not await sandboxes.has_place(session, promised=True):
        return None
    oldest = (
        sa.select(CheckRun.run_id)
        .where(*queries.waiting(sandboxes.host_id))
        .order_by(CheckRun.created_at, CheckRun.run_id)
        .limit(1)
    )
    run = await session.scalar(
        sa.update(CheckRun)
        .where(CheckRun.run_id == oldest.scalar_subquery(), CheckRun.state == RunState.QUEUED)
        .values(
            state=RunState.RUNNING,
            engine_id=engine_id,
            attempts=CheckRun.attempts + 1,
            started_at=db_time(),
            sandbox_id=CheckRun.run_id + "-" + sa.cast(CheckRun.attempts + 1, sa.String),
        )
        .returning(CheckRun)
        .execution_options(populate_existing=True)
    )
    if run is None:
        return None
    assert run.sandbox_id
    # With an attempt: as one that nobody watches, it would be ended between two checks.
    columns = {"attempt_id": run.run_id, "fencing": run.attempts}
    await sandboxes.reserve(session, run.sandbox_id, sandbox_type, promised=True, **columns)
    await _tell_run(session, run, before=RunState.QUEUED, after=RunState.RUNNING)
    return run


async def give_back(session: Session, run_id: str, attempts: int, *, why: str) -> bool:
    """Queue a run again whose engine is gone, or end it when that happened too often; answers whether it was so."""
    run = await _fenced(session, run_id, attempts)
    if run is None:
        return False
    if run.attempts >= rules.MOST_ATTEMPTS:
        given_up = Finding(Verdict.ERROR, f"given up after {run.attempts} tries: {why}")
        for item in run.checks:
            if item["number"] not in queries.numbers_done(run):
                await _record(session, run, item, given_up)
        await _end(session, run, reason=given_up.reason)
        return True
    run.state, run.engine_id = RUN.step(RunState.RUNNING, RunState.QUEUED), None
    await session.flush()
    await _tell_run(session, run, before=RunState.RUNNING, after=RunState.QUEUED, reason=why)
    return True


async def _fenced(session: Session, run_id: str, attempts: int) -> CheckRun | None:
    """The run, locked, if it is still the caller's."""
    run = await queries.run(session, run_id, locked=True)
    return run if run.state == RunState.RUNNING and run.attempts == attempts else None


async def record_finding(
    session: Session, run_id: str, attempts: int, item: Mapping[str, Any], finding: Finding
) -> bool:
    """Write down what one check of a run found; False when the run is another's now. A check is written down once."""
    run = await _fenced(session, run_id, attempts)
    if run is not None and item["number"] not in queries.numbers_done(run):
        await _record(session, run, item, finding)
    return run is not None


async def _record(session: Session, run: CheckRun, item: Mapping[str, Any], finding: Finding) -> None:
    result = {
        "number": item["number"],
        "criterion_id": item.get("criterion_id"),
        "verdict": str(finding.verdict),
        "reason": finding.reason,
        "output_sha256": finding.output_sha256,
        "took_ms": finding.took_ms,
    }
    run.results = [*run.results, result]
    if item.get("criterion_id"):
        await record(
            session,
            criterion_id=str(item["criterion_id"]),
            commit=run.commit,
            check_hash=str(item["check_hash"]),
            finding=finding,
            said_by="check",
            run_id=run.run_id,
        )
    await session.flush()


async def end_run(session: Session, run_id: str, attempts: int) -> bool:
    """Close a run all of whose checks were found out about; False when it is another's now."""
    if (run := await _fenced(session, run_id, attempts)) is None:
        return False
    await _end(session, run, reason=_reasons(run))
    return True


async def _end(session: Session, run: CheckRun, *, reason: str) -> None:
    run.state = RUN.step(RunState.RUNNING, RunState.DONE)
    run.verdict = rules.overall(one["verdict"] for one in run.results)
    run.reason = reason[:2000]
    run.ended_at = cast("Any", db_time())
    await session.flush()
    await _tell_run(session, run, before=RunState.RUNNING, after=RunState.DONE, reason=run.reason)


def _reasons(run: CheckRun) -> str:
    said = [one["reason"] for one in run.results if one["verdict"] != Verdict.PASSED and one["reason"]]
    return "; ".join(dict.fromkeys(said))


async def record(
    session: Session,
    *,
    criterion_id: str,
    commit: str,
    check_hash: str,
    finding: Finding,
    said_by: str,
    run_id: str | None = None,
) -> Evidence:
    """Add a row to the ledger, with its fact."""
    criterion = await queries.criterion(session, criterion_id)
    row = Evidence(
        criterion_id=criterion_id,
        commit=commit,
        verdict=finding.verdict,
        reason=finding.reason,
        output=finding.output,
        output_sha256=finding.output_sha256,
        check_hash=check_hash,
        run_id=run_id,
        said_by=said_by,
        took_ms=finding.took_ms,
    )
    session.add(row)
    await session.flush()
    fact = EvidenceRecorded(
        ticket_id=criterion.subject_id,
        criterion_id=criterion_id,
        commit=commit,
        verdict=finding.verdict,
        said_by=said_by,
        reason=finding.reason,
        check_hash=check_hash,
    )
    await events.append(session, fact)
    logger.info(
        "evidence_recorded", criterion_id=criterion_id, commit=commit, verdict=str(finding.verdict), said_by=said_by
    )
    return row


async def record_review(
    session: Session, criterion_id: str, commit: str, verdict: str, said_by: str, reason: str
) -> Evidence:
    """Write down what a person (`person:NAME`) or an agent (`agent:WORK_ORDER`) says of a criterion. Raises NotYoursToSay."""
    row = await queries.criterion(session, criterion_id, locked=True)
    if row.retired_at is not None:
        raise CriterionRetired(f"{criterion_id} was taken back")
    if not rules.may_say(row.check, said_by):
        raise NotYoursToSay(f"{said_by} cannot say whether {criterion_id} holds")
    return await record(
        session,
        criterion_id=criterion_id,
        commit=commit,
        check_hash=row.check_hash,
        finding=Finding(Verdict(verdict), reason),
        said_by=said_by,
    )


async def _tell_run(session: Session, run: CheckRun, *, before: str, after: str, reason: str = "") -> None:
    fact = CheckRunChanged(
        run_id=run.run_id,
        subject_id=run.subject_id,
        purpose=run.purpose,
        commit=run.commit,
        before=before,
        after=after,
        verdict=run.verdict,
        reason=reason,
    )
    await events.append(session, fact)
    logger.info("check_run_state_changed", run_id=run.run_id, subject_id=run.subject_id, before=before, after=after)
