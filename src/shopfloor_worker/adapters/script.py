"""The script agent: a program of our own (script_agent.py) that replays a list of actions and speaks plain events."""

import sys

from shopfloor_worker.adapters.plain import Plain, ourselves

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Agent(Plain):
    """Starts the worker's own file as the agent program, so that it can be killed like any other."""

    name = "script"

    def __init__(self, job: "dict[str, Any]") -> None:
        self.session_id = f"script-{job['attempt_id']}"

    def command(self) -> "list[str]":
        """`python3 -I -S worker.pyz --script-agent JOB`."""
        program, job = ourselves()
        isolated = ["-I", "-S"] if len(program) == 1 else []
        return [sys.executable, *isolated, *program, "--script-agent", job]

    def restarting(self) -> bool:
        """It always goes on at its first unfinished action."""
        return True

    def continuation(self, prompt: str) -> str:
        """The same prompt: its progress is in a file."""
        return prompt
