"""Whatever is thrown at the API, it answers with a document, never with a 5xx."""

from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from tests.support.platform import Platform

ENDLESS = {
    "/api/v1/events/stream",
    "/api/v1/sandboxes/{sandbox_id}/messages/next",
    "/api/v1/sandbox/{sandbox_id}/messages/next",
}
"""They wait for news by design; their parameters are tested where they live."""


@pytest.fixture(scope="module")
def api(house: Platform) -> Any:
    schema = schemathesis.openapi.from_url(f"{house.client.base_url}/openapi.json")
    return schema.exclude(path=list(ENDLESS))


def test_no_request_makes_the_server_fail(api: Any) -> None:
    """Every operation of the OpenAPI document, with whatever fits it and what does not."""
    probed = [_probe(found.ok()) for found in api.get_all_operations()]
    assert len(probed) > 30


def _probe(operation: Any) -> str:
    @settings(max_examples=12, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def probe(case: Any) -> None:
        answer = case.call(timeout=60)
        told = f"{case.method} {case.formatted_path}: {answer.status_code} {answer.text[:2000]}"
        assert answer.status_code < 500 or answer.status_code == 503, told
        if answer.status_code >= 400:
            document = answer.json()
            assert document["code"], told
            assert document["hint"], told
            assert document["status"] == answer.status_code, told

    probe()
    return str(operation.label)


@pytest.mark.parametrize(
    "path",
    [
        "/agent-work-orders/wo-nope",
        "/agent-work-orders/wo-nope/logs",
        "/agent-work-orders/wo-nope/git-progress",
        "/agent-work-orders/wo-nope/explain",
        "/sandboxes/nope",
        "/sandboxes/nope/task",
        "/sandboxes/nope/events",
        "/changes/chg-nope",
        "/nothing/here",
    ],
)
def test_an_unknown_id_is_404_with_code_and_hint(house: Platform, path: str) -> None:
    answer = house.client.get(f"/api/v1{path}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert {"code", "hint", "status", "title", "type"} <= answer.json().keys()


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"x"', b'{"repository_url": 1}', b'{"repository_url": "/x", "surprise": true}', b"\xff\xfe"],
)
def test_a_malformed_body_is_422_with_code_and_hint(house: Platform, body: bytes) -> None:
    answer = house.client.post("/api/v1/agent-work-orders", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["code"]
    assert answer.json()["hint"]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"workflow_type": "dance"}, "unknown_workflow"),
        ({"sandbox_type": "e2b"}, "unknown_adapter"),
        ({"sandbox_type": "moon"}, "unknown_adapter"),
        ({"sandbox_type": "git_branch"}, "isolation_needed"),
        ({"agent": "nobody"}, "unknown_profile"),
    ],
)
def test_a_wish_that_cannot_be_met_says_why_and_what_to_do(house: Platform, fields: dict[str, Any], code: str) -> None:
    answer = house.client.post("/api/v1/agent-work-orders", json={"repository_url": "/tmp/x", **fields})
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert answer.json()["hint"]


def test_a_page_of_another_site_cannot_use_the_api(house: Platform) -> None:
    """DNS rebinding and cross-site requests against a server without login."""
    answer = house.client.get("/api/v1/agent-work-orders", headers={"host": "evil.example"})
    assert answer.status_code == 403


def test_the_server_is_alive_and_ready(house: Platform) -> None:
    assert [httpx.get(f"{house.client.base_url}{path}").status_code for path in ("/healthz", "/readyz")] == [200, 200]
