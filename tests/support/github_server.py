"""A GitHub that runs: issues, comments, pull requests, merges and rights over HTTP, with real git behind it. Its answers are judged by GitHub's own document."""

import hashlib
import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.git_http import SERVICES, GitServer, Said
from tests.support.hub_state import GITHUB, WHEN, Refusal, Repo, Token, example
from tests.support.platform import git


class GitHubServer(GitServer):
    """One host: git below /OWNER/NAME, the API below /repos, /user, /app and /graphql."""

    prefix = ""
    kind = "github"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.repos: dict[str, Repo] = {}
        self.tokens: dict[str, Token] = {}
        self.writers: dict[str, str] = {"maintainer": "write"}
        """Login -> permission, for questions about people."""
        self.limited_until = 0.0
        self.broken: dict[str, list[int]] = {}
        """Method -> statuses to answer its next calls with; 0 drops the connection after the call took effect."""
        self.app_keys: dict[str, str] = {}
        """App id -> public key."""
        self.minted: list[dict[str, Any]] = []
        self.unpaged = False
        self._next = 100
        self._spec = json.loads(GITHUB.read_text())

    def add(self, full_name: str, bare: Path) -> Repo:
        """Serve a bare repository under a name."""
        place = self.root / full_name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(bare)
        self.repos[full_name] = Repo(bare)
        return self.repos[full_name]

    def path(self, asked: str) -> str:
        return re.sub(r"\.git(?=/)", "", asked, count=1)

    def right(self, token: str, path: str) -> str:
        name = self.path(path).strip("/").rpartition("/info/refs")[0] or self.path(path).strip("/").rpartition("/")[0]
        known = self.tokens.get(token)
        if known is None or known.expired:
            return "none"
        if known.api_only:
            return "ro"
        return {"read": "ro", "write": "rw", "admin": "rw"}.get(known.rights.get(name, ""), "none")

    def number(self) -> int:
        """Ids and numbers, never twice."""
        self._next += 1
        return self._next

    def other(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Said | None:
        parts = urlsplit(target)
        if parts.path.endswith(SERVICES):
            return None
        if parts.path.startswith("/website"):
            return Said(200, {"Content-Type": "text/html"}, b"<html>")
        low = {name.lower(): value for name, value in headers.items()}
        said = self._said(method, parts.path.removeprefix(self.prefix), parts.query, low, body)
        if self.broken.get(method, [1])[:1] == [0]:
            self.broken[method].pop(0)
            return Said(0)
        return said

    def _said(self, method: str, path: str, query: str, headers: dict[str, str], body: bytes) -> Said:
        try:
            if self.limited_until > time.time():
                limit = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(self.limited_until))}
                return self._json(403, {"message": "API rate limit exceeded"}, limit)
            if (broken := self.broken.get(method)) and broken[0]:
                raise Refusal(broken.pop(0), "Server Error")
            token = headers.get("authorization", "").partition(" ")[2]
            asked = {name: values[-1] for name, values in parse_qs(query).items()}
            status, answer = self.route(method, unquote(path), asked, json.loads(body or b"{}"), token)
        except Refusal as refusal:
            return self._json(refusal.status, refusal.body)
        etag = f'"{hashlib.sha256(json.dumps(answer).encode()).hexdigest()[:16]}"'
        if method == "GET" and headers.get("if-none-match") == etag:
            return Said(304, {"ETag": etag})
        return self._json(status, answer, {"ETag": etag})

    def _json(self, status: int, body: Any, headers: dict[str, str] | None = None) -> Said:
        data = b"" if status == 204 else json.dumps(body).encode()
        return Said(status, {"Content-Type": "application/json; charset=utf-8", **(headers or {})}, data)

    def like(self, method: str, path: str, status: str, /, **ours: Any) -> Any:
        """GitHub's own example of an answer, with our facts in it."""
        value = example(self._spec, method, path, status)
        return value | ours if isinstance(value, dict) else [value[0] | ours]

    def route(self, method: str, path: str, query: dict[str, str], body: Any, token: str) -> tuple[int, Any]:
        if path.startswith("/app") or path.endswith("/installation"):
            return self._app(method, path, body, token)
        known = self.tokens.get(token)
        if token and (known is None or known.expired):
            raise Refusal(401, "Bad credentials")
        if path == "/user" and known:
            if known.login.endswith("[bot]"):
                raise Refusal(403, "Resource not accessible by integration")
            return 200, self.like("get", "/user", "200", login=known.login)
        if path == "/graphql":
            return self._graphql(body)
        if not (found := re.fullmatch(r"/repos/([^/]+/[^/]+)(/.*)?", path)):
            raise Refusal(404, "Not Found")
        name, rest = found[1], found[2] or ""
        repo = self.repos.get(name)
        right = known.rights.get(name, "") if known else ""
        if repo is None or (repo.private and not right):
            raise Refusal(404, "Not Found")
        if repo.moved_to:
            raise Refusal(301, "Moved Permanently")
        if method != "GET" and repo.archived:
            raise Refusal(403, "Repository was archived so is read-only.")
        if method != "GET" and right not in {"write", "admin"}:
            raise Refusal(403, "Resource not accessible by personal access token")
        assert known
        return self.about(method, name, repo, rest, query, body, known)

    def _app(self, method: str, path: str, body: Any, token: str) -> tuple[int, Any]:
        import jwt

        app_id = str(jwt.decode(token, options={"verify_signature": False}).get("iss")) if token.count(".") == 2 else ""
        if app_id not in self.app_keys:
            raise Refusal(401, "A JSON web token could not be decoded")
        try:
            jwt.decode(token, self.app_keys[app_id], algorithms=["RS256"])
        except jwt.PyJWTError as error:
            raise Refusal(401, "A JSON web token could not be decoded") from error
        if path == "/app":
            return 200, self.like("get", "/app", "200", slug="shopfloor-test")
        if path.endswith("/installation"):
            if path.removeprefix("/repos/").removesuffix("/installation") not in self.repos:
                raise Refusal(404, "Not Found")
            return 200, self.like("get", "/repos/{owner}/{repo}/installation", "200", id=77)
        made = f"ghs_{self.number()}aaaaaaaaaaaaaaaa"
        self.minted.append(body)
        level = "write" if body["permissions"].get("contents") == "write" else "read"
        rights = {name: level for name in self.repos if name.partition("/")[2] in body["repositories"]}
        self.tokens[made] = Token("shopfloor-test[bot]", rights)
        path = "/app/installations/{installation_id}/access_tokens"
        return 201, self.like("post", path, "201", token=made, permissions=body["permissions"])

    def _graphql(self, body: Any) -> tuple[int, Any]:
        for repo in self.repos.values():
            for pull in repo.pulls.values():
                if pull["node_id"] == body["variables"]["id"]:
                    pull["draft"] = False
                    return 200, {"data": {"markPullRequestReadyForReview": {"pullRequest": {"isDraft": False}}}}
        return 200, {"errors": [{"message": "Could not resolve to a node"}]}

    def about(
        self, method: str, name: str, repo: Repo, rest: str, query: dict[str, str], body: Any, who: Token
    ) -> tuple[int, Any]:
        page = int(query.get("page", 1)), int(query.get("per_page", query.get("limit", 30)))
        for pattern, answer in self.routes().items():
            verb, _, path = pattern.partition(" ")
            if verb == method and (found := re.fullmatch(path, rest)):
                status, said = answer(name, repo, who, body, query, *found.groups())
                if isinstance(said, list) and method == "GET" and not self.unpaged:
                    said = said[(page[0] - 1) * page[1] : page[0] * page[1]]
                return status, said
        raise Refusal(404, "Not Found")

    def routes(self) -> dict[str, Any]:
        number, sha = r"(\d+)", r"([0-9a-f]{40})"
        return {
            "GET ": self.repository,
            "GET /pulls": self.list_pulls,
            "POST /pulls": self.make_pull,
            f"GET /pulls/{number}": self.get_pull,
            f"PATCH /pulls/{number}": self.edit_pull,
            f"PUT /pulls/{number}/merge": self.merge_pull,
            f"GET /pulls/{number}/reviews": self.list_reviews,
            f"GET /pulls/{number}/comments": self.list_threads,
            f"POST /pulls/{number}/comments/{number}/replies": self.reply,
            "GET /issues": self.list_issues,
            "GET /issues/comments": self.all_comments,
            f"GET /issues/{number}/(?:events|timeline)": self.history,
            f"GET /issues/{number}": self.get_issue,
            f"GET /issues/{number}/comments": self.list_comments,
            f"POST /issues/{number}/comments": self.make_comment,
            f"PATCH /issues/comments/{number}": self.edit_comment,
            f"GET /commits/{sha}/check-runs": self.check_runs,
            f"GET /commits/{sha}/status": self.statuses,
            "GET /collaborators/([^/]+)/permission": self.permission,
        }

    def repository(self, name: str, repo: Repo, who: Token, body: Any, query: Any) -> tuple[int, Any]:
        right = who.rights.get(name, "read")
        may = {"admin": right == "admin", "push": right in {"write", "admin"}, "pull": True}
        _, _, short = name.partition("/")
        facts = {
            "full_name": name,
            "name": short,
            "archived": repo.archived,
            "default_branch": "main",
            "permissions": may,
        }
        return 200, self.like("get", "/repos/{owner}/{repo}", "200", **facts)

    def make_pull(self, name: str, repo: Repo, who: Token, body: Any, query: Any) -> tuple[int, Any]:
        head, base = repo.tip(body["head"]), repo.tip(body["base"])
        if base is None or head is None:
            raise self.invalid("base" if base is None else "head", "invalid")
        mine = [p for p in repo.pulls.values() if p["head"]["ref"] == body["head"] and p["head"]["repo"]]
        if any(p["state"] == "open" for p in mine):
            raise self.invalid("", f"A pull request already exists for {name.partition('/')[0]}:{body['head']}.")
        if git("rev-list", "--count", f"{base}..{head}", cwd=repo.path) == "0":
            raise self.invalid("", f"No commits between {body['base']} and {body['head']}")
        number = self.number()
        repo.pulls[number] = pull = self.new_pull(name, number, body, who)
        return 201, self.seen(repo, pull)

    def invalid(self, where: str, why: str) -> Refusal:
        error = {"resource": "PullRequest", "field": where, "code": why if where else "custom"}
        if not where:
            error["message"] = why
        else:
            error["message"] = f"{where} is {why}"
        return Refusal(422, "Validation Failed", errors=[error])

    def new_pull(self, name: str, number: int, body: Any, who: Token) -> dict[str, Any]:
        pull: dict[str, Any] = self.like("get", "/repos/{owner}/{repo}/pulls/{pull_number}", "200")
        pull |= {"number": number, "id": number, "node_id": f"PR_{number}", "state": "open", "merged": False}
        pull |= {"title": body["title"], "body": body.get("body"), "draft": body.get("draft", False), "merged_at": None}
        pull |= {"html_url": f"http://{self.host}/{name}/pull/{number}", "merge_commit_sha": None, "closed_at": None}
        pull["user"]["login"], pull["requested_teams"] = who.login, []
        for end in ("head", "base"):
            pull[end]["ref"] = body[end]
            pull[end]["repo"]["full_name"] = name
        return pull

    def seen(self, repo: Repo, pull: dict[str, Any]) -> dict[str, Any]:
        """The pull request with where its ends stand now and whether it merges."""
        if pull["state"] == "open":
            for end in (pull[name] for name in ("head", "base") if pull[name]["repo"]):
                end["sha"] = repo.tip(end["ref"]) or end["sha"]
            pull["mergeable"] = self._tree(repo, pull) is not None
        return pull

    def _tree(self, repo: Repo, pull: dict[str, Any]) -> str | None:
        ends = [pull["base"]["sha"], pull["head"]["sha"]]
        done = subprocess.run(
            ["git", "merge-tree", "--write-tree", *ends], cwd=repo.path, capture_output=True, text=True, check=False
        )
        return done.stdout.splitlines()[0] if done.returncode == 0 else None

    def list_pulls(self, name: str, repo: Repo, who: Token, body: Any, query: dict[str, str]) -> tuple[int, Any]:
        state, head = query.get("state", "open"), query.get("head", "").partition(":")[2]
        found = [self.seen(repo, pull) for pull in reversed(repo.pulls.values())]
        wanted = [p for p in found if state in {"all", p["state"]} and head in {"", p["head"]["ref"]}]
        return 200, [{k: v for k, v in pull.items() if k not in {"merged", "mergeable"}} for pull in wanted]

    def _pull(self, repo: Repo, number: str) -> dict[str, Any]:
        if int(number) not in repo.pulls:
            raise Refusal(404, "Not Found")
        return self.seen(repo, repo.pulls[int(number)])

    def get_pull(self, name: str, repo: Repo, who: Token, body: Any, query: Any, number: str) -> tuple[int, Any]:
        return 200, self._pull(repo, number)

    def edit_pull(self, name: str, repo: Repo, who: Token, body: Any, query: Any, number: str) -> tuple[int, Any]:
        pull = self._pull(repo, number)
        pull |= {key: body[key] for key in ("title", "body", "state") if key in body}
        return 200, pull

    def merge_pull(self, name: str, repo: Repo, who: Token, body: Any, query: Any, number: str) -> tuple[int, Any]:
        pull = self._pull(repo, number)
        if pull["merged"] or pull["state"] != "open":
            raise Refusal(405, "Pull Request is not mergeable")
        if pull["draft"]:
            raise Refusal(405, "Pull Request is still a draft")
        if repo.needs_review:
            raise Refusal(405, "At least 1 approving review is required by reviewers with write access.")
        if body.get("sha") not in {None, pull["head"]["sha"]}:
            raise Refusal(409, "Head branch was modified. Review and try the merge again.")
        commit = self.merged(repo, pull, squash=body.get("merge_method") == "squash")
        path = "/repos/{owner}/{repo}/pulls/{pull_number}/merge"
        return 200, self.like("put", path, "200", sha=commit, merged=True)

    def merged(self, repo: Repo, pull: dict[str, Any], *, squash: bool = False) -> str:
        """Merge with real git, as the server does it."""
        if (tree := self._tree(repo, pull)) is None:
            raise Refusal(405, "Pull Request is not mergeable")
        ends = [pull["base"]["sha"], pull["head"]["sha"]]
        parents = [word for end in (ends[:1] if squash else ends) for word in ("-p", end)]
        message = f"{pull['title']} (#{pull['number']})"
        commit = git("commit-tree", tree, *parents, "-m", message, cwd=repo.path)
        git("update-ref", f"refs/heads/{pull['base']['ref']}", commit, pull["base"]["sha"], cwd=repo.path)
        pull |= {"merged": True, "state": "closed", "merged_at": WHEN, "closed_at": WHEN, "merge_commit_sha": commit}
        pull["mergeable"] = None
        return commit

    def list_reviews(self, name: str, repo: Repo, who: Token, body: Any, query: Any, number: str) -> tuple[int, Any]:
        path = "/repos/{owner}/{repo}/pulls/{pull_number}/reviews"
        return 200, [self.like("get", path, "200", **one)[0] for one in repo.reviews.get(int(number), [])]

    def list_threads(self, name: str, repo: Repo, who: Token, body: Any, query: Any, number: str) -> tuple[int, Any]:
        path = "/repos/{owner}/{repo}/pulls/{pull_number}/comments"
        return 200, [self.like("get", path, "200", **one)[0] for one in repo.threads.get(int(number), [])]

    def reply(
        self, name: str, repo: Repo, who: Token, body: Any, query: Any, number: str, thread: str
    ) -> tuple[int, Any]:
        facts = {"id": self.number(), "in_reply_to_id": int(thread), "body": body["body"], "user": {"login": who.login}}
        path = "/repos/{owner}/{repo}/pulls/{pull_number}/comments/{comment_id}/replies"
        made = self.like("post", path, "201")
        person = made["user"] | {"login": who.login}
        repo.threads.setdefault(int(number), []).append(facts | {"user": person, "pull_request_review_id": 0})
        return 201, made | facts | {"user": person}

    def add_issue(self, repo: Repo, **facts: Any) -> int:
        """Somebody writes an issue."""
        number = self.number()
        issue = {
            "number": number,
            "title": "Broken",
            "body": "It is broken.",
            "state": "open",
            "updated_at": WHEN,
            "labels": [],
        } | facts
        repo.issues[number] = self.like("get", "/repos/{owner}/{repo}/issues/{issue_number}", "200") | issue
        repo.issues[number].pop("pull_request", None)
        return number

    def list_issues(self, name: str, repo: Repo, who: Token, body: Any, query: dict[str, str]) -> tuple[int, Any]:
        label, since = query.get("labels"), query.get("since", "")
        found = [one for one in repo.issues.values() if one["state"] == query.get("state", "open")]
        return 200, [
            one
            for one in found
            if one["updated_at"] >= since and (not label or label in {x["name"] for x in one["labels"]})
        ]

    def get_issue(self, name: str, repo: Repo, who: Token, body: Any, query: Any, number: str) -> tuple[int, Any]:
        if int(number) not in repo.issues:
            raise Refusal(404, "Not Found")
        return 200, repo.issues[int(number)]

    def put_label(self, repo: Repo, number: int, label: str, by: str, at: str = WHEN) -> None:
        """Somebody puts a label on an issue; its history says so in GitHub's own words."""
        event: dict[str, Any] = self.like("get", "/repos/{owner}/{repo}/issues/{issue_number}/events", "200")[0]
        event |= {"event": "labeled", "label": {"name": label, "color": "ededed"}, "created_at": at}
        event["actor"] |= {"login": by}
        repo.history.setdefault(number, []).append(event)

    def list_comments(self, name: str, repo: Repo, who: Token, body: Any, query: Any, number: str) -> tuple[int, Any]:
        return 200, [one for one in repo.comments.values() if one["issue"] == int(number)]

    def all_comments(self, name: str, repo: Repo, who: Token, body: Any, query: Any) -> tuple[int, Any]:
        return 200, list(repo.comments.values())

    def history(self, name: str, repo: Repo, who: Token, body: Any, query: Any, number: str) -> tuple[int, Any]:
        return 200, repo.history.get(int(number), [])

    def make_comment(self, name: str, repo: Repo, who: Token, body: Any, query: Any, number: str) -> tuple[int, Any]:
        return 201, self.say(repo, int(number), who.login, body["body"])

    def say(self, repo: Repo, number: int, login: str, text: str) -> dict[str, Any]:
        """Somebody comments."""
        made: dict[str, Any] = self.like("post", "/repos/{owner}/{repo}/issues/{issue_number}/comments", "201")
        where = f"http://{self.host}/issues/{number}"
        made |= {"id": self.number(), "body": text, "issue": number, "issue_url": where}
        made["user"]["login"] = login
        repo.comments[made["id"]] = made
        return made

    def edit_comment(self, name: str, repo: Repo, who: Token, body: Any, query: Any, number: str) -> tuple[int, Any]:
        if (found := repo.comments.get(int(number))) is None:
            raise Refusal(404, "Not Found")
        found["body"] = body["body"]
        return 200, found

    def check_runs(self, name: str, repo: Repo, who: Token, body: Any, query: Any, sha: str) -> tuple[int, Any]:
        shown = self.like("get", "/repos/{owner}/{repo}/commits/{ref}/check-runs", "200")
        runs = [shown["check_runs"][0] | one for one in repo.checks.get(sha, [])]
        return 200, {"total_count": len(runs), "check_runs": runs}

    def statuses(self, name: str, repo: Repo, who: Token, body: Any, query: Any, sha: str) -> tuple[int, Any]:
        path = "/repos/{owner}/{repo}/commits/{ref}/status"
        return 200, self.like("get", path, "200", statuses=[], total_count=0, sha=sha, state="pending")

    def permission(self, name: str, repo: Repo, who: Token, body: Any, query: Any, login: str) -> tuple[int, Any]:
        if login not in self.writers:
            raise Refusal(404, f"{login} is not a user")
        path = "/repos/{owner}/{repo}/collaborators/{username}/permission"
        return 200, self.like("get", path, "200", permission=self.writers[login], role_name=self.writers[login])
