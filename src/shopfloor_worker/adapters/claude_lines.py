"""What the lines of Claude Code's stream-json mean."""

import json
import re
from collections.abc import Iterator
from typing import Any, Optional

from shopfloor_worker.costs import Costs
from shopfloor_worker.port import Dropped, Event, Fact, Reply, Taken, TurnEnd
from shopfloor_worker.refusals import forbidden, refused
from shopfloor_worker.words import NOBODY

KINDS = {
    **dict.fromkeys(("Read", "NotebookRead", "LS"), "read"),
    **dict.fromkeys(("Write", "Edit", "MultiEdit", "NotebookEdit"), "edit"),
    **dict.fromkeys(("Bash", "PowerShell", "Monitor"), "execute"),
    **dict.fromkeys(("Glob", "Grep", "WebSearch", "WebFetch", "ToolSearch"), "search"),
}
READ = frozenset({"system", "command_lifecycle", "assistant", "user", "control_request", "result"})
"""The kinds of lines that mean something to us."""
LIMITS = {"error_max_turns": "the limit of turns", "error_max_budget_usd": "the budget"}


class Lines:
    """The output of one process."""

    def __init__(self, options: "dict[str, Any]", costs: Costs, first: str) -> None:
        self.session_id: Optional[str] = None
        self.version: Optional[str] = None
        self._options, self._costs, self._first = options, costs, first
        self._tools: dict[str, str] = {}
        self._started: set[str] = set()
        self._total: Optional[float] = None
        self._session_told = False

    def read(self, line: bytes) -> "list[Fact]":
        """The facts in a line; an unknown kind of line has none."""
        facts: list[Fact] = []
        try:
            said = json.loads(line)
            if said["type"] in READ:
                facts.extend(getattr(self, f"_{said['type']}")(said))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass  # a line of a shape we do not know; what was understood before it counts, the raw line is kept
        return facts

    def _system(self, said: "dict[str, Any]") -> "Iterator[Fact]":
        if said.get("subtype") == "init":
            self.session_id, self.version = said.get("session_id"), said.get("claude_code_version")
            if not self._session_told:
                self._session_told = True
                data = {"session_id": self.session_id, "model": said.get("model"), "program_version": self.version}
                yield Event("agent.session", data)
        elif said.get("subtype") == "api_retry":
            data = {
                "status": said.get("error_status"),
                "attempt": said.get("attempt"),
                "max_attempts": said.get("max_retries"),
                "delay_ms": said.get("retry_delay_ms"),
            }
            yield Event("agent.retry", data)

    def _command_lifecycle(self, said: "dict[str, Any]") -> "Iterator[Fact]":
        ident, state = said.get("command_uuid", ""), said.get("state")
        if state == "started":
            yield self._took(ident)
        elif state in {"cancelled", "discarded"} and ident not in self._started:
            yield Dropped((ident,))

    def _took(self, ident: str) -> Taken:
        self._started.add(ident)
        return Taken(("prompt-1" if ident == self._first else ident,))

    def _assistant(self, said: "dict[str, Any]") -> "Iterator[Fact]":
        message = said["message"]
        parent = {"parent_tool_use_id": said["parent_tool_use_id"]} if said.get("parent_tool_use_id") else {}
        for block in message.get("content") or ():
            kind = block.get("type")
            if kind == "text" and block["text"].strip():
                data = {"text": block["text"], "partial": False, "message_id": message.get("id"), **parent}
                yield Event("agent.message", data)
            elif kind == "thinking" and block.get("thinking"):
                yield Event("agent.thinking", {"text": block["thinking"], **parent})
            elif kind == "tool_use":
                yield from self._tool_use(block, parent)

    def _tool_use(self, block: "dict[str, Any]", parent: "dict[str, str]") -> "Iterator[Fact]":
        name, given = block["name"], block.get("input") or {}
        kind = KINDS.get(name, "other")
        self._tools[block["id"]] = kind
        data = {"id": block["id"], "name": name, "kind": kind, "input": given, "status": "started", **parent}
        yield Event("agent.tool_use", data)
        if kind == "execute":
            yield Event("command.started", {"id": block["id"], "command": given.get("command", "")})

    def _user(self, said: "dict[str, Any]") -> "Iterator[Fact]":
        if said.get("isReplay"):
            yield self._took(said.get("uuid", ""))
            return
        content = said["message"].get("content")
        for block in content if isinstance(content, list) else ():
            if block.get("type") == "tool_result":
                yield from self._tool_result(block, said.get("tool_use_result"))

    def _tool_result(self, block: "dict[str, Any]", details: Any) -> "Iterator[Fact]":
        ident, ok, output = block["tool_use_id"], not block.get("is_error"), _text(block.get("content"))
        kind = self._tools.pop(ident, "other")
        if kind == "execute":
            if output:
                yield Event("command.output", {"id": ident, "text": output[:4096]})
            code = re.search(r"[Ee]xit code (\d+)", output)
            yield Event("command.completed", {"id": ident, "exit_code": 0 if ok else int(code[1]) if code else None})
        if kind == "edit" and ok and isinstance(details, dict):
            path = details.get("filePath") or details.get("notebook_path")
            if path:
                yield Event("file.created" if details.get("type") == "create" else "file.modified", {"path": path})
        data = {"id": ident, "ok": ok, "output": output, "status": "finished", "kind": kind}
        yield Event("agent.tool_result", data)

    def _control_request(self, said: "dict[str, Any]") -> "Iterator[Fact]":
        request, subtype = said["request"], said["request"].get("subtype")
        if subtype == "can_use_tool":
            verdict = self._refusal(request["tool_name"], asked=True)
            yield _permission(request["tool_name"], verdict)
            answer = (
                {"behavior": "deny", "message": verdict}
                if verdict
                else {"behavior": "allow", "updatedInput": request["input"]}
            )
            yield _reply(said, answer)
        elif subtype == "hook_callback":
            tool = request.get("input", {}).get("tool_name", "")
            verdict = self._refusal(tool, asked=False)
            if verdict:
                yield _permission(tool, verdict)
                decision = {"permissionDecision": "deny", "permissionDecisionReason": verdict}
                yield _reply(said, {"hookSpecificOutput": {"hookEventName": "PreToolUse", **decision}})
            else:
                yield _reply(said, {})
        else:
            error = {"subtype": "error", "request_id": said["request_id"], "error": f"{subtype} is not supported here"}
            yield Reply(json.dumps({"type": "control_response", "response": error}).encode() + b"\n")

    def _refusal(self, tool: str, *, asked: bool) -> str:
        """Why a tool may not be used; empty when it may."""
        refusal = forbidden(self._options, (tool,))
        return refusal or (NOBODY if asked and tool == "AskUserQuestion" else "")

    def _result(self, said: "dict[str, Any]") -> "Iterator[Fact]":
        taken = tuple("prompt-1" if ident == self._first else ident for ident in said.get("user_message_uuids") or ())
        if taken:
            yield Taken(taken)
        yield self._usage(said)
        yield ending(said)

    def _usage(self, said: "dict[str, Any]") -> Event:
        usage, session = said.get("usage") or {}, said.get("session_id") or ""
        spent, total = _spent(usage), float(said.get("total_cost_usd") or 0.0)
        before = self._total
        if before is None:
            # A resumed process counts on from what the conversation had cost, unless it was killed: then it counts from zero.
            ever = sum(_spent_by_model(model) for model in (said.get("modelUsage") or {}).values())
            noted = self._costs.before(session)
            before = noted if noted <= total and ever > sum(spent.values()) else 0.0
        self._total = total
        if session:
            self._costs.note(session, total)
        return Event("agent.usage", {**spent, "cost_usd": round(max(0.0, total - before), 9)})


