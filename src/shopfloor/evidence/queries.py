"""Reads of criteria, runs and the ledger: how things stand at a commit, in a number of statements that does not grow."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from shopfloor.evidence import rules
from shopfloor.evidence.models import CheckRun, Criterion, Evidence
from shopfloor.evidence.rules import OPEN, RunState, Stand, Verdict
from shopfloor.kit.db import Session, db_time
from shopfloor.kit.engine import EngineRow
from shopfloor.kit.errors import NotFound
from shopfloor.projects.models import Project
from shopfloor.sandboxes.models import SandboxRow
from shopfloor.sandboxes.rules import LIVE

SILENT_SECONDS = 60.0
"""A host whose engines have said nothing for so long is not waited for."""


class CriterionNotFound(NotFound):
    """There is no such criterion."""

    hint = "GET /api/v1/tickets/{id}/criteria lists them."


class CheckRunNotFound(NotFound):
    """There is no such run of checks."""

    hint = "GET /api/v1/check-runs lists them."


@dataclass(frozen=True)
class Finding:
    """What a check, or somebody's look, found."""

    verdict: Verdict
    reason: str = ""
    output: str = ""
    """The end of what was printed."""
    output_sha256: str | None = None
    took_ms: int | None = None


@dataclass(frozen=True)
class Proof:
    """A row of the ledger without what was printed."""

    id: int
    criterion_id: str
    commit: str
    verdict: str
    reason: str
    check_hash: str
    said_by: str
    run_id: str | None
    output_sha256: str | None
    took_ms: int | None
    created_at: datetime


@dataclass(frozen=True)
class Standing:
    """How a criterion stands at a commit, and the finding that says so (of a stale one: the newest there is)."""

    criterion: Criterion
    verdict: Stand
    evidence: Proof | None


async def criterion(session: Session, criterion_id: str, *, locked: bool = False) -> Criterion:
    """The criterion; raises CriterionNotFound."""
    found = await session.get(Criterion, criterion_id, with_for_update=locked or None, populate_existing=locked)
    if found is None:
        raise CriterionNotFound(f"there is no criterion {criterion_id[:60]!r}")
    return found


async def criteria(session: Session, subject_id: str, *, retired: bool = False) -> Sequence[Criterion]:
    """The criteria of a subject in their order."""
    query = sa.select(Criterion).where(Criterion.subject_id == subject_id)
    if not retired:
        query = query.where(Criterion.retired_at.is_(None))
    return (await session.scalars(query.order_by(Criterion.position, Criterion.criterion_id))).all()


async def run(session: Session, run_id: str, *, locked: bool = False) -> CheckRun:
    """The run of checks; raises CheckRunNotFound."""
    found = await session.get(CheckRun, run_id, with_for_update=locked or None, populate_existing=locked)
    if found is None:
        raise CheckRunNotFound(f"there is no run {run_id[:60]!r}")
    return found


async def open_run(session: Session, subject_id: str, purpose: str, commit: str) -> CheckRun | None:
    """The run that is queued or running for this."""
    query = sa.select(CheckRun).where(
        CheckRun.subject_id == subject_id,
        CheckRun.purpose == purpose,
        CheckRun.commit == commit,
        CheckRun.state.in_(OPEN),
    )
    return await session.scalar(query)


async def runs(
    session: Session, *, subject_id: str | None, state: str | None, purpose: str | None, limit: int, offset: int
) -> tuple[Sequence[CheckRun], int]:
    """A page of runs, newest first, and how many there are in all."""
    query = sa.select(CheckRun)
    for column, value in ((CheckRun.subject_id, subject_id), (CheckRun.state, state), (CheckRun.purpose, purpose)):
        query = query.where(column == value) if value else query
    total = await session.scalar(sa.select(sa.func.count()).select_from(query.subquery()))
    page = query.order_by(CheckRun.created_at.desc(), CheckRun.run_id).limit(limit).offset(offset)
    return (await session.scalars(page)).all(), total or 0


