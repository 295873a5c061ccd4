"""The people's door to evidence, and the whole platform killed over a run."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from shopfloor.evidence import service
from shopfloor.kit.db import Database
from shopfloor.projects import queries as projects
from tests.evidence.conftest import FILES, RIGHT, Code
from tests.support.platform import Platform, git, platform, sample_repository, until

UNIT = "python3 -m unittest tests.test_app"


@pytest.fixture(scope="module")
def house() -> Iterator[Platform]:
    with platform() as running:
        yield running


@pytest.fixture(scope="module")
def code(house: Platform) -> Code:
    origin = sample_repository(house.folder, FILES)
    house.post("/projects", {"name": "p", "repository_url": str(origin)}, expect=201)
    return Code(origin, git("rev-parse", "HEAD", cwd=origin))


class Ticket:
    """What the board will do: add criteria, ask for runs."""

    def __init__(self, house: Platform, code: Code, ticket_id: str) -> None:
        self.house, self.code, self.ticket_id = house, code, ticket_id

    def add(self, *checks: dict[str, Any] | None) -> list[str]:
        async def work(database: Database) -> list[str]:
            items = [{"text": f"number {number}", "check": check} for number, check in enumerate(checks)]
            async with database.transaction() as session:
                return [one.criterion_id for one in await service.add_criteria(session, self.ticket_id, items)]

        return self._run(work)

    def ask(self, commit: str) -> str:
        async def work(database: Database) -> str:
            async with database.transaction() as session:
                run = await service.request_run(
                    session,
                    subject_id=self.ticket_id,
                    purpose="criteria",
                    project=await projects.get(session, "p"),
                    base_commit=self.code.base,
                    commit=commit,
                )
            assert run
            return run.run_id

        return self._run(work)

    def _run[T](self, work: Callable[[Database], Awaitable[T]]) -> T:
        async def opened() -> T:
            database = Database(f"sqlite:///{self.house.data / 'shopfloor.db'}")
            try:
                return await work(database)
            finally:
                await database.close()

        return asyncio.run(opened())

    def done(self, run_id: str) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            run: dict[str, Any] = self.house.get(f"/check-runs/{run_id}")
            return run if run["state"] == "done" else None

        return until(look, what="the run to end")


def test_what_a_run_finds_is_told_with_its_output(house: Platform, code: Code) -> None:
    ticket = Ticket(house, code, "TKT-1")
    checked, judged = ticket.add({"kind": "command", "command": f"{UNIT}; echo said; exit 4"}, None)
    commit = code.commit(RIGHT)
    run = ticket.done(ticket.ask(commit))
    assert (run["verdict"], run["results"][0]["reason"]) == ("failed", "exit code 4")
    output = house.client.get(f"/api/v1/check-runs/{run['run_id']}/output", params={"number": 0})
    assert (output.text.endswith("said\n"), output.headers["content-type"]) == (True, "text/plain; charset=utf-8")
    table = house.get("/evidence/TKT-1", commit=commit)
    assert [(one["criterion"]["criterion_id"], one["verdict"]) for one in table["standings"]] == [
        (checked, "failed"),
        (judged, "missing"),
    ]
    assert table["proven"] is False
    (row,) = house.get(f"/criteria/{checked}/evidence")["evidence"]
    assert (row["said_by"], row["output"].endswith("said")) == ("check", True)
    assert house.get("/check-runs", subject_id="TKT-1", state="done")["total_count"] == 1


def test_a_person_judges_changes_and_retires(house: Platform, code: Code) -> None:
    (criterion,) = Ticket(house, code, "TKT-2").add(None)
    body = {"commit": code.base, "verdict": "passed", "reason": "looked at it", "by": "ann"}
    assert house.post(f"/criteria/{criterion}/review", body, expect=201)["said_by"] == "person:ann"
    assert house.get("/evidence/TKT-2", commit=code.base)["proven"] is True
    answer = house.client.patch(f"/api/v1/criteria/{criterion}", json={"check": {"kind": "file", "path": "app.py"}})
    assert (answer.status_code, answer.json()["check"]) == (200, {"kind": "file", "path": "app.py"})
    assert house.get("/evidence/TKT-2", commit=code.base)["standings"][0]["verdict"] == "stale"
    assert house.client.delete(f"/api/v1/criteria/{criterion}").json()["retired_at"]
    assert house.get("/evidence/TKT-2", commit=code.base) == {
        "subject_id": "TKT-2",
        "commit": code.base,
        "proven": False,
        "standings": [],
    }
    assert house.post(f"/criteria/{criterion}/review", body, expect=409)["code"] == "criterion_retired"


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/criteria/nope", None, 404),
        ("/criteria/nope/evidence", None, 404),
        ("/check-runs/nope", None, 404),
        ("/check-runs/nope/output", None, 404),
        ("/evidence/TKT-1?commit=xyz", None, 422),
        ("/criteria/nope/review", {"commit": "a" * 40, "verdict": "error", "reason": "x"}, 422),
        ("/criteria/nope/review", {"commit": "a" * 40, "verdict": "passed"}, 422),
    ],
)
def test_bad_input_is_answered_with_a_problem(house: Platform, path: str, body: Any, status: int) -> None:
    url = f"/api/v1{path}"
    answer = house.client.post(url, json=body) if body else house.client.get(url)
    document = answer.json()
    assert (answer.status_code, bool(document["code"]), bool(document["hint"])) == (status, True, True)


def test_a_sandbox_token_opens_nothing_of_it(house: Platform) -> None:
    """W30"""
    token = {"Authorization": f"Bearer sfs_{'x' * 43}"}
    body = {"commit": "a" * 40, "verdict": "passed", "reason": "I say so"}
    assert house.client.post("/api/v1/criteria/crit-1/review", json=body, headers=token).status_code == 403


def test_a_killed_platform_goes_on_with_its_run_and_keeps_nothing_of_it(house: Platform, code: Code) -> None:
    ticket = Ticket(house, code, "TKT-3")
    slow = {"kind": "command", "command": "touch left; sleep 4; echo done"}
    ticket.add({"kind": "command", "command": "true"}, slow)
    run_id = ticket.ask(code.commit(RIGHT))
    until(lambda: house.get(f"/check-runs/{run_id}")["results"], what="the first finding")
    house.kill()
    house.start()
    run = ticket.done(run_id)
    assert (run["verdict"], run["attempts"], len(run["results"])) == ("passed", 2, 2)
    until(lambda: house.get("/sandboxes/capacity")["running"] == 0 or None, what="its place to be free")
    assert house.get("/pins")["total_count"] == 0
    assert house.keepers() == []
