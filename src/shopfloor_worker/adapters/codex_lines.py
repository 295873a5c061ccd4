"""What the messages of `codex app-server` mean."""

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any, Optional

from shopfloor_worker.adapters.codex import Talking
from shopfloor_worker.port import Dropped, Event, Fact, Reply, Taken, TurnEnd
from shopfloor_worker.refusals import NUMBERS, forbidden, refused, status_in
from shopfloor_worker.rpc import Answer

SHELL, PATCH = "shell", "apply_patch"
NAMES = {"commandExecution": SHELL, "fileChange": PATCH, "webSearch": "web_search", "imageView": "view_image"}
KINDS = {"commandExecution": "execute", "fileChange": "edit", "webSearch": "search", "imageView": "read"}
TOOLS = frozenset({*NAMES, "mcpToolCall", "dynamicToolCall"})
CHANGES = {"add": "file.created", "delete": "file.deleted", "update": "file.modified"}
STATUSES = {
    "unauthorized": 401,
    "badRequest": 400,
    "modelNotFound": 404,
    "usageLimitExceeded": 429,
    "rateLimitExceeded": 429,
    "serverOverloaded": 529,
    "internalServerError": 500,
}
LIMITS = {"sessionBudgetExceeded": "the budget was reached", "contextWindowExceeded": "the model's context is full"}
GONE = re.compile(r"no rollout|not found|thread .* does not exist", re.IGNORECASE)
ATTEMPTS = re.compile(r"(\d+)/(\d+)")


