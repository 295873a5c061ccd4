"""A ticket's branch from its beginning to its merge (GIT-01…03), on a repository without a forge."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.platform import Platform, folder, git, platform, sample_repository


@pytest.fixture(scope="module")
def house() -> Iterator[Platform]:
    with platform() as running:
        yield running


@pytest.fixture
def origin() -> Iterator[Path]:
    with folder() as place:
        yield sample_repository(place)


class Work:
    """One ticket of one project."""

    def __init__(self, house: Platform, origin: Path, **settings: Any) -> None:
        self.house, self.origin = house, origin
        body = {"name": origin.parent.name, "repository_url": str(origin), **settings}
        self.project = house.post("/projects", body, expect=201)["project_id"]

    def __call__(self, verb: str, ticket: str = "TKT-7", expect: int = 200, **body: Any) -> Any:
        return self.house.post(f"/projects/{self.project}/tickets/{ticket}/{verb}", body, expect=expect)

    def commit(self, branch: str, name: str = "new.txt", content: str = "new\n") -> str:
        """Somebody works on a branch and pushes."""
        clone = self.origin.parent / f"clone-{name}-{branch.replace('/', '-')}"
        git("clone", "-q", "-b", branch, str(self.origin), str(clone), cwd=self.origin.parent)
        (clone / name).write_text(content)
        git("add", "-A", cwd=clone)
        git("commit", "-qm", f"write {name}", cwd=clone)
        git("push", "-q", "origin", branch, cwd=clone)
        return git("rev-parse", "HEAD", cwd=clone)


@pytest.fixture
def work(house: Platform, origin: Path) -> Work:
    return Work(house, origin)


def branches(origin: Path) -> list[str]:
    return git("branch", "--format=%(refname:short)", cwd=origin).splitlines()


def test_starting_makes_one_branch_at_the_base(work: Work, origin: Path) -> None:
    """GIT-01"""
    started = work("start", title="Mend the gate", kind="fix")
    assert started == {
        "branch": "fix-tkt-7",
        "base_branch": "main",
        "commit": git("rev-parse", "main", cwd=origin),
        "created": True,
    }
    assert work("start", title="Mend the gate", kind="fix")["created"] is False
    assert branches(origin) == ["fix-tkt-7", "main"]


def test_a_project_names_its_branches(house: Platform, origin: Path) -> None:
    work = Work(house, origin, branch_template="{type}/{number}-{slug}-{id}")
    started = work("start", title="Mend the gate, please, before it rains", issue=12)
    assert started["branch"] == "feat/12-mend-the-gate-please-tkt-7"


def test_finishing_offers_it_and_merging_ends_it(work: Work, origin: Path) -> None:
    """GIT-02, GIT-03"""
    branch = work("start")["branch"]
    head = work.commit(branch)
    offered = work("finish", branch=branch, title="Mend the gate")
    assert (offered["state"], offered["head_commit"]) == ("open", head)
    assert work("finish", branch=branch, title="Mend the gate")["change_id"] == offered["change_id"]
    merged = work("merge", expected_head=head)
    assert merged["state"] == "merged"
    assert git("show", "main:new.txt", cwd=origin) == "new"
    assert branches(origin) == ["main"]
    assert work("merge")["merge_commit"] == merged["merge_commit"]


def test_a_branch_that_was_there_by_that_name_of_a_folder_is_told(house: Platform, origin: Path) -> None:
    git("branch", "feat", "main", cwd=origin)
    refused = Work(house, origin, branch_template="{type}/{id}")("start", expect=409)
    assert (refused["code"], "'feat'" in refused["detail"]) == ("branch_in_the_way", True)


def test_a_branch_that_is_not_there_cannot_be_finished(work: Work) -> None:
    assert work("finish", branch="gone", title="x", expect=404)["code"] == "branch_not_found"


def test_a_branch_without_work_is_not_offered(work: Work) -> None:
    branch = work("start")["branch"]
    assert work("finish", branch=branch, title="x", expect=409)["code"] == "nothing_to_offer"


def test_a_ticket_without_a_change_is_not_merged(work: Work) -> None:
    assert work("merge", expect=404)["code"] == "nothing_to_merge"


def test_a_base_that_is_not_there_is_told(work: Work) -> None:
    assert work("start", base_branch="nowhere", expect=422)["code"] == "unknown_base"


def test_a_conflict_is_never_forced(work: Work, origin: Path) -> None:
    branch = work("start")["branch"]
    work.commit(branch, "app.py", "ours\n")
    work.commit("main", "app.py", "theirs\n")
    work("finish", branch=branch, title="x")
    assert work("merge", expect=409)["code"] == "not_mergeable"
    assert git("show", "main:app.py", cwd=origin) == "theirs"
    assert branch in branches(origin)


def test_a_head_that_was_not_looked_at_is_not_merged(work: Work, origin: Path) -> None:
    branch = work("start")["branch"]
    head = work.commit(branch)
    work("finish", branch=branch, title="x")
    assert work("merge", expected_head="0" * 40, expect=409)["code"] == "head_moved"
    work.commit(branch, "more.txt")
    assert work("merge", expected_head=head, expect=409)["code"] == "head_moved"
    assert git("log", "--oneline", "main", cwd=origin).count("\n") == 0


@pytest.mark.parametrize("ticket", ["-x", "a b", "x" * 41])
def test_a_ticket_id_that_could_be_something_else_is_refused(work: Work, ticket: str) -> None:
    assert work("start", ticket=ticket, expect=422)["code"] == "malformed"


def test_a_project_with_tickets_is_not_forgotten(house: Platform, work: Work) -> None:
    house.post("/tickets", {"project": work.project, "title": "Mend the gate"}, expect=201)
    answer = house.client.delete(f"/api/v1/projects/{work.project}")
    assert (answer.status_code, answer.json()["code"]) == (409, "project_in_use")
    assert house.get(f"/projects/{work.project}")["project_id"] == work.project
