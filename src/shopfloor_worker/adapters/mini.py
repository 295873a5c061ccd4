"""mini-swe-agent: a runner of our own (runners/mini.py), run by the Python of the environment that has its package."""

from shopfloor_worker.adapters.plain import Plain, ourselves
from shopfloor_worker.words import CONTINUE, told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Agent(Plain):
    """One runner after another; each begins anew, for the program keeps no conversations."""

    name = "mini"

    def __init__(self, job: "dict[str, Any]") -> None:
        self._program = list(job["agent"]["program"])
        self.version = None

    def command(self) -> "list[str]":
        """`PYTHON -I worker.pyz --runner mini JOB`."""
        program, job = ourselves()
        isolated = ["-I"] if len(program) == 1 else []
        return [*self._program, *isolated, *program, "--runner", "mini", job]

    def say(self, text: str, ident: str, kind: str, step: str) -> bytes:
        """One line."""
        return super().say(told(text, kind), ident, kind, step)

    def restarting(self) -> bool:
        """It remembers nothing, but its work tree is as it left it."""
        return True

    def continuation(self, prompt: str) -> str:
        """The whole task again."""
        return f"{prompt}\n\n{CONTINUE}"