class Lines:
    """The output of one process."""

    def __init__(self, talking: Talking, options: "dict[str, Any]", model: Optional[str]) -> None:
        self.version: Optional[str] = None
        self._talking, self._options, self._model = talking, options, model
        self._words = ""
        self._trouble: dict[str, Any] = {}
        self._spent = {"input_tokens": 0, "output_tokens": 0}
        self._total = -1
        self._open_tools: "dict[str, tuple[str, str]]" = {}

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
            if answer:
                yield from self._answered(answer)
            return
        if "id" in said:
            yield from self._asked(said)
            return
        name = said["method"].replace("/", "_")
        if name in NOTES and (said["params"].get("threadId") or self._talking.thread) == self._talking.thread:
            yield from getattr(self, f"_{name}")(said["params"])

    # ---- answers
    def _answered(self, answer: Answer) -> "Iterator[Fact]":
        method = answer.about[0]
        if method == "initialize" and not answer.error:
            found = re.search(r"/(\S+)", str(answer.result.get("userAgent") or ""))
            self.version = found[1] if found else None
        elif method in {"thread/start", "thread/resume"}:
            yield from self._opened(answer)
        elif method == "turn/start":
            yield from self._begun(answer)
        elif method == "turn/steer" and answer.error:
            yield from self._not_steered(answer.about[1])
        elif method == "initialize":
            yield TurnEnd("error", f"codex did not start: {_words(answer.error)}")

    def _opened(self, answer: Answer) -> "Iterator[Fact]":
        if answer.error:
            words = _words(answer.error)
            gone = answer.about[0] == "thread/resume" and bool(GONE.search(words))
            yield TurnEnd("error", f"codex did not open its thread: {words}", session_lost=gone)
            return
        talking = self._talking
        talking.thread = answer.result["thread"]["id"]
        self._model = answer.result.get("model") or self._model
        data = {"session_id": talking.thread, "model": self._model, "program_version": self.version}
        yield Event("agent.session", data)
        yield from self._say_next()

    def _say_next(self) -> "Iterator[Fact]":
        talking = self._talking
        if talking.held and talking.thread and not talking.turn and not talking.beginning:
            text, ident = talking.held.pop(0)
            yield Reply(talking.begin(text, ident), (ident,))

    def _begun(self, answer: Answer) -> "Iterator[Fact]":
        if answer.error:
            self._talking.beginning = False
            yield TurnEnd("error", f"codex did not begin its turn: {_words(answer.error)}")
            return
        yield from self._running(answer.result["turn"]["id"])

    def _running(self, turn: str) -> "Iterator[Fact]":
        talking = self._talking
        if not talking.beginning:
            return
        talking.turn, talking.beginning = turn, False
        self._words, self._trouble, self._spent = "", {}, {"input_tokens": 0, "output_tokens": 0}
        if talking.stopping:
            yield Reply(talking.stop())
        held, talking.held = talking.held, []
        for text, ident in held:
            yield Reply(talking.steer(text, ident), (ident,))

    def _not_steered(self, ident: str) -> "Iterator[Fact]":
        """The turn was over already: the text begins the next."""
        talking = self._talking
        text = talking.offered.pop(ident, None)
        if text is not None:
            talking.held.append((text, ident))
            yield from self._say_next()

    # ---- the course of a turn
    def _turn_started(self, told: "dict[str, Any]") -> "Iterator[Fact]":
        yield from self._running(told["turn"]["id"])

    def _turn_completed(self, told: "dict[str, Any]") -> "Iterator[Fact]":
        talking, turn = self._talking, told["turn"]
        talking.turn, talking.beginning = None, False
        if any(self._spent.values()):
            yield Event("agent.usage", {**self._spent, "cost_usd": None})
        for ident, (name, kind) in list(self._open_tools.items()):
            yield from self._cut_short(ident, name, kind)
        end = self._ending(turn)
        left = tuple(talking.offered)
        if left and end.reason != "error":
            if end.reason == "interrupted":
                talking.held[:0] = [(text, ident) for ident, text in talking.offered.items()]
            else:
                yield Dropped(left)
        talking.offered.clear()
        yield end

    def _ending(self, turn: "dict[str, Any]") -> TurnEnd:
        status = turn.get("status")
        if status == "interrupted":
            return TurnEnd("interrupted", "the turn was interrupted", self._words)
        if status == "completed":
            return TurnEnd("done", "", self._words)
        error = turn.get("error") or self._trouble
        kind = _kind(error)
        if kind in LIMITS:
            return TurnEnd("limit", LIMITS[kind], self._words)
        words, code = _said(error) or kind or "the turn failed", _status(error)
        return TurnEnd("error", refused(code, words) if code else words, self._words)

    def _error(self, told: "dict[str, Any]") -> "Iterator[Fact]":
        self._trouble = told["error"]
        if told.get("willRetry"):
            words = str(self._trouble.get("message"))
            found = ATTEMPTS.search(words)
            count, most = (int(found[1]), int(found[2])) if found else (None, None)
            code = _status(self._trouble)
            yield Event("agent.retry", {"status": code, "attempt": count, "max_attempts": most, "delay_ms": None})

    def _thread_tokenUsage_updated(self, told: "dict[str, Any]") -> "Iterator[Fact]":  # noqa: N802 - the program's name
        usage = told["tokenUsage"]
        if usage["total"]["totalTokens"] != self._total and self._talking.turn:
            self._spent["input_tokens"] += int(usage["last"]["inputTokens"])
            self._spent["output_tokens"] += int(usage["last"]["outputTokens"])
        self._total = usage["total"]["totalTokens"]
        return iter(())

    # ---- items
    def _item_started(self, told: "dict[str, Any]") -> "Iterator[Fact]":
        item = told["item"]
        if item["type"] == "userMessage":
            yield from self._took(item)
        elif item["type"] in TOOLS:
            yield from self._tool_use(item)

    def _item_completed(self, told: "dict[str, Any]") -> "Iterator[Fact]":
        item = told["item"]
        kind = item["type"]
        if kind == "userMessage":
            yield from self._took(item)
        elif kind == "agentMessage" and item["text"].strip():
            self._words = item["text"]
            yield Event("agent.message", {"text": item["text"], "partial": False, "message_id": item["id"]})
        elif kind == "reasoning":
            words = "\n".join([*(item.get("summary") or ()), *(item.get("content") or ())])
            if words.strip():
                yield Event("agent.thinking", {"text": words})
        elif kind in TOOLS:
            if item["id"] not in self._open_tools:
                yield from self._tool_use(item)
            yield from self._tool_result(item)

    def _took(self, item: "dict[str, Any]") -> "Iterator[Fact]":
        ident = item.get("clientId")
        if ident and self._talking.offered.pop(ident, None) is not None:
            yield Taken((ident,))

    def _tool_use(self, item: "dict[str, Any]") -> "Iterator[Fact]":
        name = NAMES.get(item["type"]) or _tool_name(item)
        kind = KINDS.get(item["type"], "other")
        self._open_tools[item["id"]] = (name, kind)
        data = {"id": item["id"], "name": name, "kind": kind, "input": _given(item), "status": "started"}
        yield Event("agent.tool_use", data)
        if kind == "execute":
            yield Event("command.started", {"id": item["id"], "command": item.get("command", "")})

    def _tool_result(self, item: "dict[str, Any]") -> "Iterator[Fact]":
        ident, kind = item["id"], KINDS.get(item["type"], "other")
        self._open_tools.pop(ident, None)
        ok = item.get("status", "completed") == "completed" and item.get("success") is not False
        output = _output(item)
        if kind == "execute":
            if output:
                yield Event("command.output", {"id": ident, "text": output[:4096]})
            yield Event("command.completed", {"id": ident, "exit_code": item.get("exitCode")})
            ok = ok and not item.get("exitCode")
        if kind == "edit" and ok:
            for change in item.get("changes") or ():
                yield Event(CHANGES.get(change["kind"]["type"], "file.modified"), {"path": change["path"]})
        yield Event("agent.tool_result", {"id": ident, "ok": ok, "output": output, "status": "finished", "kind": kind})

    def _cut_short(self, ident: str, name: str, kind: str) -> "Iterator[Fact]":
        """A tool that the end of the turn ended."""
        del self._open_tools[ident]
        if kind == "execute":
            yield Event("command.completed", {"id": ident, "exit_code": None})
        data = {"id": ident, "ok": False, "output": f"{name} was stopped", "status": "finished", "kind": kind}
        yield Event("agent.tool_result", data)

    # ---- questions
    def _asked(self, said: "dict[str, Any]") -> "Iterator[Fact]":
        tool = {"item/commandExecution/requestApproval": SHELL, "item/fileChange/requestApproval": PATCH}.get(
            said["method"]
        )
        if tool is None:
            yield Reply(self._talking.rpc.refuse(said))
            return
        verdict = forbidden(self._options, (tool,))
        data = {"tool": tool, "decision": "deny" if verdict else "allow", "by": "profile", "detail": verdict}
        yield Event("agent.permission", data)
        yield Reply(self._talking.rpc.reply(said, {"decision": "decline" if verdict else "accept"}))


