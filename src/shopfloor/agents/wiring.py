"""How agents' programs are pointed at a model server."""

from dataclasses import dataclass

from shopfloor.agents.service import Profile


@dataclass(frozen=True, kw_only=True)
class Wiring:
    """How an agent's program is pointed at a model server."""

    env: dict[str, str]
    files: dict[str, str]


def wiring(profile: Profile, *, base_url: str, key: str, home: str) -> Wiring:
    """How the program is pointed at a model server."""
    del home, profile
    return Wiring(env={"ANTHROPIC_BASE_URL": base_url, "ANTHROPIC_API_KEY": key}, files={})
