"""The script agent: a program of our own (script_agent.py) that replays a list of actions and speaks plain events."""

import json
import os
import sys

from shopfloor_worker import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Optional

    from shopfloor_worker.port import Fact


class Agent:
    """Starts the worker's own file as the agent program, so that it can be killed like any other."""

    name = "script"
    version: "Optional[str]" = __version__

    def __init__(self, job: "dict[str, Any]") -> None:
        self._job = job
        self.session_id: "Optional[str]" = f"script-{job['attempt_id']}"

    def command(self) -> "list[str]":
        """`python3 -I -S worker.pyz --script-agent JOB`."""
        own = os.path.abspath(sys.argv[0])
        program = [own] if own.endswith(".pyz") else ["-m", "shopfloor_worker"]
        isolated = ["-I", "-S"] if own.endswith(".pyz") else []
        return [sys.executable, *isolated, *program, "--script-agent", os.path.abspath(sys.argv[1])]

    def environment(self) -> "dict[str, str]":
        """Nothing of its own."""
        return {}

    def opening(self) -> bytes:
        """Nothing."""
        return b""

    def say(self, text: str, ident: str, kind: str, step: str) -> bytes:
        """One line."""
        return _line({"type": kind, "text": text, "ident": ident, "step": step})

    def interrupt(self) -> bytes:
        """One line."""
        return _line({"type": "stop"})

    def read(self, line: bytes) -> "Sequence[Fact]":
        """The program already speaks in our events."""
        from shopfloor_worker.port import Event, Taken, TurnEnd

        try:
            said = json.loads(line)
            kind = said["type"]
        except (ValueError, KeyError, TypeError):
            return ()
        if kind == "event":
            return (Event(said["event_type"], said["data"]),)
        if kind == "taken":
            return (Taken((said["ident"],)),)
        if kind == "turn_end":
            return (TurnEnd(said["reason"], said["detail"], said["summary"]),)
        return ()

    def restarting(self) -> bool:
        """It always goes on at its first unfinished action."""
        return True

    def continuation(self, prompt: str) -> str:
        """The same prompt: its progress is in a file."""
        return prompt


def _line(said: "dict[str, Any]") -> bytes:
    return json.dumps(said).encode() + b"\n"
