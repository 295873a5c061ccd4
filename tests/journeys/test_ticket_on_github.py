"""A ticket's whole life on GitHub, held to GitHub's own document: its pull request is reviewed, repaired and merged, whatever is killed between."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.journeys.test_github import NAME, SECRET, TOKEN, Town
from tests.support import prism
from tests.support.github_server import GitHubServer
from tests.support.hub_state import GITHUB, Token
from tests.support.platform import folder, git, platform, sample_repository, until

CHECK = {"text": "there is work", "check": {"kind": "command", "command": "test -s work.txt"}}
THREAD = {"id": 31, "body": "A comma is missing.", "path": "work.txt", "line": 1, "pull_request_review_id": 9}


class Board(Town):
    """A town with a project whose tickets move by themselves."""

    ticket: str

    def begin(self) -> None:
        """Make the ticket."""
        url = f"http://{self.github.host}/{NAME}"
        body = {"name": "demo", "repository_url": url, "agent": "script", "autonomy": True}
        project = self.house.post("/projects", body, expect=201)["project_id"]
        wish = {"project": project, "title": "Work", "criteria": [CHECK]}
        self.ticket = self.house.post("/tickets", wish, expect=201)["ticket_id"]

    def offered(self, commits: int) -> dict[str, Any]:
        """The ticket, once it is done with so many commits, all of them offered."""

        def look() -> dict[str, Any] | None:
            mends = len(self.mends())  # first: a task is made in the transaction that sends its ticket back
            shown: dict[str, Any] = self.house.get(f"/tickets/{self.ticket}")
            assert not shown["is_blocked"], shown["blocked_reason"]
            if shown["status"] != "done" or mends + 1 != commits:
                return None
            assert self.work(shown) == "more\n" * (commits - 1) + "more"
            return shown if self.change(shown)["head_commit"] == shown["head_commit"] else None

        return until(look, what=f"commit {commits} to be offered")

    def work(self, ticket: dict[str, Any]) -> str:
        return git("show", f"{ticket['head_commit']}:work.txt", cwd=self.repo.path)

    def change(self, ticket: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = self.house.get(f"/changes/{ticket['change_id']}")
        return found

    def mends(self) -> list[dict[str, Any]]:
        found = self.house.get("/tasks", ticket=self.ticket, sort="created_at")["tasks"]
        return [task for task in found if task["title"].startswith("Mend: ")]

    def returns(self) -> list[tuple[str, str]]:
        moves = self.house.get(f"/tickets/{self.ticket}/history")["moves"]
        return [(one["how"], one["moved_by"]) for one in moves if one["before"] == "done"]

    def review(self, ticket: dict[str, Any]) -> dict[str, Any]:
        """Somebody reviews the pull request; answers how GitHub tells of it."""
        pull = next(iter(self.repo.pulls.values()))
        self.repo.threads[pull["number"]] = [dict(THREAD)]
        told = {"number": pull["number"], "head": {"ref": ticket["branch"], "sha": ticket["head_commit"]}}
        review = {"id": 9, "state": "changes_requested", "body": "Greet politely."}
        assert self.send("pull_request_review", "submitted", review=review, pull_request=told).status_code == 202
        return told

    def fail(self, ticket: dict[str, Any]) -> None:
        head = ticket["head_commit"]
        self.repo.checks[head] = [{"name": "ci", "status": "completed", "conclusion": "failure"}]
        run = {"name": "ci", "conclusion": "failure", "head_sha": head}
        assert self.send("check_run", "completed", check_run=run).status_code == 202

    def replies(self) -> list[tuple[int, str]]:
        (number,) = self.repo.pulls
        return [(one["in_reply_to_id"], one["body"].partition(".")[0]) for one in self.repo.threads[number][1:]]


@pytest.fixture
def town(monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    monkeypatch.setenv("FORGE_WRITER", TOKEN)
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    with folder() as place:
        (place / "served").mkdir()
        server = GitHubServer(place / "served")
        server.start()
        server.add(NAME, sample_repository(place))
        server.tokens[TOKEN] = Token("shopfloor-bot", {NAME: "write"})
        script = {"build": [{"append": {"path": "work.txt", "content": "more\n"}}]}
        with prism.between(GITHUB, f"http://{server.host}", place) as address:
            forge = {"kind": "github", "api_url": address, "token_env": "FORGE_WRITER"}
            settings = {
                "forges": {f"http://{server.host}": forge | {"webhook_secret_env": "HOOK_SECRET"}},
                "origin_protocols": "http,file",
                "agents": {"script": {"options": {"script": script}}},
            }
            with platform(**settings) as house:
                board = Board(house, server)
                board.begin()
                yield board
        server.close()


def test_a_tickets_pull_request_is_reviewed_repaired_twice_and_merged(town: Board) -> None:
    """One branch, one pull request: each round is one more commit there."""
    told = town.review(town.offered(1))
    second = town.offered(2)
    assert until(town.replies, what="the thread to be answered") == [(31, f"Done in {second['head_commit']}")]
    (mend,) = town.mends()
    assert "Greet politely." in mend["description"]
    assert "work.txt, line 1: A comma is missing." in mend["description"]

    for commits in (3, 4):
        town.fail(town.house.get(f"/tickets/{town.ticket}"))
        last = town.offered(commits)
    town.fail(last)
    until(lambda: any("A person has to look" in text for text in town.said()), what="us to give up repairing")
    assert town.returns() == [("regress", "person:maintainer"), ("failed", "forge"), ("failed", "forge")]

    (pull,) = town.repo.pulls.values()
    town.github.merged(town.repo, town.github.seen(town.repo, pull))
    town.send("pull_request", "closed", pull_request=told | {"merged": True, "closed_at": "2026-11-21T13:00:00Z"})
    until(lambda: town.house.get(f"/tickets/{town.ticket}")["merge_commit"], what="the ticket to be merged")
    until(lambda: last["branch"] not in git("branch", cwd=town.repo.path), what="the branch to go")
    assert git("show", "main:work.txt", cwd=town.repo.path) == "more\n" * 3 + "more"


def test_a_review_is_heeded_once_whatever_is_killed_between(town: Board) -> None:
    """No lost work: told, sent back, worked on, offered; a kill after each."""

    def again() -> None:
        town.house.kill()
        town.house.start()

    town.review(town.offered(1))
    again()
    until(lambda: town.returns() or None, what="the ticket to go back")
    again()
    until(lambda: town.mends() or None, what="the task")
    again()
    second = town.offered(2)
    again()
    assert until(town.replies, what="the thread to be answered") == [(31, f"Done in {second['head_commit']}")]
    again()
    assert town.offered(2)["head_commit"] == second["head_commit"]
    assert (town.returns(), len(town.replies())) == ([("regress", "person:maintainer")], 1)