def ending(said: "dict[str, Any]") -> TurnEnd:
    """How a turn ended by its result line: `is_error` and the terminal reason decide, `subtype` alone does not."""
    subtype, terminal, summary = (
        said.get("subtype") or "",
        said.get("terminal_reason") or "",
        str(said.get("result") or ""),
    )
    errors = "; ".join(str(error) for error in said.get("errors") or ())
    if subtype in LIMITS or terminal in {"max_turns", "budget_exceeded"}:
        return TurnEnd("limit", f"{LIMITS.get(subtype, terminal)} was reached{errors and ': '}{errors}", summary)
    if terminal.startswith("aborted"):
        return TurnEnd("interrupted", terminal.replace("_", " "), summary)
    if not said.get("is_error"):
        return TurnEnd("done", "", summary)
    status = said.get("api_error_status")
    if status:
        return TurnEnd("error", refused(status, summary), summary)
    detail = errors or summary or terminal or subtype
    return TurnEnd("error", detail, summary, session_lost="No conversation found" in errors)


def _spent(usage: "dict[str, Any]") -> "dict[str, int]":
    read = sum(
        int(usage.get(name) or 0) for name in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    )
    return {"input_tokens": read, "output_tokens": int(usage.get("output_tokens") or 0)}


def _spent_by_model(usage: "dict[str, Any]") -> int:
    names = ("inputTokens", "outputTokens", "cacheReadInputTokens", "cacheCreationInputTokens")
    return sum(int(usage.get(name) or 0) for name in names)


def _permission(tool: str, refusal: str) -> Event:
    return Event(
        "agent.permission",
        {"tool": tool, "decision": "deny" if refusal else "allow", "by": "profile", "detail": refusal},
    )


def _reply(said: "dict[str, Any]", answer: "dict[str, Any]") -> Reply:
    response = {"subtype": "success", "request_id": said["request_id"], "response": answer}
    return Reply(json.dumps({"type": "control_response", "response": response}).encode() + b"\n")


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(str(part.get("text") or f"[{part.get('type')}]") for part in parts if isinstance(part, dict))
