"""Hostile text at the HTTP door of repositories and changes is refused as malformed, on both databases."""

import json

import httpx
import pytest

BROKEN = ["%00", "a%00b", "%ED%A0%80", "%0a", "..%2f", "%2500"]


@pytest.mark.parametrize("text", BROKEN)
async def test_broken_text_in_the_id_of_a_work_order_is_malformed(client: httpx.AsyncClient, text: str) -> None:
    assert (await client.get(f"/changes?work_order_id={text}")).status_code == 422


@pytest.mark.parametrize("text", ["%00", "/a%00b", "/a%0ab", "https://h/a%2500b", "file:///a%2500b"])
async def test_broken_text_in_the_address_of_a_repository_is_malformed(client: httpx.AsyncClient, text: str) -> None:
    assert (await client.get(f"/changes?repository={text}")).status_code == 422


@pytest.mark.parametrize("query", ["state=%00", "limit=%00", "offset=%00", "offset=99999999999999999999"])
async def test_broken_text_in_other_parameters_is_malformed(client: httpx.AsyncClient, query: str) -> None:
    assert (await client.get(f"/changes?{query}")).status_code == 422


@pytest.mark.parametrize("text", ["%00", "chg%00x", "%ED%A0%80", "a%0ab", "x" * 41])
@pytest.mark.parametrize(("method", "after"), [("GET", ""), ("GET", "/diff"), ("POST", "/merge"), ("POST", "/close")])
async def test_broken_text_in_the_id_of_a_change_is_malformed(
    client: httpx.AsyncClient, method: str, after: str, text: str
) -> None:
    assert (await client.request(method, f"/changes/{text}{after}")).status_code == 422


@pytest.mark.parametrize(
    "body", [{"expected_head": "\0"}, {"expected_head": "\ud800"}, {"\0": 1}, {"\ud800": 1}, "\ud800"]
)
async def test_broken_text_in_a_merge_is_malformed(client: httpx.AsyncClient, body: object) -> None:
    said = json.dumps(body).encode()
    answer = await client.post("/changes/chg-x/merge", content=said, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422


@pytest.mark.parametrize("url", ["\ud800", "/srv/\ud800", "https://h/\ud800"])
async def test_a_broken_character_in_an_address_to_verify_is_malformed(client: httpx.AsyncClient, url: str) -> None:
    said = json.dumps({"repository_url": url}).encode()
    answer = await client.post("/github/verify-repository", content=said, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422


@pytest.mark.parametrize("url", ["\0", "/srv/a\0b", "https://h/a%00b", "file:///a%00b", "/" + "a" * 300, "/a" * 900])
async def test_an_address_that_no_repository_has_is_told_in_the_body(client: httpx.AsyncClient, url: str) -> None:
    answer = await client.post("/github/verify-repository", json={"repository_url": url})
    assert (answer.status_code, answer.json()["verification_success"]) == (200, False)
    assert answer.json()["error_code"] in {"bad_repository_url", "local_repository_not_found"}
