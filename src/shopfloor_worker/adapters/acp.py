"""Any program that speaks the Agent Client Protocol: how it is started and spoken to. What it says is understood in acp_lines.py.

The protocol does not say what a prompt means while another runs, so the profile does (`steer`): `join`, the running turn takes it
in; `queue`, it is held and said after the turn; `replace`, the turn is cancelled for it.
"""

import os

from shopfloor_worker.rpc import Rpc
from shopfloor_worker.words import CONTINUE, HOUSE_RULES, MOVED, REPLACED, told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Optional

    from shopfloor_worker.adapters.acp_lines import Lines
    from shopfloor_worker.port import Fact

CLIENT = {"name": "shopfloor", "title": "Shopfloor", "version": "1"}


class Talking:
    """Where the conversation with one process stands."""

    def __init__(self, workspace: str, options: "dict[str, Any]", wanted: "Optional[str]") -> None:
        self.rpc = Rpc("2.0")
        self.workspace, self.options, self.wanted = workspace, options, wanted
        self.session: "Optional[str]" = None
        self.fresh = False
        """The session is new: it has not been told the rules of the house."""
        self.running: "dict[str, tuple[str, ...]]" = {}
        """Prompts that have not been answered: the idents of their texts, by the first."""
        self.fresh_turn: "tuple[str, ...]" = ()
        """What the running turn was begun with, until the program shows that it works on it."""
        self.held: "list[tuple[str, str]]" = []
        self.cancelling = False
        """The running turn has been cancelled."""
        self.replacing = False
        """The running turn was cancelled by us for what is held."""

    @property
    def steer(self) -> str:
        """What a prompt in a running turn means to this program."""
        return str(self.options.get("steer") or "queue")

    def prompt(self, texts: "list[tuple[str, str]]") -> bytes:
        """Say texts as one prompt; the first ident stands for it."""
        self.cancelling = False
        idents = tuple(ident for _, ident in texts)
        whole = "\n\n".join(text for text, _ in texts)
        self.fresh_turn = self.fresh_turn if self.running else idents
        self.running[idents[0]] = idents
        if self.fresh:
            whole, self.fresh = f"{HOUSE_RULES}\n\n{whole}", False
        params = {"sessionId": self.session, "prompt": [{"type": "text", "text": whole}]}
        return self.rpc.request("session/prompt", params, *idents)

    def cancel(self) -> bytes:
        """Ask for the end of the running turn."""
        self.cancelling = True
        return self.rpc.notify("session/cancel", {"sessionId": self.session})

    def flush(self) -> "tuple[bytes, tuple[str, ...]]":
        """Say everything that was held."""
        held, self.held = self.held, []
        return self.prompt(held), tuple(ident for _, ident in held)


class Agent:
    """One process after another, all of one session where the program can load it again."""

    name = "acp"
    version: "Optional[str]" = None

    def __init__(self, job: "dict[str, Any]") -> None:
        agent = job["agent"]
        self._agent, self._options, self._workspace = agent, agent.get("options") or {}, job["workspace"]
        self._costs = os.path.join(job["home"], ".shopfloor", "acp-costs.json")
        self.session_id: "Optional[str]" = agent.get("resume_session")
        self._begun = False
        self._moved = bool(self.session_id)
        self._talking = Talking(self._workspace, self._options, self.session_id)
        self._lines: "Optional[Lines]" = None

    def command(self) -> "list[str]":
        """As the profile says."""
        if self._begun:
            self._moved = False
        self._begun = True
        self._talking, self._lines = Talking(self._workspace, self._options, self.session_id), None
        return list(self._agent["program"])

    def environment(self) -> "dict[str, str]":
        """Nothing of its own."""
        return {}

    def opening(self) -> bytes:
        """Introduce ourselves. The program works on files and commands itself: it lives where they are."""
        params = {"protocolVersion": 1, "clientCapabilities": {}, "clientInfo": CLIENT}
        return self._talking.rpc.request("initialize", params)

    def say(self, text: str, ident: str, kind: str, step: str) -> bytes:
        """A prompt; in a running turn as the profile says."""
        del step
        text = told(text, kind)
        if kind == "prompt" and self._moved and self._talking.wanted:
            text, self._moved = f"{MOVED}\n\n{text}", False
        talking = self._talking
        if not talking.session:
            talking.held.append((text, ident))
            return b""
        if not talking.running:
            talking.held.append((text, ident))
            return talking.flush()[0]
        if talking.steer == "join":
            return talking.prompt([(text, ident)])
        if talking.steer != "replace":
            talking.held.append((text, ident))
            return b""
        talking.held.append((REPLACED.format(text), ident))
        first, talking.replacing = not talking.replacing, True
        return talking.cancel() if first else b""

    def interrupt(self) -> bytes:
        """`session/cancel`."""
        talking = self._talking
        talking.replacing = False
        return talking.cancel() if talking.session and talking.running else b""

    def read(self, line: bytes) -> "Sequence[Fact]":
        """See acp_lines.py."""
        if self._lines is None:
            from shopfloor_worker.adapters.acp_lines import Lines
            from shopfloor_worker.costs import Costs

            self._lines = Lines(self._talking, Costs(self._costs), self._agent.get("model"))
        facts = self._lines.read(line)
        self.session_id = self._talking.session or self.session_id
        self.version = self._lines.version or self.version
        return facts

    def restarting(self) -> bool:
        """Whether there is a session to ask for; that the program does not know it is found out by asking."""
        return bool(self.session_id)

    def continuation(self, prompt: str) -> str:
        """It remembers its prompt."""
        del prompt
        return CONTINUE
