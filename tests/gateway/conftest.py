"""A running platform whose model accounts lead to a server of the test's, and agents of its that the test plays itself."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateway.upstream import Upstream, whole
from tests.support.platform import Platform, folder, sample_repository, until

KEYS = {
    "ANTHROPIC_API_KEY": "sk-ant-real-1b2c3d",
    "OPENAI_API_KEY": "sk-real-4e5f6a",
    "GEMINI_API_KEY": "AIza-real-7b8c9d",
}
SETTINGS = """
[agents.caller-anthropic]
adapter = "script"
account = "anthropic"

[agents.caller-openai]
adapter = "script"
account = "openai"

[agents.caller-gemini]
adapter = "script"
account = "gemini"

[agents.caller-patient]
adapter = "script"
account = "patient"

[agents.caller-proud]
adapter = "script"
account = "proud"

[agents.caller-keyless]
adapter = "script"
account = "keyless"

[accounts.anthropic]
base_url = "{url}"

[accounts.openai]
base_url = "{url}/v1"

[accounts.gemini]
base_url = "{url}"

[accounts.patient]
api = "anthropic"
base_url = "{url}"
hold_seconds = 0.5

[accounts.proud]
api = "anthropic"
base_url = "{url}"
pause_on_limit = false
prices = {{ "house-model" = {{ input = 10, output = 20 }} }}

[agents.caller-gone]
adapter = "script"
account = "gone"

[accounts.gone]
api = "anthropic"
base_url = "http://127.0.0.1:1"

[accounts.keyless]
api = "openai"
base_url = "{url}"
key_env = "NOBODY_SETS_THIS"
"""


@dataclass
class Caller:
    """The test in the place of an agent inside a sandbox: its order, and its way out."""

    order_id: str
    sandbox_id: str
    token: str
    http: httpx.Client

    def ask(self, path: str = "/v1/messages", **body: Any) -> httpx.Response:
        """Call the model and read the whole answer."""
        said = {"model": "claude-opus-4-5", "max_tokens": 1000, "stream": True, "messages": [], **body}
        return self.http.post(f"/models/anthropic{path}" if path.startswith("/v1/messages") else path, json=said)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


@pytest.fixture(scope="module")
def house(upstream: Upstream) -> Iterator[Platform]:
    with folder() as place:
        (place / "shopfloor.toml").write_text(SETTINGS.format(url=upstream.url))
        running = Platform(place, max_sandboxes=40)
        running.environment.update(KEYS)
        try:
            running.start()
            yield running
        finally:
            running.close()


@pytest.fixture(scope="module")
def origin() -> Iterator[Path]:
    with folder() as place:
        yield sample_repository(place)


@pytest.fixture
def caller(house: Platform, origin: Path, upstream: Upstream) -> Iterator[Callable[..., Caller]]:
    """Makes callers; their orders are cancelled at the end."""
    upstream.seen.clear()
    upstream.hung_up.clear()
    upstream.answer = lambda seen: whole(seen.path)
    made: list[Caller] = []
    with ExitStack() as open_until_the_end:

        def make(account: str = "anthropic", **fields: Any) -> Caller:
            one = start(house, origin, account, **fields)
            open_until_the_end.callback(one.http.close)
            made.append(one)
            return one

        yield make
    for one in made:
        house.client.post(f"/api/v1/agent-work-orders/{one.order_id}/cancel")
    for name in ("anthropic", "openai", "gemini", "patient"):
        house.post(f"/accounts/{name}/resume")


def start(house: Platform, origin: Path, account: str, **fields: Any) -> Caller:
    """An order whose agent only waits, and a connection through its sandbox's door."""
    script = [{"wait_for_message": {"timeout": 600}}]
    order_id = house.order(
        origin, script, agent=f"caller-{account}", workflow_type="build", **{"max_attempts": 1, **fields}
    )
    until(
        lambda: any(e["event"] == "agent.started" for e in house.events(order_id)),
        what="the agent to start",
    )
    sandbox_id = house.show(order_id)["sandbox_identifier"]
    job = json.loads((house.data / "inboxes" / sandbox_id / "job.json").read_text())
    token = job["api"]["token"]
    http = httpx.Client(
        transport=httpx.HTTPTransport(uds=str(house.data / "door.sock")),
        base_url="http://door",
        headers={"x-api-key": token},
        timeout=60,
    )
    return Caller(order_id, sandbox_id, token, http)
