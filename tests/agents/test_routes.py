"""The agents' HTTP door."""

from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from shopfloor.agents.routes import router
from shopfloor.agents.rules import CAPABILITIES
from shopfloor.kit.config import Settings


async def get(tmp_path: Path, path: str, **profiles: dict[str, Any]) -> dict[str, Any]:
    app = FastAPI()
    app.include_router(router)
    app.state.settings = Settings(data_dir=tmp_path, agents=profiles)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:18000") as client:
        answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_the_capability_table_is_served(tmp_path: Path) -> None:
    table = (await get(tmp_path, "/api/v1/agents/capabilities"))["capabilities"]
    assert {row["adapter"] for row in table} == set(CAPABILITIES)
    assert next(row for row in table if row["adapter"] == "claude") == {
        "adapter": "claude",
        "steer": "join",
        "interrupt": True,
        "resume": True,
        "cost": "usd",
        "permissions": True,
        "models": True,
    }


async def test_profiles_are_served_without_secrets(tmp_path: Path) -> None:
    found = await get(tmp_path, "/api/v1/agent-profiles", claude={"env": {"TOKEN": "the-secret"}})
    assert "the-secret" not in str(found)
    assert "TOKEN" in next(p for p in found["profiles"] if p["name"] == "claude")["env"]


async def test_the_default_profile_is_marked(tmp_path: Path) -> None:
    found = await get(tmp_path, "/api/v1/agent-profiles")
    assert [p["name"] for p in found["profiles"] if p["is_default"]] == ["claude"]
