"""Every endpoint that was asked for exists, is described, and answers to its own path (W25)."""

from collections.abc import Iterator

import pytest

from tests.support.platform import Platform, platform

ASKED = """
TKT-01 GET /tickets
TKT-02 POST /tickets
TKT-03 GET /tickets/{ticket_id}
TKT-04 POST /tickets/{ticket_id}/transition
TKT-05 POST /tickets/{ticket_id}/progress
TKT-06 POST /tickets/{ticket_id}/block
TKT-07 POST /tickets/{ticket_id}/unblock
TKT-08 POST /tickets/{ticket_id}/regress
TKT-09 GET /tickets/{ticket_id}/context
TKT-10 POST /tickets/{ticket_id}/update-context
TKT-11 POST /tickets/approve
TKT-12 POST /tickets/reject
TKT-13 POST /tickets/check-duplicates
TKT-14 POST /tickets/detect-blocking
TKT-15 GET /tickets/pending-review-count
TKT-16 GET /tickets/approval-status
TSK-01 GET /tasks
TSK-02 GET /tasks/{task_id}
TSK-03 GET /tasks/{task_id}/dependencies
TSK-04 POST /tasks/{task_id}/dependencies
TSK-05 PUT /tasks/{task_id}/dependencies
TSK-06 DELETE /tasks/{task_id}/dependencies/{depends_on}
TSK-07 POST /tasks/{task_id}/check-circular
TSK-08 POST /tasks/{task_id}/cancel
TSK-09 GET /tasks/{task_id}/timeout-status
TSK-10 POST /tasks/{task_id}/set-timeout
TSK-11 POST /tasks/{task_id}/generate-title
TSK-12 POST /tasks/{task_id}/register-conversation
TSK-13 GET /tasks/timed-out
TSK-14 GET /tasks/cancellable
TSK-15 POST /tasks/cleanup-timed-out
TSK-16 POST /tasks/generate-titles
RES-01 POST /sandbox/task/{task_id}/results
RES-01 POST /sandboxes/task/{task_id}/results
BRD-01 GET /board/view
BRD-02 POST /board/move
BRD-03 GET /board/column/{phase_id}
BRD-04 GET /board/stats
BRD-05 GET /board/wip-violations
BRD-06 POST /board/auto-transition/{ticket_id}
OTH-01 GET /projects
OTH-01 POST /projects
OTH-01 GET /projects/{project_id}
OTH-01 PATCH /projects/{project_id}
OTH-01 DELETE /projects/{project_id}
OTH-01 POST /github/verify-repository
OTH-01 GET /graph/dependency-graph/{kind}/{id}
OTH-01 GET /phases
OTH-01 GET /results/{task_id}
""".strip().splitlines()
STATIC = [
    "/tickets/pending-review-count",
    "/tasks/timed-out",
    "/tasks/cancellable",
    "/board/view",
    "/board/stats",
    "/board/wip-violations",
]


@pytest.fixture(scope="module")
def house() -> Iterator[Platform]:
    with platform() as running:
        yield running


@pytest.fixture(scope="module")
def described(house: Platform) -> set[str]:
    paths = house.client.get("/openapi.json").json()["paths"]
    return {f"{verb.upper()} {_shape(path)}" for path, verbs in paths.items() for verb in verbs}


def _shape(path: str) -> str:
    """A path with its variables unnamed."""
    parts = path.removeprefix("/api/v1").split("/")
    return "/".join("*" if part.startswith("{") else part for part in parts)


@pytest.mark.parametrize("asked", ASKED)
def test_what_was_asked_for_is_there(described: set[str], asked: str) -> None:
    """W27"""
    _, verb, path = asked.split()
    assert f"{verb} {_shape(path)}" in described


@pytest.mark.parametrize("path", STATIC)
def test_a_fixed_path_is_not_taken_for_an_id(house: Platform, path: str) -> None:
    """W25"""
    assert house.client.get(f"/api/v1{path}").status_code == 200


def test_approval_status_asks_for_its_ticket_and_is_not_one(house: Platform) -> None:
    """W25"""
    answer = house.client.get("/api/v1/tickets/approval-status")
    assert (answer.status_code, "ticket_id" in answer.text) == (422, True)