def waiting(host_id: str) -> list[sa.ColumnElement[bool]]:
    """Runs that a host may take up. A commit that only one host has is checked there; when that host is silent, by whoever finds it missing."""
    alive = sa.exists().where(EngineRow.host_id == CheckRun.host_id, EngineRow.seen_at > db_time(-SILENT_SECONDS))
    anywhere = sa.or_(CheckRun.host_id.is_(None), CheckRun.host_id == host_id, ~alive)
    return [CheckRun.state == RunState.QUEUED, anywhere]


async def anything_queued(session: Session, host_id: str) -> bool:
    """Whether a run waits that this host may take up."""
    return await session.scalar(sa.select(CheckRun.run_id).where(*waiting(host_id)).limit(1)) is not None


async def orphans(session: Session, engine_id: str, *, silent_seconds: float | None) -> Sequence[CheckRun]:
    """Running runs of engines that are gone (silent for so long; None: every other one), and of this one, which knows those it drives."""
    mine = CheckRun.engine_id == engine_id
    gone: sa.ColumnElement[bool] = sa.true()
    if silent_seconds is not None:
        gone = ~sa.exists().where(EngineRow.id == CheckRun.engine_id, EngineRow.seen_at > db_time(-silent_seconds))
    query = sa.select(CheckRun).where(CheckRun.state == RunState.RUNNING, sa.or_(mine, gone))
    return (await session.scalars(query)).all()


async def abandoned(session: Session, host_id: str) -> list[tuple[str, str]]:
    """Sandboxes of runs on a host that hold a place though their run does not go on in them, with their repository's address."""
    query = (
        sa.select(SandboxRow.sandbox_id, CheckRun.repository_url)
        .join(CheckRun, CheckRun.run_id == SandboxRow.attempt_id)
        .where(
            SandboxRow.host_id == host_id,
            SandboxRow.state.in_(LIVE),
            sa.or_(CheckRun.state != RunState.RUNNING, CheckRun.sandbox_id != SandboxRow.sandbox_id),
        )
    )
    return [(row[0], row[1]) for row in await session.execute(query)]


def numbers_done(run: CheckRun) -> set[int]:
    """Which checks of a run were found out about."""
    return {int(one["number"]) for one in run.results}


async def waived(session: Session, criterion_id: str, commit: str, check_hash: str) -> bool:
    """Whether the newest word of a person on this very commit is that the criterion holds."""
    query = (
        sa.select(Evidence.verdict)
        .where(
            Evidence.criterion_id == criterion_id,
            Evidence.commit == commit,
            Evidence.check_hash == check_hash,
            Evidence.said_by.like("person:%"),
        )
        .order_by(Evidence.id.desc())
        .limit(1)
    )
    return await session.scalar(query) == Verdict.PASSED


async def standings(session: Session, subjects: Mapping[str, str | None]) -> dict[str, list[Standing]]:
    """How every criterion of each subject stands at the subject's commit. Four statements, however many there are."""
    found: dict[str, list[Standing]] = {subject_id: [] for subject_id in subjects}
    query = (
        sa.select(Criterion)
        .where(Criterion.subject_id.in_(list(subjects)), Criterion.retired_at.is_(None))
        .order_by(Criterion.subject_id, Criterion.position, Criterion.criterion_id)
    )
    rows = (await session.scalars(query)).all()
    if not rows:
        return found
    # The open runs first: a finding that is committed between two statements of PostgreSQL is then in one of them at least.
    running = await _running(session, subjects)
    proofs = await _newest(session, subjects)
    outdated = await _outdated(session, rows, proofs.values())
    for row in rows:
        commit = subjects[row.subject_id]
        here = proofs.get((row.criterion_id, commit)) if commit else None
        ever = here or proofs.get((row.criterion_id, None))
        stand = rules.stand(
            (here.verdict, here.check_hash) if here and here.id not in outdated else None,
            ever=ever is not None,
            wanted_hash=row.check_hash,
            running=(row.criterion_id, commit) in running,
        )
        found[row.subject_id].append(Standing(row, stand, ever))
    return found


_LEAN = [getattr(Evidence, name) for name in Proof.__dataclass_fields__]


