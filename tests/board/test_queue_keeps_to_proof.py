"""The merge queue merges what is proven on its head, and into what it was checked with; what only passes drops nothing."""

from typing import Any

import pytest
import sqlalchemy as sa

from shopfloor.board import merge_queries, merge_service, queries
from shopfloor.board.models import QueuedMerge, Ticket
from shopfloor.board.rules.merging import MergeState
from shopfloor.board.steps.integrate import integrate
from shopfloor.board.steps.merge_queue import advance, enqueue_ready
from shopfloor.evidence import queries as evidence
from shopfloor.evidence import service as checks
from shopfloor.evidence.rules import Verdict, check_hash
from shopfloor.forges.port import BranchMoved
from shopfloor.forges.service import Reviews
from shopfloor.forges.turns import ChangeBusy
from shopfloor.kit.db import db_time
from shopfloor.kit.errors import Problem, Unavailable
from shopfloor.projects.models import Project
from shopfloor.projects.steps import branches
from tests.board.desk import Desk
from tests.board.grounds import Ground
from tests.board.test_merge_queue import queued, served, states
from tests.board.test_mover import rest
from tests.board.test_returns import again_done, done

REVIEWED = [{"text": "It is polite", "check": {"kind": "review"}}]


async def judged(ground: Ground, verdict: str) -> None:
    """The ticket has a criterion, and somebody says how it stands on its head."""
    async with ground.database.transaction() as session:
        await checks.add_criteria(session, "tkt-1", REVIEWED)
        (one,) = await evidence.criteria(session, "tkt-1")
        await checks.record(
            session,
            criterion_id=one.criterion_id,
            commit=(await queries.get(session, "tkt-1")).head_commit or "",
            check_hash=check_hash(one.check, one.text),
            finding=evidence.Finding(Verdict(verdict), "because"),
            said_by="person:ann",
        )


@pytest.mark.parametrize(("verdict", "ends"), [("passed", "merged"), ("failed", "left")])
async def test_what_is_known_to_fail_is_not_merged(ground: Ground, verdict: str, ends: str) -> None:
    await queued(ground, "tkt-1", {"1.txt": "x\n"})
    await judged(ground, verdict)
    await served(ground)
    assert await states(ground) == {"tkt-1": ends}
    assert ("1.txt" in ground.files("main")) == (ends == "merged")


async def test_what_is_done_and_gets_one_more_criterion_goes_back_to_be_proven(desk: Desk) -> None:
    ticket = await done(desk)
    await desk.post(f"/tickets/{ticket}/criteria", REVIEWED, expect=201)
    refused = await desk.post(f"/projects/{desk.project_id}/merge-queue", {"ticket_id": ticket}, expect=409)
    assert "It is polite" in str(refused)
    await rest(desk, ticket)
    assert await desk.status(ticket) == "testing"
    move = next(one for one in (await desk.get(f"/tickets/{ticket}/history"))["moves"] if one["before"] == "done")
    assert (move["after"], move["how"], "It is polite" in move["reason"]) == ("building", "auto", True)
    await again_done(desk, ticket)


async def test_what_a_person_let_pass_unproven_stays_done_and_may_be_merged(desk: Desk) -> None:
    ticket = await desk.ticket(criteria=REVIEWED)
    await desk.to_testing(ticket)
    await desk.post(f"/tickets/{ticket}/progress", {"override": True, "reason": "I looked"})
    await desk.project(autonomy=True)
    await rest(desk, ticket)
    assert await desk.status(ticket) == "done"
    await desk.post(f"/projects/{desk.project_id}/merge-queue", {"ticket_id": ticket}, expect=202)


@pytest.mark.parametrize("problem", [Unavailable, ChangeBusy, BranchMoved])
@pytest.mark.parametrize("where", ["offer", "merge"])
async def test_what_only_passes_is_tried_again(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, where: str, problem: type[Problem]
) -> None:
    """A forge that is away, or another engine that is at it, says nothing of the work."""
    await ground.ticket("tkt-1", status="done")
    await integrate(ground.tools, "tkt-1", await ground.delivered())
    async with ground.database.transaction() as session:
        await merge_service.enqueue(session, await queries.locked(session, "tkt-1"))

    async def away(*args: object, **named: object) -> Any:
        raise problem("not now")

    with monkeypatch.context() as patch:
        place: tuple[object, str] = (Reviews, "open_change") if where == "offer" else (branches, "merge")
        patch.setattr(*place, away)
        await advance(ground.tools, "prj-1")
        with pytest.raises(problem):
            await advance(ground.tools, "prj-1")
    await served(ground)
    assert await states(ground) == {"tkt-1": "merged"}


async def test_what_left_the_queue_is_queued_again_once_it_is_done_anew(ground: Ground) -> None:
    await queued(ground, "tkt-1", {"1.txt": "x\n"})
    async with ground.database.transaction() as session:
        (await session.get_one(Project, "prj-1")).merge_queue = True
        await merge_service.leave(session, "tkt-1", "a test")
        await session.execute(sa.update(Ticket).values(done_at=db_time(-60)))
    assert await enqueue_ready(ground.tools) == 0
    async with ground.database.transaction() as session:
        await session.execute(sa.update(Ticket).values(done_at=db_time(60)))
    assert await enqueue_ready(ground.tools) == 1


async def test_what_is_being_merged_is_not_taken_out(desk: Desk) -> None:
    ticket = await done(desk)
    path = f"/projects/{desk.project_id}/merge-queue"
    await desk.post(path, {"ticket_id": ticket}, expect=202)
    async with desk.database.transaction() as session:
        row = await merge_queries.queued(session, ticket)
        assert row
        await merge_service.step_merge(session, row, MergeState.MERGING, "a test")
    assert (await desk.call("DELETE", f"{path}/{ticket}", expect=409))["code"] == "being_merged"


async def test_what_belongs_to_another_base_is_put_aside_and_told(ground: Ground) -> None:
    await queued(ground, "tkt-1", {"1.txt": "x\n"})
    await queued(ground, "tkt-2", {"2.txt": "x\n"})
    async with ground.database.transaction() as session:
        (await queries.locked(session, "tkt-1")).base_branch = "release"
    await served(ground)
    assert await states(ground) == {"tkt-1": "left", "tkt-2": "merged"}
    async with ground.database.reading() as session:
        row = (await session.scalars(sa.select(QueuedMerge).where(QueuedMerge.ticket_id == "tkt-1"))).one()
    assert "release" in row.reason
