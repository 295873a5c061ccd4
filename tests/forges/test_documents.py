"""That the forges' own documents really judge: a fake that answers nonsense, and a client that asks nonsense, are refused."""

from collections.abc import Iterator

import httpx
import pytest

from tests.support import prism
from tests.support.git_http import Said
from tests.support.github_server import GitHubServer
from tests.support.hub_state import GITHUB

SHA = "a" * 40
JUDGED = [
    ("GET", "", 200, None),
    ("GET", "/pulls", 200, None),
    ("POST", "/pulls", 201, {"title": "a", "head": "b", "base": "c"}),
    ("GET", "/pulls/1", 200, None),
    ("PATCH", "/pulls/1", 200, {"body": "x"}),
    ("PUT", "/pulls/1/merge", 200, {"sha": SHA}),
    ("GET", "/pulls/1/reviews", 200, None),
    ("GET", "/issues/1/comments", 200, None),
    ("POST", "/issues/1/comments", 201, {"body": "x"}),
    ("PATCH", "/issues/comments/1", 200, {"body": "x"}),
    ("GET", f"/commits/{SHA}/check-runs", 200, None),
    ("GET", f"/commits/{SHA}/status", 200, None),
    ("GET", "/collaborators/x/permission", 200, None),
    ("GET", "/issues", 200, None),
    ("GET", "/issues/1", 200, None),
    ("GET", "/issues/comments", 200, None),
    ("GET", "/issues/1/events", 200, None),
    ("GET", "/installation", 200, None),
]


class Nonsense(GitHubServer):
    """A server that says the same wrong thing to everybody."""

    status = 200

    def other(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Said | None:
        return self._json(
            self.status, [{"id": "x"}] if target.split("?", maxsplit=1)[0].endswith(("pulls", "s")) else {"id": "x"}
        )


@pytest.fixture(scope="module")
def nonsense(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Nonsense, str]]:
    folder = tmp_path_factory.mktemp("nonsense")
    server = Nonsense(folder)
    server.start()
    with prism.between(GITHUB, f"http://{server.host}", folder) as address:
        yield server, address
    server.close()


def ask(address: str, method: str, path: str, body: object) -> httpx.Response:
    headers = {"Authorization": "token t", "Accept": "application/vnd.github+json"}
    return httpx.request(method, f"{address}/repos/acme/demo{path}", headers=headers, json=body, timeout=30)


@pytest.mark.parametrize(("method", "path", "status", "body"), JUDGED, ids=[f"{one[0]} {one[1]}" for one in JUDGED])
def test_a_wrong_answer_is_refused(
    nonsense: tuple[Nonsense, str], method: str, path: str, status: int, body: object
) -> None:
    nonsense[0].status = status
    assert ask(nonsense[1], method, path, body).status_code == 500


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/pulls", {"title": 1}),
        ("PUT", "/pulls/1/merge", {"merge_method": "force"}),
        ("POST", "/issues/1/comments", {}),
    ],
)
def test_a_wrong_request_is_refused(nonsense: tuple[Nonsense, str], method: str, path: str, body: object) -> None:
    assert ask(nonsense[1], method, path, body).status_code == 422


def test_a_call_that_github_does_not_have_is_refused(nonsense: tuple[Nonsense, str]) -> None:
    assert ask(nonsense[1], "GET", "/nothing-like-it", None).status_code == 404
