"""PostgreSQL out of reach: refused, or swallowed by the network. Nothing running is failed for it, nothing is done twice."""

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psycopg
import pytest

from tests.support import postgres, proxy
from tests.support.platform import Platform, folder, git, sample_repository, until

pytestmark = pytest.mark.alone

LONG = [{"write": {"path": "one.txt", "content": "1\n"}}, {"delay": 8}, {"run": {"command": "echo ran >> ran.txt"}}]


class Reached(Platform):
    """A platform whose processes reach PostgreSQL through proxies of their own."""

    def __init__(self, place: Path, postgres_folder: str) -> None:
        self.direct = postgres.new_database(postgres_folder, f"t{uuid.uuid4().hex}")
        self.proxies: dict[str, proxy.Proxy] = {}
        self.postgres_folder = postgres_folder
        super().__init__(place, engine_lease_seconds=3)

    def open(self, name: str, command: str) -> None:
        """Start a process behind its own proxy."""
        self.proxies[name] = proxy.Proxy(proxy.to_postgres(self.postgres_folder))
        database = self.direct.partition("@/")[2].partition("?")[0]
        self.settings["database_url"] = f"postgresql://postgres@127.0.0.1:{self.proxies[name].port}/{database}"
        self.start(command, name=name)

    def sql(self, query: str) -> list[tuple[object, ...]]:
        with psycopg.connect(self.direct) as connection:
            return connection.execute(query).fetchall()

    def close(self) -> None:
        super().close()
        for one in self.proxies.values():
            one.close()


@pytest.fixture
def reached(postgres_folder: str) -> Iterator[Reached]:
    with folder() as place:
        house = Reached(place, postgres_folder)
        try:
            yield house
        finally:
            house.close()


def working(house: Reached) -> tuple[str, Path]:
    """An order whose agent is at work, and its origin."""
    origin = sample_repository(house.folder)
    order_id = house.order(origin, LONG, workflow_type="build")
    until(lambda: any(e["event"] == "agent.started" for e in house.events(order_id)), what="the agent to start")
    return order_id, origin


def test_an_outage_fails_no_running_order(reached: Reached) -> None:
    reached.open("server", "up")
    order_id, origin = working(reached)
    reached.proxies["server"].close()
    until(lambda: reached.client.get("/api/v1/agent-work-orders").status_code == 503, what="503")
    answer = reached.client.get("/api/v1/agent-work-orders")
    assert answer.json()["code"] == "database_away"
    until(lambda: not reached.inside(b"--script-agent"), what="the agent to end while the database is away")
    port = reached.proxies["server"].port
    reached.proxies["server"] = proxy.Proxy(proxy.to_postgres(reached.postgres_folder), port=port)
    order = reached.finished(order_id)
    assert (order["status"], order["attempts"]) == ("completed", 1), order["reason"]
    assert git("show", f"{order['git_branch_name']}:ran.txt", cwd=origin) == "ran"


def test_an_engine_cut_off_by_the_network_is_replaced_and_harms_nothing_when_it_returns(reached: Reached) -> None:
    reached.open("api", "serve")
    reached.open("engine-1", "engine")
    order_id, origin = working(reached)
    reached.open("engine-2", "engine")
    until(lambda: reached.sql("SELECT count(*) FROM engines")[0][0] == 2, what="two engines")
    reached.proxies["engine-1"].swallow()
    cut = time.monotonic()
    until(lambda: any(e["event"] == "attempt.adopted" for e in reached.events(order_id)), limit=30, what="the adoption")
    assert time.monotonic() - cut < 10
    reached.proxies["engine-1"].heal()
    order = reached.finished(order_id)
    assert (order["status"], order["attempts"]) == ("completed", 1), order["reason"]
    assert git("show", f"{order['git_branch_name']}:ran.txt", cwd=origin) == "ran"
    assert len([e for e in reached.events(order_id) if e["event"] == "work_order.finished"]) == 1


def test_prompts_said_at_the_same_moment_are_all_kept(reached: Reached) -> None:
    """AWA-03: an accepted prompt is in the request, whoever else said something meanwhile."""
    reached.open("api", "serve")
    order_id = reached.order(sample_repository(reached.folder), LONG)

    def say(number: int) -> int:
        body = {"prompt_text": f"word {number}"}
        return httpx.post(
            f"{reached.client.base_url}/api/v1/agent-work-orders/{order_id}/prompt", json=body
        ).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(say, range(16))) == {200}
    kept = reached.sql(f"SELECT prompts FROM work_orders WHERE agent_work_order_id = '{order_id}'")[0][0]
    assert sorted(kept) == sorted(f"word {number}" for number in range(16))  # type: ignore[call-overload]


def test_an_agents_words_cannot_stop_the_engine(reached: Reached) -> None:
    """PostgreSQL's text knows no NUL; a phase is one we know or none."""
    reached.open("server", "up")
    order_id, _ = working(reached)
    sandbox = reached.show(order_id)["sandbox_identifier"]
    until(lambda: reached.show(order_id)["current_phase"] == "implementing", what="the agent's own phase")
    for kind, payload in (
        ("agent.session", {"session_id": "a\x00b"}),
        ("workflow.phase_started", {"phase": "completed"}),
        ("workflow.phase_completed", {"step": []}),
    ):
        reached.post(f"/sandboxes/{sandbox}/events", {"event_type": kind, "payload": payload})
    assert reached.show(order_id)["current_phase"] == "implementing"
    assert reached.finished(order_id)["status"] == "completed"
    assert "background_loop_failed" not in reached.log.read_text()


def test_a_door_that_changes_hands_during_an_outage_opens_after_it(reached: Reached) -> None:
    reached.open("server", "up")
    reached.open("other", "engine")
    until(lambda: reached.log.read_text().count("engine_started") == 2, what="two engines")
    port = reached.proxies["other"].port
    reached.proxies["other"].close()
    reached.kill("server")
    until(lambda: "door_not_opened" in reached.log.read_text(), what="the other to have the door, and no database")
    reached.proxies["other"] = proxy.Proxy(proxy.to_postgres(reached.postgres_folder), port=port)
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(reached.data / "door.sock"))) as inside:
        until(lambda: answers(inside), what="the door to open")


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("http://door/").status_code < 500
    except httpx.TransportError:
        return False
