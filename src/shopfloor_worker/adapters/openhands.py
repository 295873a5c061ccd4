"""OpenHands: a runner of our own (runners/openhands.py), run by the Python of the environment that has the OpenHands SDK."""

import os

from shopfloor_worker.adapters.plain import Plain, ourselves
from shopfloor_worker.words import CONTINUE, MOVED, told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Agent(Plain):
    """One runner after another, all of one conversation, which is kept in the agent's home."""

    name = "openhands"

    def __init__(self, job: "dict[str, Any]") -> None:
        self._program = list(job["agent"]["program"])
        self._kept = os.path.join(job["home"], ".openhands-conversations")
        self.session_id = self._resumed = job["agent"].get("resume_session")
        self.version = None
        self._begun = self._moved = False

    def command(self) -> "list[str]":
        """`PYTHON -I worker.pyz --runner openhands JOB [CONVERSATION]`."""
        program, job = ourselves()
        known = self.restarting()
        self._moved = known and not self._begun and self.session_id == self._resumed
        self._begun = True
        isolated = ["-I"] if len(program) == 1 else []
        session = [str(self.session_id)] if known else []
        return [*self._program, *isolated, *program, "--runner", "openhands", job, *session]

    def say(self, text: str, ident: str, kind: str, step: str) -> bytes:
        """One line."""
        text = told(text, kind)
        if kind == "prompt" and self._moved:
            text, self._moved = f"{MOVED}\n\n{text}", False
        return super().say(text, ident, kind, step)

    def restarting(self) -> bool:
        """Whether the conversation was written down."""
        name = str(self.session_id or "").replace("-", "")
        return bool(name) and os.path.isdir(os.path.join(self._kept, os.path.basename(name)))

    def continuation(self, prompt: str) -> str:
        """It remembers its prompt."""
        del prompt
        return CONTINUE
