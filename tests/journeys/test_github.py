"""A whole life on GitHub: an issue gets our label, becomes a draft pull request, is repaired, reviewed, merged. Real server, sandbox, git, HTTP."""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from shopfloor.forges.signals import signature
from tests.support.github_server import GitHubServer
from tests.support.hub_state import Repo, Token
from tests.support.platform import Platform, folder, git, platform, sample_repository, until

TOKEN, SECRET, NAME = "ghp_journey00000000000001", "hook-secret", "acme/demo"


@dataclass
class Town:
    """A Shopfloor and a GitHub that know each other."""

    house: Platform
    github: GitHubServer

    @property
    def repo(self) -> Repo:
        return self.github.repos[NAME]

    def send(self, event: str, action: str, **facts: Any) -> httpx.Response:
        """GitHub tells us something."""
        place = {"html_url": f"http://{self.github.host}/{NAME}", "full_name": NAME}
        body = json.dumps({"action": action, "repository": place, "sender": {"login": "maintainer"}, **facts}).encode()
        headers = {"X-GitHub-Event": event, "X-GitHub-Delivery": str(uuid.uuid4())}
        headers["X-Hub-Signature-256"] = f"sha256={signature(SECRET, body)}"
        return self.house.client.post("/api/v1/webhooks/github", content=body, headers=headers)

    def label(self, number: int) -> None:
        issue = {key: self.repo.issues[number][key] for key in ("number", "title", "body", "state", "updated_at")}
        assert self.send("issues", "labeled", issue=issue, label={"name": "shopfloor"}).status_code == 202

    def pull(self) -> dict[str, Any]:
        """The one pull request, once it is there."""
        return until(lambda: next(iter(self.repo.pulls.values()), None), what="a pull request")

    def order(self) -> dict[str, Any]:
        found: list[dict[str, Any]] = self.house.get("/agent-work-orders")["agent_work_orders"]
        return found[0] if found else {}

    def completed(self, attempts: int) -> dict[str, Any]:
        """The order, once it has been completed by so many attempts."""

        def look() -> dict[str, Any] | None:
            order = self.order()
            if order.get("status") in {"failed", "cancelled"}:
                raise AssertionError(order["reason"])
            done = order.get("status") == "completed"
            return order if done and order["sandbox_identifier"].endswith(f"-{attempts}") else None

        return until(look, what=f"attempt {attempts} to complete")

    def head(self) -> str:
        return git("rev-parse", self.order()["git_branch_name"], cwd=self.repo.path)

    def fail_check(self) -> None:
        head = self.head()
        self.repo.checks[head] = [
            {"name": name, "status": "completed", "conclusion": "failure"} for name in ("ci", "lint")
        ]
        for name in ("ci", "lint"):  # however many fail on one commit, it is repaired once
            run = {"name": name, "conclusion": "failure", "head_sha": head}
            assert self.send("check_run", "completed", check_run=run).status_code == 202

    def said(self) -> list[str]:
        return [one["body"] for one in self.repo.comments.values()]


@pytest.fixture
def town(monkeypatch: pytest.MonkeyPatch) -> Iterator[Town]:
    monkeypatch.setenv("FORGE_WRITER", TOKEN)
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    with folder() as place:
        (place / "served").mkdir()
        server = GitHubServer(place / "served")
        server.start()
        server.add(NAME, sample_repository(place))
        server.tokens[TOKEN] = Token("shopfloor-bot", {NAME: "write"})
        forge = {"kind": "github", "api_url": f"http://{server.host}", "token_env": "FORGE_WRITER"}
        forge |= {"webhook_secret_env": "HOOK_SECRET", "workflow_type": "build"}
        script = {"build": [{"append": {"path": "work.txt", "content": "more\n"}}]}
        settings = {
            "forges": {f"http://{server.host}": forge},
            "origin_protocols": "http,file",
            "agents": {"script": {"options": {"script": script}}},
        }
        with platform(**settings) as house:
            yield Town(house, server)
        server.close()


