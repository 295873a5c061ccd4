"""PostgreSQL, two hosts: when one dies with everything on it, the other takes its orders over with new sandboxes."""

import contextlib
import os
import signal
import uuid
from collections.abc import Iterator

import psycopg
import pytest

from tests.support import git_http, postgres
from tests.support.platform import Platform, folder, git, sample_repository, until

pytestmark = pytest.mark.alone

LONG = [{"say": "working"}, {"if_attempt": 1, "delay": 120}, {"write": {"path": "done.txt", "content": "yes\n"}}]


@pytest.fixture
def hosts(postgres_folder: str) -> Iterator[tuple[Platform, Platform]]:
    url = postgres.new_database(postgres_folder, f"t{uuid.uuid4().hex}")
    with folder() as first, folder() as second:
        given = {"database_url": url, "engine_lease_seconds": 2, "origin_protocols": "http,https,file"}
        houses = tuple(Platform(place, **given) for place in (first, second))
        try:
            houses[0].start()
            yield houses[0], houses[1]
        finally:
            for house in houses:
                house.close()


def test_orders_of_a_dead_host_go_on_at_another(hosts: tuple[Platform, Platform]) -> None:
    first, second = hosts
    order_id = first.order(sample_repository(first.folder), LONG, workflow_type="build")
    until(lambda: any(e["event"] == "agent.message" for e in first.events(order_id)), what="the agent to speak")
    second.start()
    victims = [*first.keepers(), *first.inside(b"")]
    first.kill()
    for pid in victims:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    until(lambda: second.show(order_id)["attempts"] == 2, limit=30, what="the second attempt")
    order = second.finished(order_id)
    assert order["status"] == "completed", order["reason"]
    with psycopg.connect(str(second.settings["database_url"])) as connection:
        found = connection.execute("SELECT state, reason FROM attempts ORDER BY number").fetchall()
    assert [row[0] for row in found] == ["lost", "done"]
    assert "host" in str(found[0][1])


WAITS = [{"say": "working"}, {"wait_for_message": {"timeout": 90}}, {"write": {"path": "done.txt", "content": "yes\n"}}]


def test_what_a_host_pushed_before_it_died_is_delivered(hosts: tuple[Platform, Platform]) -> None:
    """The branch is at the origin, and nobody has written that down."""
    first, second = hosts
    origin = sample_repository(first.folder)
    with git_http.serving(first.folder) as server:
        order_id = first.order(server.url(origin.name), WAITS, workflow_type="build")
        until(lambda: any(e["event"] == "agent.message" for e in first.events(order_id)), what="the agent to speak")
        second.start()
        server.after_push = first.processes["server"].kill
        first.post(f"/sandboxes/{first.show(order_id)['sandbox_identifier']}/messages", {"content": "go on"})
        order = second.finished(order_id)
    assert (order["status"], order["attempts"]) == ("completed", 1), order["reason"]
    assert "before its host" in order["reason"]
    assert git("rev-parse", order["git_branch_name"], cwd=origin).startswith(order["reason"].split()[3][:12])
    assert git("show", f"{order['git_branch_name']}:done.txt", cwd=origin) == "yes"


CHECKPOINT = {
    "plan": [{"write": {"path": "specs/plan.md", "content": "# Plan\n"}}],
    "build": [{"if_attempt": 1, "delay": 120}, {"write": {"path": "done.txt", "content": "yes\n"}}],
}


@pytest.mark.parametrize("common", [True, False], ids=["common-uploads", "own-uploads"])
def test_a_step_done_at_a_dead_host_is_kept_or_done_again(postgres_folder: str, common: bool) -> None:
    """Its commits were uploaded: where every host sees them the next one goes on from there, else it starts from the base."""
    url = postgres.new_database(postgres_folder, f"t{uuid.uuid4().hex}")
    with folder() as one, folder() as two, folder() as shared:
        more = {"blobs_dir": str(shared / "blobs")} if common else {}
        first, second = (Platform(place, database_url=url, engine_lease_seconds=2, **more) for place in (one, two))
        try:
            first.start()
            origin = sample_repository(shared)
            order_id = first.order(origin, CHECKPOINT, workflow_type="plan_build")
            until(lambda: phases(first, order_id) == ["plan"], what="the plan")
            second.start()
            victims = [*first.keepers(), *first.inside(b"")]
            first.kill()
            for pid in victims:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            order = second.finished(order_id)
            assert order["status"] == "completed", order["reason"]
            assert phases(second, order_id) == (["plan", "build"] if common else ["plan", "plan", "build"])
            assert git("show", f"{order['git_branch_name']}:specs/plan.md", cwd=origin) == "# Plan"
        finally:
            first.close()
            second.close()


def phases(house: Platform, order_id: str) -> list[str]:
    return [e["step"] for e in house.events(order_id) if e["event"] == "workflow.phase_completed"]
