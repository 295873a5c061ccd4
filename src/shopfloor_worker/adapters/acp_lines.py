"""What the messages of an Agent Client Protocol program mean."""

import json
import re
from collections.abc import Iterator
from typing import Any, Optional

from shopfloor_worker.adapters.acp import Talking
from shopfloor_worker.costs import Costs
from shopfloor_worker.port import Dropped, Event, Fact, Reply, Taken, TurnEnd
from shopfloor_worker.refusals import forbidden, refused, status_in
from shopfloor_worker.rpc import Answer

KINDS = {
    **dict.fromkeys(("edit", "delete", "move"), "edit"),
    **dict.fromkeys(("search", "fetch"), "search"),
    "read": "read",
    "execute": "execute",
}
LIMITS = {"max_tokens": "the model's limit of tokens", "max_turn_requests": "the limit of turns"}
AUTH_REQUIRED = -32000
WORK = {"agent_message_chunk", "agent_thought_chunk", "tool_call", "plan"}
OPENING = {"initialize", "authenticate", "session/new", "session/load", "session/resume", "session/set_mode"}
TOOL_IN_ID = re.compile(r"([a-z][a-z_]+)__\1_\d")
"""Gemini titles a call by what it does and names its tool only here."""
EXIT_CODE = re.compile(r"[Ee]xit code:? (\d+)")


class Tool:
    """A tool call from its first mention to its end."""

    def __init__(self, ident: str) -> None:
        self.ident, self.name, self.title, self.kind, self.word = ident, "", "", "other", ""
        self.given: "dict[str, Any]" = {}
        self.content: "list[dict[str, Any]]" = []
        self.raw: Any = None
        self.told = False

    def learn(self, said: "dict[str, Any]") -> None:
        """Take in what an update says; it says only what is new."""
        self.title = str(said.get("title") or self.title)
        named = TOOL_IN_ID.match(self.ident)
        self.name = self.name or (named[1] if named else self.title)
        self.word = str(said.get("kind") or self.word)
        self.kind = KINDS.get(self.word, "other")
        given = said.get("rawInput")
        self.given = given if isinstance(given, dict) and given else self.given
        self.content = said["content"] or [] if "content" in said else self.content
        self.raw = said.get("rawOutput", self.raw)

    @property
    def command(self) -> str:
        """The command of a tool that runs one."""
        return str(self.given.get("command") or self.title)

    @property
    def output(self) -> str:
        """What came of it, in words."""
        texts = [part["content"].get("text", "") for part in self.content if part.get("type") == "content"]
        if isinstance(self.raw, dict):
            texts = texts or [str(self.raw.get("output") or self.raw.get("error") or "")]
        return "\n".join(text for text in texts if text) or (self.raw if isinstance(self.raw, str) else "")

    def exit_code(self, ok: bool) -> Optional[int]:
        """Of a command; as told, else by its words."""
        details = self.raw.get("metadata") if isinstance(self.raw, dict) else None
        for told in (details, self.raw):
            if isinstance(told, dict):
                for name in ("exit", "exitCode", "exit_code"):
                    if name in told:
                        return told[name] if isinstance(told[name], int) else None
        found = EXIT_CODE.search(self.output)
        return int(found[1]) if found else 0 if ok else None

    def files(self) -> "Iterator[Event]":
        """The files it changed, where it shows how."""
        for diff in (part for part in self.content if part.get("type") == "diff"):
            yield Event("file.modified" if diff.get("oldText") else "file.created", {"path": diff["path"]})