def test_an_issues_label_becomes_a_pull_request_that_is_repaired_reviewed_and_merged(town: Town) -> None:
    number = town.github.add_issue(town.repo, title="Please greet")
    town.label(number)
    pull = town.pull()
    first = town.completed(1)
    assert pull["draft"]
    assert f"Closes #{number}" in pull["body"]
    assert f"<!-- shopfloor:order={first['agent_work_order_id']} -->" in pull["body"]
    assert first["github_pull_request_url"] == pull["html_url"]

    for attempt in (2, 3):
        town.fail_check()
        town.completed(attempt)
    town.fail_check()
    until(lambda: any("A person has to look" in text for text in town.said()), what="us to give up repairing")

    thread = {"id": 31, "body": "A comma is missing.", "path": "work.txt", "line": 1, "pull_request_review_id": 9}
    town.repo.threads[pull["number"]] = [thread]
    review = {"id": 9, "state": "changes_requested", "body": "Greet politely."}
    told = {"number": pull["number"], "head": {"ref": first["git_branch_name"], "sha": town.head()}}
    town.send("pull_request_review", "submitted", review=review, pull_request=told)
    town.completed(4)
    assert git("show", f"{first['git_branch_name']}:work.txt", cwd=town.repo.path) == "more\n" * 3 + "more"
    assert len(town.repo.pulls) == 1
    answers = until(lambda: town.repo.threads[pull["number"]][1:], what="the thread to be answered")
    assert [(one["in_reply_to_id"], one["body"].partition(".")[0]) for one in answers] == [
        (31, f"Done in {town.head()}")
    ]

    progress = [text for text in town.said() if "shopfloor:progress=" in text]
    until(lambda: any("is completed" in text for text in town.said()), what="the progress to be told")
    assert len(progress) == 1

    town.github.merged(town.repo, town.github.seen(town.repo, pull))
    town.send("pull_request", "closed", pull_request=told | {"merged": True, "closed_at": "2026-11-21T13:00:00Z"})
    change = first["change_id"]
    until(lambda: town.house.get(f"/changes/{change}")["state"] == "merged", what="the change to be merged")
    until(lambda: first["git_branch_name"] not in git("branch", cwd=town.repo.path), what="the branch to go")


def test_a_label_told_twice_and_a_kill_make_one_order(town: Town) -> None:
    number = town.github.add_issue(town.repo)
    town.label(number)
    town.house.kill()
    town.house.start()
    town.label(number)
    town.completed(1)
    assert town.house.get("/agent-work-orders")["total_count"] == 1
    assert len(town.repo.pulls) == 1


def test_no_token_is_in_any_file_or_log_of_the_platform(town: Town) -> None:
    town.label(town.github.add_issue(town.repo))
    town.completed(1)
    written = [path for path in town.house.folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert town.house.log in written
    assert not [path for path in written if TOKEN.encode() in path.read_bytes()]


def test_a_pull_request_that_cannot_be_opened_leaves_the_branch_and_asks_for_a_person(town: Town) -> None:
    """A failed pull request marks the order, loses nothing, and a retry offers the same branch."""
    body = {
        "repository_url": f"http://{town.github.host}/{NAME}",
        "agent": "script",
        "workflow_type": "build",
        "initial_prompt": "Please",
        "agent_options": {"script": [{"append": {"path": "work.txt", "content": "work\n"}}]},
    }
    town.github.broken["POST"] = [422]
    order_id = town.house.post("/agent-work-orders", body, expect=201)["agent_work_order"]["agent_work_order_id"]
    order = town.house.finished(order_id)
    assert (order["status"], order["reason"].startswith("needs_review: ")) == ("failed", True), order["reason"]
    head = town.repo.tip(order["git_branch_name"])
    assert head is not None
    assert head[:12] in order["reason"]
    town.house.post(f"/agent-work-orders/{order_id}/retry", {"prompt": "Once more."})
    order = town.house.finished(order_id)
    assert order["status"] == "completed", order["reason"]
    assert [p["head"]["ref"] for p in town.repo.pulls.values() if p["number"]][-1] == order["git_branch_name"]