async def _newest(session: Session, subjects: Mapping[str, str | None]) -> dict[tuple[str, str | None], Proof]:
    """By criterion and commit the newest finding on the commits asked for; with None in its place the newest on any."""
    of_subjects = sa.select(Criterion.criterion_id).where(
        Criterion.subject_id.in_(list(subjects)), Criterion.retired_at.is_(None)
    )
    mine = Evidence.criterion_id.in_(of_subjects)
    commits = [commit for commit in set(subjects.values()) if commit]
    newest = sa.select(sa.func.max(Evidence.id)).where(mine).group_by(Evidence.criterion_id)
    here = (
        sa.select(sa.func.max(Evidence.id))
        .where(mine, Evidence.commit.in_(commits))
        .group_by(Evidence.criterion_id, Evidence.commit)
    )
    query = sa.select(*_LEAN).where(Evidence.id.in_(newest.union(here))).order_by(Evidence.id)
    found: dict[tuple[str, str | None], Proof] = {}
    for row in await session.execute(query):
        proof = Proof(*row)
        found[proof.criterion_id, proof.commit] = proof
        found[proof.criterion_id, None] = proof
    return found


async def _outdated(session: Session, rows: Sequence[Criterion], proofs: Iterable[Proof]) -> set[int]:
    """Findings of named tests that ran by another test_command than their project has now: another line proves another thing."""
    tests = {row.criterion_id: row.check for row in rows if row.check and row.check["kind"] == "test"}
    found = [proof for proof in proofs if proof.criterion_id in tests and proof.run_id]
    if not found:
        return set()
    query = sa.select(CheckRun.run_id, CheckRun.checks, Project.test_command).join(
        Project, Project.project_id == CheckRun.project_id
    )
    lines = {}
    for run_id, checks, command in await session.execute(
        query.where(CheckRun.run_id.in_({one.run_id for one in found}))
    ):
        for item in checks:
            same = item["check"]["kind"] != "test" or item.get("line") == rules.shell_line(item["check"], command)
            lines[run_id, item["criterion_id"]] = same
    return {one.id for one in found if not lines.get((one.run_id, one.criterion_id), True)}


async def _running(session: Session, subjects: Mapping[str, str | None]) -> set[tuple[str, str]]:
    """Which criteria an open run will say something of, and on which commit."""
    query = sa.select(CheckRun.commit, CheckRun.checks, CheckRun.results).where(
        CheckRun.subject_id.in_(list(subjects)), CheckRun.state.in_(OPEN)
    )
    found: set[tuple[str, str]] = set()
    for commit, checks, results in await session.execute(query):
        done = {one["number"] for one in results}
        found |= {(one["criterion_id"], commit) for one in checks if one["criterion_id"] and one["number"] not in done}
    return found


async def of_criterion(session: Session, criterion_id: str) -> Sequence[Evidence]:
    """Everything ever found of one criterion, newest first."""
    query = sa.select(Evidence).where(Evidence.criterion_id == criterion_id).order_by(Evidence.id.desc())
    return (await session.scalars(query)).all()


async def proven(session: Session, subject_id: str, commit: str) -> bool:
    """Whether every criterion has fresh passing evidence on the commit. With no criteria at all: true, which proves nothing."""
    return all(one.verdict == Stand.PASSED for one in (await standings(session, {subject_id: commit}))[subject_id])


async def evidence_table(session: Session, subject_id: str, commit: str) -> list[tuple[str, str]]:
    """Criterion and how it stands at the commit, for the body of a change. Texts are as they were written: hostile."""
    rows: list[tuple[str, str]] = []
    for one in (await standings(session, {subject_id: commit}))[subject_id]:
        told = [str(one.verdict)]
        if one.evidence is not None and one.verdict in {Stand.PASSED, Stand.FAILED, Stand.ERROR}:
            told += [f"on {commit[:12]}", f"by {one.evidence.said_by}", one.evidence.reason[:200]]
        rows.append((one.criterion.text, ", ".join(filter(None, told))))
    return rows
