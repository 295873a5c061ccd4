"""Following survives the server."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import WAITS, Shop, repository
from tests.support.platform import GENEROUS, Platform, folder, until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def followed() -> Iterator[dict[str, Any]]:
    """What `logs --follow --json` printed while its server was killed and started again."""
    with folder() as place:
        (place / "shopfloor.toml").write_text("")
        house = Platform(place)
        try:
            house.start()
            yield _follow(house, place)
        finally:
            house.close()


def _follow(house: Platform, place: Path) -> dict[str, Any]:
    shop = Shop(f"http://127.0.0.1:{house.port}", {"SHOPFLOOR_CONFIG": str(place / "shopfloor.toml")})
    order_id = shop.order(repository(place), WAITS)
    shown = place / "shown"
    with shown.open("w") as out:
        process = shop.start("logs", order_id, "--follow", "--json", stdout=out, stderr=subprocess.DEVNULL)
        until(lambda: "waiting for you" in shown.read_text(), what="the agent to be heard")
        house.kill()
        house.start()
        assert shop("steer", order_id, "go on").code == 0
        process.wait(GENEROUS)
    events = [json.loads(line) for line in shown.read_text().splitlines()]
    return {"code": process.returncode, "events": events, "history": shop("logs", order_id, "--json").out}


def test_it_ends_with_the_orders_outcome(followed: dict[str, Any]) -> None:
    assert followed["code"] == 0


def test_every_event_is_shown_once_and_in_order(followed: dict[str, Any]) -> None:
    known = [json.loads(line)["position"] for line in followed["history"].splitlines()]
    assert [event["position"] for event in followed["events"]] == known
