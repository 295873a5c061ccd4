"""The runner's side of the plain events: lines in, lines out, and what is said while the agent works."""

import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

OUTPUT_KEPT = 4096


class Stage:
    """Our end of the pipes. Everything else that prints goes to standard error."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        sys.stdout = sys.stderr
        self._lock = threading.Lock()
        self.prompts: "SimpleQueue[dict[str, Any]]" = SimpleQueue()
        """What begins a turn; a line of type `end` at the end of the input."""
        self.steer: "Callable[[dict[str, Any]], bool]" = lambda _said: False
        """Takes in what is said during a turn; False: there is no turn, so it begins one."""
        self.stop: "Callable[[], None]" = lambda: None

    def listen(self) -> None:
        """Begin to read, in a thread: an agent's calls block."""
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in sys.stdin.buffer:
            with contextlib.suppress(ValueError):
                said = json.loads(line)
                if said["type"] == "stop":
                    self.stop()
                elif not self.steer(said):
                    self.prompts.put(said)
        self.prompts.put({"type": "end"})

    def tell(self, **said: Any) -> None:
        """One line."""
        with self._lock:
            self._out.write(json.dumps(said, default=str) + "\n")
            self._out.flush()

    def event(self, event_type: str, **data: Any) -> None:
        """Report something."""
        self.tell(type="event", event_type=event_type, data=data)

    def taken(self, said: "dict[str, Any]") -> None:
        """The agent has this text."""
        self.tell(type="taken", ident=said["ident"])

    def end(self, reason: str, detail: str = "", summary: str = "") -> None:
        """The turn is over."""
        self.tell(type="turn_end", reason=reason, detail=detail[:4000], summary=summary)

    def command(self, ident: str, name: str, command: str) -> None:
        """A command begins."""
        given = {"command": command}
        self.event("agent.tool_use", id=ident, name=name, kind="execute", input=given, status="started")
        self.event("command.started", id=ident, command=command)

    def commanded(self, ident: str, output: str, code: "int | None") -> None:
        """It has ended."""
        if output:
            self.event("command.output", id=ident, text=output[:OUTPUT_KEPT])
        self.event("command.completed", id=ident, exit_code=code)
        self.result(ident, output, ok=code == 0, kind="execute")

    def result(self, ident: str, output: str, *, ok: bool, kind: str) -> None:
        """A tool's result."""
        data = {"id": ident, "ok": ok, "output": output, "status": "finished", "kind": kind}
        self.event("agent.tool_result", **data)


def endpoint(model: str) -> "tuple[str, str, str]":
    """The model as LiteLLM calls it, its server's address and key, as the platform has set them."""
    api, base = os.environ.get("LLM_API", "openai"), os.environ.get("LLM_BASE_URL", "")
    named = model if "/" in model else f"{api}/{model}"
    return named, f"{base}/v1" if base and api == "openai" else base, os.environ.get("LLM_API_KEY", "none")


def reason_of(error: BaseException) -> str:
    """Why an agent failed, with the model's refusal said as everywhere."""
    from shopfloor_worker.refusals import refused

    seen: "BaseException | None" = error
    while seen is not None:
        status = getattr(seen, "status_code", None)
        if isinstance(status, int) and status >= 400:
            return refused(status, str(error))
        seen = seen.__cause__ or seen.__context__
    return f"{type(error).__name__}: {error}"
