"""How each kind of agent program is started, spoken to and understood: one module each, chosen by name."""

import importlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shopfloor_worker.port import Adapter

NAMES = ("acp", "claude", "codex", "mini", "openhands", "script")


def make(job: "dict[str, Any]") -> "Adapter":
    """The adapter of the job's agent."""
    name = job["agent"]["adapter"]
    if name not in NAMES:
        raise SystemExit(f"this worker knows no agent adapter {name!r}; it has: {', '.join(NAMES)}")
    made: Adapter = importlib.import_module(f"shopfloor_worker.adapters.{name}").Agent(job)
    return made


def new_uuid() -> str:
    """A random UUID, without the import of its module: this runs before the agent starts."""
    import os

    digits = os.urandom(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"
