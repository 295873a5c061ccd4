"""Claude Code over its native stream-json: how it is started and spoken to. What it says is understood in claude_lines.py."""

import json
import os

from shopfloor_worker.adapters import new_uuid
from shopfloor_worker.words import CONTINUE, HOUSE_RULES, MOVED, told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Optional

    from shopfloor_worker.adapters.claude_lines import Lines
    from shopfloor_worker.port import Fact


class Agent:
    """One `claude` process after another, all of one conversation."""

    name = "claude"
    version: "Optional[str]" = None

    def __init__(self, job: "dict[str, Any]") -> None:
        agent = job["agent"]
        self._agent, self._options = agent, agent.get("options") or {}
        env = {**os.environ, **(agent.get("env") or {})}
        self._config = env.get("CLAUDE_CONFIG_DIR") or os.path.join(job["home"], ".claude")
        self._costs = os.path.join(job["home"], ".shopfloor", "claude-costs.json")
        self.session_id: "Optional[str]" = agent.get("resume_session")
        self._lines: "Optional[Lines]" = None
        self._moved = False

    def command(self) -> "list[str]":
        """The program with its flags; `--resume` when the conversation exists, else a new one of a chosen id."""
        options = self._options
        command = [
            *(self._agent.get("program") or ["claude"]),
            "--input-format",
            "stream-json",
            "--output-format",
            "stream-json",
        ]
        command += ["--verbose", "--replay-user-messages", "--append-system-prompt", HOUSE_RULES]
        mode = options.get("permission_mode") or "bypassPermissions"
        command += ["--permission-mode", mode]
        if mode != "bypassPermissions":
            command += ["--permission-prompt-tool", "stdio"]
        resuming = self._known()
        if not resuming:
            self.session_id = new_uuid()
        self._moved = resuming and self.session_id == self._agent.get("resume_session") and self._lines is None
        command.append(f"--resume={self.session_id}" if resuming else f"--session-id={self.session_id}")
        for flag, value in (
            ("model", self._agent.get("model")),
            ("max-turns", options.get("max_turns")),
            ("max-budget-usd", options.get("max_budget_usd")),
            ("setting-sources", options.get("setting_sources")),
            ("allowedTools", ",".join(rule for rule in options.get("allow_tools") or () if "(" in rule)),
            ("disallowedTools", ",".join(rule for rule in options.get("deny_tools") or () if "(" in rule)),
        ):
            if value:
                command.append(f"--{flag}={value}")
        self._lines = None
        return command

    def environment(self) -> "dict[str, str]":
        """Quiet, and no update in the middle of work."""
        return {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1"}

    def opening(self) -> bytes:
        """The control protocol's first request; a hook on every tool call when the profile limits tools."""
        hooks = None
        if self._options.get("allow_tools") or self._options.get("deny_tools"):
            hooks = {"PreToolUse": [{"matcher": None, "hookCallbackIds": ["tools"]}]}
        return _request("initialize", hooks=hooks)

    def say(self, text: str, ident: str, kind: str, step: str) -> bytes:
        """A user line; in a running turn it joins after the tool call at hand."""
        del step
        text = told(text, kind)
        if kind == "prompt" and self._moved:
            text, self._moved = f"{MOVED}\n\n{text}", False
        if text.startswith("/"):  # words for the agent, not a command of its program
            text = f"This was said to you:\n{text}"
        if ident == "prompt-1":
            ident = self._first = new_uuid()
        message = {"role": "user", "content": text}
        line = {"type": "user", "message": message, "parent_tool_use_id": None, "session_id": "", "uuid": ident}
        if kind == "guardian_intervention":
            line["priority"] = self._options.get("guardian_priority", "next")
        return json.dumps(line).encode() + b"\n"

    def interrupt(self) -> bytes:
        """The control protocol's interrupt."""
        return _request("interrupt")

    def read(self, line: bytes) -> "Sequence[Fact]":
        """See claude_lines.py."""
        if self._lines is None:
            from shopfloor_worker.adapters.claude_lines import Lines
            from shopfloor_worker.costs import Costs

            self._lines = Lines(self._options, Costs(self._costs), getattr(self, "_first", ""))
        facts = self._lines.read(line)
        self.session_id = self._lines.session_id or self.session_id
        self.version = self._lines.version or self.version
        return facts

    def restarting(self) -> bool:
        """Whether the conversation was written down far enough to go on with."""
        return self._known()

    def continuation(self, prompt: str) -> str:
        """It remembers its prompt."""
        del prompt
        return CONTINUE

    def _known(self) -> bool:
        """Whether the conversation's file exists; the program refuses to resume without it."""
        projects = os.path.join(self._config, "projects")
        if not self.session_id or not os.path.isdir(projects):
            return False
        name = f"{os.path.basename(self.session_id)}.jsonl"
        return any(os.path.exists(os.path.join(projects, folder, name)) for folder in os.listdir(projects))


def _request(subtype: str, **fields: "Any") -> bytes:
    request = {"type": "control_request", "request_id": new_uuid(), "request": {"subtype": subtype, **fields}}
    return json.dumps(request).encode() + b"\n"
