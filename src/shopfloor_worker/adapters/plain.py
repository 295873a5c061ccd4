"""Programs of our own that speak in plain events, a JSON object a line: what the script agent and the runners have in common."""

import json
import os
import sys

from shopfloor_worker import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Optional

    from shopfloor_worker.port import Fact


def ourselves() -> "tuple[list[str], str]":
    """How Python is told to run the worker's own file again, and the job's."""
    own = os.path.abspath(sys.argv[0])
    return [own] if own.endswith(".pyz") else ["-m", "shopfloor_worker"], os.path.abspath(sys.argv[1])


class Plain:
    """One process of such a program."""

    name = ""
    version: "Optional[str]" = __version__
    session_id: "Optional[str]" = None

    def environment(self) -> "dict[str, str]":
        """Nothing of its own."""
        return {}

    def opening(self) -> bytes:
        """Nothing."""
        return b""

    def say(self, text: str, ident: str, kind: str, step: str) -> bytes:
        """One line."""
        return line({"type": kind, "text": text, "ident": ident, "step": step})

    def interrupt(self) -> bytes:
        """One line."""
        return line({"type": "stop"})

    def read(self, said: bytes) -> "Sequence[Fact]":
        """The program already speaks in our events."""
        from shopfloor_worker.port import Dropped, Event, Taken, TurnEnd

        try:
            told = json.loads(said)
            kind = told["type"]
            if kind == "event":
                if told["event_type"] == "agent.session":
                    self.session_id = told["data"]["session_id"]
                    self.version = told["data"].get("program_version") or self.version
                return (Event(told["event_type"], told["data"]),)
            if kind == "taken":
                return (Taken((told["ident"],)),)
            if kind == "dropped":
                return (Dropped((told["ident"],)),)
            if kind == "turn_end":
                return (TurnEnd(told["reason"], told["detail"], told["summary"]),)
        except (ValueError, KeyError, TypeError):
            pass
        return ()


def line(said: "dict[str, Any]") -> bytes:
    """An object as a line."""
    return json.dumps(said).encode() + b"\n"
