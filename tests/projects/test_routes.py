"""Projects over HTTP, and what they do to the work orders of their repository."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.platform import Platform, folder, platform, sample_repository


@pytest.fixture(scope="module")
def house() -> Iterator[Platform]:
    with platform() as running:
        yield running


@pytest.fixture
def origin() -> Iterator[Path]:
    with folder() as place:
        yield sample_repository(place)


@pytest.fixture
def place() -> Iterator[Path]:
    with folder() as made:
        yield made


@pytest.fixture
def project(house: Platform, origin: Path) -> Iterator[dict[str, Any]]:
    made = house.post("/projects", {"name": f"p-{origin.parent.name}", "repository_url": str(origin)}, expect=201)
    yield made
    house.client.delete(f"/api/v1/projects/{made['project_id']}")


def change(house: Platform, project: dict[str, Any], expect: int = 200, **fields: Any) -> Any:
    answer = house.client.patch(f"/api/v1/projects/{project['project_id']}", json=fields)
    assert answer.status_code == expect, answer.text
    return answer.json()


def test_a_project_is_found_by_its_id_and_by_its_name(house: Platform, project: dict[str, Any]) -> None:
    """OTH-01"""
    assert house.get(f"/projects/{project['project_id']}") == house.get(f"/projects/{project['name']}") == project
    assert project in house.get("/projects", limit=500)["projects"]


def test_a_repository_has_one_project(house: Platform, project: dict[str, Any]) -> None:
    refused = house.post("/projects", {"name": "other", "repository_url": project["repository_url"]}, expect=409)
    assert refused["code"] == "project_exists"


@pytest.fixture
def many(house: Platform, place: Path) -> Iterator[str]:
    """A word that three projects are found by."""
    word = place.name.lower()
    made = [
        house.post("/projects", {"name": f"{name}-{word.upper()}", "repository_url": f"/{word}/{name}"}, expect=201)
        for name in "bca"
    ]
    yield word
    for one in made:
        house.client.delete(f"/api/v1/projects/{one['project_id']}")


def names(page: dict[str, Any]) -> str:
    """Their first letters."""
    return "".join(one["name"][0] for one in page["projects"])


@pytest.mark.parametrize(("sort", "wanted"), [("name", "abc"), ("-name", "cba"), ("created_at", "bca")])
def test_projects_are_searched_and_sorted_in_pages(house: Platform, many: str, sort: str, wanted: str) -> None:
    first = house.get("/projects", q=many, sort=sort, limit=2)
    rest = house.get("/projects", q=many, sort=sort, limit=2, cursor=first["next_cursor"])
    assert names(first) + names(rest) == wanted
    assert [(page["total_count"], page["has_more"]) for page in (first, rest)] == [(3, True), (3, False)]


def test_projects_are_also_paged_by_offset(house: Platform, many: str) -> None:
    pages = [house.get("/projects", q=many, limit=2, offset=offset) for offset in (1, 2, 3)]
    assert [(names(page), page["has_more"]) for page in pages] == [("bc", False), ("c", False), ("", False)]


def test_a_change_keeps_what_it_does_not_name(house: Platform, project: dict[str, Any]) -> None:
    changed = change(house, project, budget_usd=5, allow=["PyPI.org:443"])
    assert (changed["budget_usd"], changed["allow"], changed["name"]) == (5, ["pypi.org:443"], project["name"])
    assert change(house, project, budget_usd=None)["budget_usd"] is None


WRONG: list[dict[str, Any]] = [
    {"allow": ["*:443"]},
    {"branch_template": "{slug}"},
    {"branch_template": "{id}~"},
    {"budget_usd": -1},
    {"agent": "nobody"},
    {"sandbox_type": "nowhere"},
    {"repository_url": "ftp://x"},
    {"name": None},
    {"colour": "red"},
]


@pytest.mark.parametrize("fields", WRONG, ids=[next(iter(w)) for w in WRONG])
def test_a_wrong_setting_is_refused_with_what_to_do(
    house: Platform, project: dict[str, Any], fields: dict[str, Any]
) -> None:
    refused = change(house, project, expect=422, **fields)
    assert refused["hint"]
    assert house.get(f"/projects/{project['project_id']}") == project


def test_a_project_that_is_not_there_is_not_found(house: Platform) -> None:
    assert house.client.delete("/api/v1/projects/none").json()["code"] == "project_not_found"


def test_orders_of_the_repository_take_the_projects_settings(
    house: Platform, project: dict[str, Any], origin: Path
) -> None:
    change(house, project, work_order_budget_usd=3, branch_template="{type}/{slug}-{id}")
    order_id = house.order(origin, [{"write": {"path": "a", "content": "a"}}], "Mend the gate, please")
    order = house.finished(order_id)
    assert order["git_branch_name"] == f"feat/mend-the-gate-please-{order_id}"
    assert (order["project_id"], order["budget_usd"]) == (project["project_id"], 3)


PROBE = 'curl -sS -m 20 --noproxy "" -x "$http_proxy" http://{target}/ > out.txt 2>&1; echo $? > code.txt'


def denied(house: Platform, origin: Path, target: str) -> list[tuple[str, str]]:
    """What the gate refused to an order that wanted to reach a target."""
    script = [{"run": {"command": PROBE.format(target=target)}}]
    order = house.finished(house.order(origin, script, workflow_type="build"))
    assert order["status"] == "completed", order["reason"]
    events = house.events(order["agent_work_order_id"])
    return [(e["target"], e["reason"]) for e in events if e["event"] == "egress.denied"]


def test_what_a_sandbox_may_not_reach_is_told_as_an_event(house: Platform, origin: Path) -> None:
    assert denied(house, origin, "metadata.internal") == [("metadata.internal:80", "it is not on the allow list")]


def test_a_project_may_allow_a_name_but_never_an_address_of_this_host(
    house: Platform, project: dict[str, Any], origin: Path
) -> None:
    """What a name resolves to is judged, not the name."""
    change(house, project, allow=["localhost:80"])
    reason = "the name leads to an address of this host or a private network"
    assert denied(house, origin, "localhost") == [("localhost:80", reason)]


def test_a_project_changes_nothing_of_the_orders_of_other_repositories(
    house: Platform, project: dict[str, Any], place: Path
) -> None:
    change(house, project, allow=["pypi.org:443"], work_order_budget_usd=3)
    order = house.show(house.order(sample_repository(place), []))
    assert (order["project_id"], order["budget_usd"]) == (None, None)