class Lines:
    """The output of one process."""

    def __init__(self, talking: Talking, costs: Costs, model: Optional[str]) -> None:
        self.version: Optional[str] = None
        self._talking, self._costs, self._model = talking, costs, model
        self._can: dict[str, Any] = {}
        self._tools: dict[str, Tool] = {}
        self._words, self._said = "", ""
        self._speaking = ""
        self._total: Optional[float] = None
        self._opened = self._authenticated = False

    def read(self, line: bytes) -> "list[Fact]":
        """The facts in a line; an unknown kind of line has none."""
        facts: list[Fact] = []
        try:
            facts.extend(self._meaning(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass  # a line of a shape we do not know; what was understood before it counts, the raw line is kept
        return facts

    def _meaning(self, said: "dict[str, Any]") -> "Iterator[Fact]":
        if "method" not in said:
            answer = self._talking.rpc.answer(said)
            if answer and answer.about[0] in OPENING:
                yield from self._opening(answer)
            elif answer:
                yield from self._prompt_answered(answer)
        elif "id" in said:
            yield from self._asked(said)
        elif said["method"] == "session/update" and self._opened and self._ours(said["params"]):
            yield from self._update(said["params"]["update"])

    def _ours(self, params: "dict[str, Any]") -> bool:
        return bool(params["sessionId"] == self._talking.session)

    # ---- opening a session
    def _opening(self, answer: Answer) -> "Iterator[Fact]":
        method = answer.about[0]
        talking, options = self._talking, self._talking.options
        if answer.error:
            yield from self._not_opened(method, answer.error)
            return
        if method == "initialize":
            self._can = answer.result.get("agentCapabilities") or {}
            self.version = (answer.result.get("agentInfo") or {}).get("version")
            if options.get("auth"):
                yield self._authenticate()
                return
        if method in {"initialize", "authenticate"}:
            yield self._session()
            return
        if method != "session/set_mode":
            talking.session = answer.result.get("sessionId") or talking.wanted
            talking.fresh = method == "session/new"
            models = answer.result.get("models") or {}
            data = {"session_id": talking.session, "model": self._model or models.get("currentModelId")}
            yield Event("agent.session", {**data, "program_version": self.version})
            if options.get("mode"):
                params = {"sessionId": talking.session, "modeId": options["mode"]}
                yield Reply(talking.rpc.request("session/set_mode", params))
                return
        self._opened = True
        if talking.held:
            yield Reply(*talking.flush())

    def _session(self) -> Reply:
        talking = self._talking
        params: dict[str, Any] = {"cwd": talking.workspace, "mcpServers": []}
        if not talking.wanted:
            return Reply(talking.rpc.request("session/new", params))
        resume = (self._can.get("sessionCapabilities") or {}).get("resume") is not None
        if not resume and not self._can.get("loadSession"):
            talking.wanted = None
            return Reply(talking.rpc.request("session/new", params))
        method = "session/resume" if resume else "session/load"
        return Reply(talking.rpc.request(method, {**params, "sessionId": talking.wanted}))

    def _authenticate(self) -> Reply:
        self._authenticated = True
        return Reply(self._talking.rpc.request("authenticate", {"methodId": self._talking.options["auth"]}))

    def _not_opened(self, method: str, error: "dict[str, Any]") -> "Iterator[Fact]":
        words = _error_words(error)
        if method == "session/set_mode":
            yield TurnEnd("error", f"the agent has no mode {self._talking.options.get('mode')!r}: {words}")
        elif method in {"session/load", "session/resume"}:
            yield TurnEnd("error", f"the session could not be loaded: {words}", session_lost=True)
        elif error.get("code") == AUTH_REQUIRED:
            yield TurnEnd("error", f"the agent wants to be logged in (its profile's option `auth` or a key): {words}")
        else:
            yield TurnEnd("error", f"the agent refused {method}: {words}")

    # ---- the end of a prompt
    def _prompt_answered(self, answer: Answer) -> "Iterator[Fact]":
        talking, idents = self._talking, answer.about[1:]
        talking.running.pop(idents[0], None)
        reason = str(answer.result.get("stopReason") or "")
        if answer.error is None and (reason != "cancelled" or not talking.running):
            yield Taken(idents)
        yield from self._finish_words()
        if talking.running:  # this prompt joined another, or another joined it
            if answer.error:
                yield Dropped(idents)
            return
        yield from self._usage(answer.result)
        for tool in list(self._tools.values()):
            yield from self._tool_end(tool, ok=False)
        if talking.replacing and talking.held and not answer.error:
            talking.replacing = False
            yield Reply(*talking.flush())
            return
        end = self._ending(reason, answer.error)
        if talking.held and end.reason == "done":
            yield Dropped(tuple(ident for _, ident in talking.held))
            talking.held = []
        self._said = ""
        yield end

    def _ending(self, reason: str, error: "Optional[dict[str, Any]]") -> TurnEnd:
        if error:
            words = _error_words(error)
            status = _error_status(error) or status_in(words)
            return TurnEnd("error", refused(status, words) if status else words, self._said)
        if reason == "cancelled":
            return TurnEnd("interrupted", "the turn was cancelled", self._said)
        if reason in LIMITS:
            return TurnEnd("limit", f"{LIMITS[reason]} was reached", self._said)
        if reason == "refusal":
            return TurnEnd("error", "the model refused to go on", self._said)
        return TurnEnd("done", "", self._said)

    def _usage(self, result: "dict[str, Any]") -> "Iterator[Fact]":
        usage = result.get("usage") or {}
        quota = ((result.get("_meta") or {}).get("quota") or {}).get("token_count") or {}
        spent = {
            "input_tokens": int(usage.get("inputTokens") or quota.get("input_tokens") or 0)
            + int(usage.get("cachedReadTokens") or 0)
            + int(usage.get("cachedWriteTokens") or 0),
            "output_tokens": int(usage.get("outputTokens") or quota.get("output_tokens") or 0)
            + int(usage.get("thoughtTokens") or 0),
        }
        cost = self._cost()
        if any(spent.values()) or cost:
            yield Event("agent.usage", {**spent, "cost_usd": cost})

    def _cost(self) -> Optional[float]:
        """What the conversation has cost since it was last told; programs tell totals."""
        total, session = self._total, self._talking.session or ""
        if total is None:
            return None
        before = self._costs.before(session)
        self._costs.note(session, total)
        return round(total - before if total >= before else total, 9)

    # ---- the course of a turn
    def _update(self, said: "dict[str, Any]") -> "Iterator[Fact]":
        kind = said["sessionUpdate"]
        if self._talking.fresh_turn and kind in WORK:
            yield Taken(self._talking.fresh_turn)
            self._talking.fresh_turn = ()
        if kind in {"agent_message_chunk", "agent_thought_chunk"}:
            if self._speaking != kind:
                yield from self._finish_words()
            self._speaking = kind
            self._words += str((said.get("content") or {}).get("text") or "")
        elif kind in {"tool_call", "tool_call_update"}:
            yield from self._finish_words()
            yield from self._tool(said)
        elif kind == "usage_update":
            cost = said.get("cost") or {}
            if cost.get("currency", "USD") == "USD" and cost.get("amount") is not None:
                self._total = float(cost["amount"])

    def _finish_words(self) -> "Iterator[Fact]":
        words, self._words = self._words, ""
        if not words.strip():
            return
        if self._speaking == "agent_message_chunk":
            self._said = words
            yield Event("agent.message", {"text": words, "partial": False, "message_id": None})
        else:
            yield Event("agent.thinking", {"text": words})

    def _tool(self, said: "dict[str, Any]") -> "Iterator[Fact]":
        ident, status = str(said["toolCallId"]), said.get("status")
        if status in {"completed", "failed"} and ident not in self._tools and said["sessionUpdate"] != "tool_call":
            return  # it ended already
        tool = self._tools.setdefault(ident, Tool(ident))
        tool.learn(said)
        if status not in {None, "pending"}:
            yield from self._tool_use(tool)
        if status in {"completed", "failed"}:
            yield from self._tool_end(tool, ok=status == "completed")

    def _tool_use(self, tool: Tool) -> "Iterator[Fact]":
        if tool.told:
            return
        tool.told = True
        given = tool.given or {"title": tool.title}
        data = {"id": tool.ident, "name": tool.name, "kind": tool.kind, "input": given, "status": "started"}
        yield Event("agent.tool_use", data)
        if tool.kind == "execute":
            yield Event("command.started", {"id": tool.ident, "command": tool.command})

    def _tool_end(self, tool: Tool, *, ok: bool) -> "Iterator[Fact]":
        self._tools.pop(tool.ident, None)
        yield from self._tool_use(tool)
        output = tool.output
        stopped = self._talking.cancelling  # some say then that a command they killed has completed
        ok = ok and not stopped
        if tool.kind == "execute":
            if output:
                yield Event("command.output", {"id": tool.ident, "text": output[:4096]})
            code = None if stopped else tool.exit_code(ok)
            yield Event("command.completed", {"id": tool.ident, "exit_code": code})
            ok = ok and code == 0
        changed = list(tool.files()) if tool.kind == "edit" and ok else []
        yield from changed
        # Where it does not say what it changed, the work tree is looked at, as after a command.
        kind = "other" if tool.kind == "edit" and ok and not changed else tool.kind
        data = {"id": tool.ident, "ok": ok, "output": output, "status": "finished", "kind": kind}
        yield Event("agent.tool_result", data)

    # ---- questions
    def _asked(self, said: "dict[str, Any]") -> "Iterator[Fact]":
        if said["method"] != "session/request_permission":
            yield Reply(self._talking.rpc.refuse(said))
            return
        asked, options = said["params"]["toolCall"], said["params"]["options"]
        tool = self._tools.setdefault(str(asked["toolCallId"]), Tool(str(asked["toolCallId"])))
        tool.learn(asked)
        yield from self._tool_use(tool)
        verdict = forbidden(self._talking.options, (tool.name, tool.word, tool.title))
        data = {"tool": tool.name, "decision": "deny" if verdict else "allow", "by": "profile", "detail": verdict}
        yield Event("agent.permission", data)
        yield Reply(self._talking.rpc.reply(said, {"outcome": _chosen(options, "reject" if verdict else "allow")}))


def _chosen(options: "list[dict[str, Any]]", wanted: str) -> "dict[str, Any]":
    """The answer among those offered; none of the kind: the question is cancelled."""
    for kind in (f"{wanted}_once", f"{wanted}_always"):
        for option in options:
            if option.get("kind") == kind:
                return {"outcome": "selected", "optionId": option["optionId"]}
    return {"outcome": "cancelled"}


def _error_words(error: "dict[str, Any]") -> str:
    words, data = str(error.get("message") or error), error.get("data")
    more = data if isinstance(data, str) else ""
    if isinstance(data, dict):
        more = str(data.get("message") or data.get("details") or data.get("error") or data.get("errorName") or "")
    return f"{words} ({more})" if more and more not in words else words


def _error_status(error: "dict[str, Any]") -> Optional[int]:
    data = error.get("data")
    known = [data.get(name) for name in ("status", "statusCode")] if isinstance(data, dict) else []
    return next(
        (int(told) for told in [*known, error.get("code")] if isinstance(told, int) and 400 <= told < 600), None
    )
