"""The HTTP door of evidence: criteria, what people say of them, runs of checks, the ledger. For people only."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import FileResponse, Response

from shopfloor.auth.guard import person
from shopfloor.evidence import queries, service
from shopfloor.evidence.models import Evidence
from shopfloor.evidence.rules import RunState, Stand
from shopfloor.evidence.schemas import (
    CheckRunList,
    CheckRunView,
    CriterionPatch,
    CriterionView,
    EvidenceList,
    EvidenceTable,
    EvidenceView,
    Review,
    StandingView,
)
from shopfloor.kit.blobs import BlobStore
from shopfloor.kit.db import Database
from shopfloor.kit.errors import NotFound

router = APIRouter(prefix="/api/v1", tags=["evidence"], dependencies=[Depends(person)])
Id = Annotated[str, Path(max_length=40, pattern=r"^[A-Za-z0-9._-]+$")]
Commit = Annotated[str | None, Query(pattern=r"^[0-9a-f]{40}([0-9a-f]{24})?$")]
Word = Annotated[str | None, Query(max_length=40, pattern=r"^[A-Za-z0-9._-]+$")]


class NoOutput(NotFound):
    """Nothing was printed there."""

    hint = "The run's results say which checks printed something: they have an output_sha256."


def database(request: Request) -> Database:
    """The app's database."""
    found: Database = request.app.state.database
    return found


Stored = Annotated[Database, Depends(database)]


@router.get("/criteria/{criterion_id}")
async def get_criterion(criterion_id: Id, store: Stored) -> CriterionView:
    """One criterion, retired or not."""
    async with store.reading() as session:
        return CriterionView.model_validate(await queries.criterion(session, criterion_id))


@router.patch("/criteria/{criterion_id}")
async def change_criterion(criterion_id: Id, body: CriterionPatch, store: Stored) -> CriterionView:
    """Say it otherwise. What was proven of another check, or of other words somebody judged, is stale from now on."""
    check = body.check if "check" in body.model_fields_set else service.UNCHANGED
    async with store.transaction() as session:
        row = await service.change_criterion(session, criterion_id, text=body.text, check=check, position=body.position)
        return CriterionView.model_validate(row)


@router.delete("/criteria/{criterion_id}")
async def retire_criterion(criterion_id: Id, store: Stored) -> CriterionView:
    """Let it no longer count; what was proven of it stays in the ledger."""
    async with store.transaction() as session:
        row = await service.retire(session, criterion_id)
        await session.refresh(row)
        return CriterionView.model_validate(row)


@router.post("/criteria/{criterion_id}/review", status_code=201)
async def review_criterion(criterion_id: Id, body: Review, store: Stored) -> EvidenceView:
    """Say, as a person, whether it holds at a commit. This also settles a commit whose check was touched."""
    async with store.transaction() as session:
        row = await service.record_review(
            session, criterion_id, body.commit, body.verdict, f"person:{body.by}", body.reason
        )
        await session.refresh(row)
        return _evidence(row)


@router.get("/criteria/{criterion_id}/evidence")
async def list_evidence(criterion_id: Id, store: Stored) -> EvidenceList:
    """All that was ever found of it."""
    async with store.reading() as session:
        await queries.criterion(session, criterion_id)
        return EvidenceList(evidence=[_evidence(row) for row in await queries.of_criterion(session, criterion_id)])


def _evidence(row: Evidence) -> EvidenceView:
    return EvidenceView(**{name: getattr(row, name) for name in EvidenceView.model_fields})


@router.get("/evidence/{subject_id}")
async def get_evidence(subject_id: Id, store: Stored, commit: Commit = None) -> EvidenceTable:
    """How every criterion of a ticket stands at a commit; without one, nothing is fresh."""
    async with store.reading() as session:
        found = (await queries.standings(session, {subject_id: commit}))[subject_id]
    return EvidenceTable(
        subject_id=subject_id,
        commit=commit,
        proven=bool(found) and all(one.verdict == Stand.PASSED for one in found),
        standings=[StandingView.model_validate(one) for one in found],
    )


@router.get("/check-runs")
async def list_check_runs(
    store: Stored,
    subject_id: Word = None,
    state: RunState | None = None,
    purpose: Word = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    offset: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
) -> CheckRunList:
    """Runs of checks, newest first."""
    async with store.reading() as session:
        rows, total = await queries.runs(
            session, subject_id=subject_id, state=state, purpose=purpose, limit=limit, offset=offset
        )
    found = [CheckRunView.model_validate(row) for row in rows]
    return CheckRunList(check_runs=found, total_count=total, has_more=offset + len(found) < total)


@router.get("/check-runs/{run_id}")
async def get_check_run(run_id: Id, store: Stored) -> CheckRunView:
    """One run, with what its checks found."""
    async with store.reading() as session:
        return CheckRunView.model_validate(await queries.run(session, run_id))


@router.get("/check-runs/{run_id}/output", response_class=Response)
async def get_output(
    run_id: Id, request: Request, store: Stored, number: Annotated[int, Query(ge=0, le=10_000)] = 0
) -> Response:
    """What a check of a run printed: the first MiB and the end. Hostile text, as plain text."""
    async with store.reading() as session:
        run = await queries.run(session, run_id)
    found = [one["output_sha256"] for one in run.results if one["number"] == number and one["output_sha256"]]
    if not found:
        raise NoOutput(f"check {number} of {run_id} printed nothing")
    blobs: BlobStore = request.app.state.tools.blobs
    headers = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox"}
    return FileResponse(blobs.path(found[0]), media_type="text/plain; charset=utf-8", headers=headers)
