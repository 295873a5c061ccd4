"""Following survives the server."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import WAITS, Shop, repository
from tests.support.platform import GENEROUS, Platform, folder

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
    with (place / "notes").open("w+") as notes:
        process = shop.start("logs", order_id, "--follow", "--json", stderr=notes)
        assert process.stdout
        seen = []
        for line in process.stdout:
            seen.append(line)
            if "waiting for you" in line:
                break
        house.kill()
        house.start()
        assert shop("steer", order_id, "go on").code == 0
        rest, _ = process.communicate(timeout=GENEROUS)
    events = [json.loads(line) for line in [*seen, *rest.splitlines()]]
    return {"code": process.returncode, "events": events, "history": shop("logs", order_id, "--json").out}


def test_it_ends_with_the_orders_outcome(followed: dict[str, Any]) -> None:
    assert followed["code"] == 0


def test_every_event_is_shown_once_and_in_order(followed: dict[str, Any]) -> None:
    known = [json.loads(line)["position"] for line in followed["history"].splitlines()]
    print([e for e in followed["events"] if e["position"] not in known])
    assert [event["position"] for event in followed["events"]] == known
