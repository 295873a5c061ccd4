"""Codex over its app-server: how it is started and spoken to. What it says is understood in codex_lines.py."""

import os

from shopfloor_worker.rpc import Rpc
from shopfloor_worker.words import CONTINUE, HOUSE_RULES, MOVED, told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Optional

    from shopfloor_worker.adapters.codex_lines import Lines
    from shopfloor_worker.port import Fact

UNASKED = {"web_search": ("web_search", "disabled")}
"""Tools that the program uses without asking, and how each is switched off."""
CLIENT = {"name": "shopfloor", "title": "Shopfloor", "version": "1"}


class Talking:
    """Where the conversation with one process stands."""

    def __init__(self, effort: "Optional[str]" = None) -> None:
        self.rpc, self._effort = Rpc(), effort
        self.thread: "Optional[str]" = None
        self.turn: "Optional[str]" = None
        """The running turn."""
        self.beginning = False
        """A turn has been asked for and has no id yet."""
        self.held: "list[tuple[str, str]]" = []
        """Texts with their idents that the program cannot take yet."""
        self.offered: "dict[str, str]" = {}
        """Texts handed over and not yet seen in the conversation, by ident."""
        self.stopping = False

    def begin(self, text: str, ident: str) -> bytes:
        """Start a turn with a text."""
        self.beginning = True
        self.offered[ident] = text
        params: "dict[str, Any]" = {"threadId": self.thread, "input": _input(text), "clientUserMessageId": ident}
        if self._effort:
            params["effort"] = self._effort
        return self.rpc.request("turn/start", params, ident)

    def steer(self, text: str, ident: str) -> bytes:
        """Say a text into the running turn."""
        self.offered[ident] = text
        params = {"threadId": self.thread, "expectedTurnId": self.turn, "input": _input(text)}
        return self.rpc.request("turn/steer", {**params, "clientUserMessageId": ident}, ident)

    def stop(self) -> bytes:
        """Interrupt the running turn."""
        self.stopping = False
        return self.rpc.request("turn/interrupt", {"threadId": self.thread, "turnId": self.turn})


def _input(text: str) -> "list[dict[str, Any]]":
    return [{"type": "text", "text": text}]


class Agent:
    """One `codex app-server` after another, all of one thread."""

    name = "codex"
    version: "Optional[str]" = None

    def __init__(self, job: "dict[str, Any]") -> None:
        agent = job["agent"]
        self._agent, self._options, self._workspace = agent, agent.get("options") or {}, job["workspace"]
        env = {**os.environ, **(agent.get("env") or {})}
        self._home = env.get("CODEX_HOME") or os.path.join(job["home"], ".codex")
        self.session_id: "Optional[str]" = agent.get("resume_session")
        self._talking = Talking(self._options.get("effort"))
        self._lines: "Optional[Lines]" = None
        self._started = self._moved = False

    def command(self) -> "list[str]":
        """`codex app-server`; the thread is chosen by a request."""
        self._moved = self._known() and self.session_id == self._agent.get("resume_session") and not self._started
        self._started = True
        self._talking, self._lines = Talking(self._options.get("effort")), None
        return [*(self._agent.get("program") or ["codex"]), "app-server"]

    def environment(self) -> "dict[str, str]":
        """Its home where the agent's own is."""
        return {"CODEX_HOME": self._home}

    def opening(self) -> bytes:
        """Introduce ourselves and open the thread."""
        rpc = self._talking.rpc
        hello = rpc.request("initialize", {"clientInfo": CLIENT, "capabilities": {"experimentalApi": True}})
        return hello + rpc.notify("initialized") + self._open()

    def _open(self) -> bytes:
        params: "dict[str, Any]" = {
            "cwd": self._workspace,
            "sandbox": "danger-full-access",  # ours is the boundary
            "approvalPolicy": "untrusted" if self._limited() else "never",
            "developerInstructions": HOUSE_RULES,
        }
        off = {key: value for tool, (key, value) in UNASKED.items() if self._limited() and self._off(tool)}
        if off:
            params["config"] = off
        if self._agent.get("model"):
            params["model"] = self._agent["model"]
        if self._known():
            return self._talking.rpc.request("thread/resume", {**params, "threadId": self.session_id})
        self.session_id = None
        return self._talking.rpc.request("thread/start", params)

    def _limited(self) -> bool:
        return bool(self._options.get("allow_tools") or self._options.get("deny_tools"))

    def _off(self, tool: str) -> bool:
        from shopfloor_worker.refusals import forbidden

        return bool(forbidden(self._options, (tool,)))

    def say(self, text: str, ident: str, kind: str, step: str) -> bytes:
        """Begin a turn, or steer the running one; held while neither is possible."""
        del step
        text = told(text, kind)
        if kind == "prompt" and self._moved:
            text, self._moved = f"{MOVED}\n\n{text}", False
        talking = self._talking
        if talking.turn:
            return talking.steer(text, ident)
        if talking.thread and not talking.beginning:
            return talking.begin(text, ident)
        talking.held.append((text, ident))
        return b""

    def interrupt(self) -> bytes:
        """`turn/interrupt`, as soon as the turn has an id."""
        if self._talking.turn:
            return self._talking.stop()
        self._talking.stopping = self._talking.beginning
        return b""

    def read(self, line: bytes) -> "Sequence[Fact]":
        """See codex_lines.py."""
        if self._lines is None:
            from shopfloor_worker.adapters.codex_lines import Lines

            self._lines = Lines(self._talking, self._options, self._agent.get("model"))
        facts = self._lines.read(line)
        self.session_id = self._talking.thread or self.session_id
        self.version = self._lines.version or self.version
        return facts

    def restarting(self) -> bool:
        """Whether the thread was written down far enough to go on with."""
        return self._known()

    def continuation(self, prompt: str) -> str:
        """It remembers its prompt."""
        del prompt
        return CONTINUE

    def _known(self) -> bool:
        """Whether the thread's file exists."""
        wanted = self.session_id
        if not wanted or os.sep in wanted:
            return False
        return any(
            name.endswith(f"{wanted}.jsonl")
            for _, _, names in os.walk(os.path.join(self._home, "sessions"))
            for name in names
        )
