"""A Forgejo that runs: the same house as our GitHub, with Forgejo's accent. Its answers are judged by Forgejo's own document."""

from typing import Any

from tests.support.github_server import GitHubServer
from tests.support.hub_state import SPECS, WHEN, Refusal, Repo, Token

FORGEJO = SPECS / "forgejo-11-api-cut.json"
PERSON = {"id": 1, "login": "somebody", "email": "somebody@example.org"}


class ForgejoServer(GitHubServer):
    """Forgejo's API, as far as our client speaks it."""

    kind = "forgejo"

    def like(self, method: str, path: str, status: str, /, **ours: Any) -> Any:
        """Forgejo's document asks for next to nothing: our facts are the answer."""
        del method, status
        made: dict[str, Any] = {"id": 1, "user": dict(PERSON)}
        if path.endswith("/reviews"):
            return [made | ours]
        return made | {key: value for key, value in ours.items() if value is not None}

    def routes(self) -> dict[str, Any]:
        ours = super().routes()
        ours["POST " + "/pulls/(\\d+)/merge"] = self.merge_there
        ours["GET " + "/pulls/(\\d+)/reviews/(\\d+)/comments"] = self.review_comments
        del ours["PUT " + "/pulls/(\\d+)/merge"]
        return ours

    def review_comments(
        self, name: str, repo: Repo, who: Token, body: Any, query: Any, number: str, review: str
    ) -> tuple[int, Any]:
        mine = [one for one in repo.threads.get(int(number), []) if one["pull_request_review_id"] == int(review)]
        return 200, [{key: one[key] for key in ("id", "body", "path", "pull_request_review_id")} for one in mine]

    def new_pull(self, name: str, number: int, body: Any, who: Token) -> dict[str, Any]:
        ends = {
            end: {"label": body[end], "ref": body[end], "sha": "", "repo": {"full_name": name}}
            for end in ("head", "base")
        }
        facts = {"id": number, "number": number, "state": "open", "merged": False, "title": body["title"], **ends}
        user = PERSON | {"login": who.login}
        return facts | {
            "body": body.get("body", ""),
            "html_url": f"http://{self.host}/{name}/pulls/{number}",
            "user": user,
        }

    def seen(self, repo: Repo, pull: dict[str, Any]) -> dict[str, Any]:
        pull |= {"draft": pull["title"].startswith("WIP: ")}
        super().seen(repo, pull)
        for name in [name for name, value in pull.items() if value is None]:
            del pull[name]
        return pull

    def list_pulls(self, name: str, repo: Repo, who: Token, body: Any, query: dict[str, str]) -> tuple[int, Any]:
        found = [self.seen(repo, pull) for pull in reversed(repo.pulls.values())]
        return 200, [pull for pull in found if query.get("state", "open") in {"all", pull["state"]}]

    def edit_pull(self, name: str, repo: Repo, who: Token, body: Any, query: Any, number: str) -> tuple[int, Any]:
        return 201, super().edit_pull(name, repo, who, body, query, number)[1]

    def merge_there(self, name: str, repo: Repo, who: Token, body: Any, query: Any, number: str) -> tuple[int, Any]:
        pull = self._pull(repo, number)
        if pull["merged"] or pull["state"] != "open":
            raise Refusal(405, "The PR is already merged or closed")
        if pull["title"].startswith("WIP: "):
            raise Refusal(405, "Work in progress PRs cannot be merged")
        if repo.needs_review:
            raise Refusal(405, "Please try again later: not enough approvals")
        if body.get("head_commit_id") not in {None, "", pull["head"]["sha"]}:
            raise Refusal(409, "head out of date")
        self.merged(repo, pull, squash=body["Do"] == "squash")
        return 200, {}

    def add_issue(self, repo: Repo, **facts: Any) -> int:
        number = self.number()
        issue = {"id": number, "number": number, "title": "Broken", "body": "", "state": "open", "updated_at": WHEN}
        repo.issues[number] = issue | {"labels": [], "user": dict(PERSON)} | facts
        return number

    def statuses(self, name: str, repo: Repo, who: Token, body: Any, query: Any, sha: str) -> tuple[int, Any]:
        found = [
            {"id": 1, "context": one["name"], "status": "failure" if one["conclusion"] == "failure" else "success"}
            for one in repo.checks.get(sha, [])
        ]
        return 200, {"state": "pending", "sha": sha, "total_count": len(found), "statuses": found}