NOTES = frozenset(
    {"turn_started", "turn_completed", "thread_tokenUsage_updated", "item_started", "item_completed", "error"}
)


def _words(error: "Optional[dict[str, Any]]") -> str:
    return str((error or {}).get("message") or error)


def _kind(error: "dict[str, Any]") -> str:
    info = error.get("codexErrorInfo")
    return info if isinstance(info, str) else next(iter(info), "") if isinstance(info, dict) else ""


def _status(error: "dict[str, Any]") -> Optional[int]:
    """The HTTP status behind an error, as it is said or as its words name it."""
    info = error.get("codexErrorInfo")
    if isinstance(info, dict):
        for details in info.values():
            if isinstance(details, dict) and details.get("httpStatusCode"):
                return int(details["httpStatusCode"])
    return (
        status_in(str(error.get("message"))) or STATUSES.get(_kind(error)) or NUMBERS.get(_body(error).get("type", ""))
    )


def _body(error: "dict[str, Any]") -> "dict[str, Any]":
    """What the model server said, where the program hands it on as it came."""
    with contextlib.suppress(ValueError):
        said = json.loads(str(error.get("message")))
        if isinstance(said, dict) and isinstance(said.get("error"), dict):
            return dict(said["error"])
    return {}


def _said(error: "dict[str, Any]") -> str:
    return str(_body(error).get("message") or error.get("message") or "")


def _tool_name(item: "dict[str, Any]") -> str:
    prefix = f"{item['server']}__" if item.get("server") else ""
    return f"{prefix}{item.get('tool') or item['type']}"


def _given(item: "dict[str, Any]") -> "dict[str, Any]":
    if item["type"] == "fileChange":
        return {"paths": [change["path"] for change in item.get("changes") or ()]}
    given = item.get("arguments")
    if isinstance(given, dict):
        return given
    return {name: item[name] for name in ("command", "cwd", "query", "path") if item.get(name)}


def _output(item: "dict[str, Any]") -> str:
    if item["type"] == "mcpToolCall":
        found = item.get("error") or item.get("result") or ""
        return found if isinstance(found, str) else json.dumps(found)
    if item["type"] == "fileChange":
        return "\n".join(str(change.get("diff") or "") for change in item.get("changes") or ())
    return str(item.get("aggregatedOutput") or item.get("contentItems") or "")
