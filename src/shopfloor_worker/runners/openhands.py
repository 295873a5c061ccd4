"""Runs the OpenHands SDK. Its calls block while a tool runs, so each has a thread of its own; the conversation is kept on disk."""

import asyncio
import importlib.metadata
import os
import threading
import uuid
from typing import Any

from openhands.sdk import LLM, Agent, AgentContext, Conversation, Tool
from openhands.tools.file_editor import FileEditorTool
from openhands.tools.terminal import TerminalTool
from pydantic import SecretStr

from shopfloor_worker.runners.stage import Stage, endpoint, reason_of
from shopfloor_worker.words import HOUSE_RULES

KINDS = {"terminal": "execute", "file_editor": "edit"}
ENDINGS = {"finish", "think"}
"""Tools that are words, not deeds."""


class Course:
    """One turn after another of one conversation."""

    def __init__(self, stage: Stage, job: "dict[str, Any]", session: str) -> None:
        self.stage, self.summary, self.trouble = stage, "", ""
        self.stopping = self.busy = self.unheard = False
        self._used: "dict[str, str]" = {}
        self._spent = (0, 0, 0.0)
        self._lock = threading.Lock()
        options, name = job["agent"].get("options") or {}, job["agent"]["model"]
        model, base, key = endpoint(name)
        llm = LLM(model=model, base_url=base or None, api_key=SecretStr(key), usage_id="agent", num_retries=2)
        agent = Agent(
            llm=llm,
            tools=[Tool(name=TerminalTool.name), Tool(name=FileEditorTool.name)],
            agent_context=AgentContext(system_message_suffix=HOUSE_RULES),
        )
        ident = uuid.UUID(session) if session else uuid.uuid4()
        self.talk: Any = Conversation(
            agent=agent,
            workspace=job["workspace"],
            persistence_dir=os.path.join(job["home"], ".openhands-conversations"),
            conversation_id=ident,
            callbacks=[self.hear],
            visualizer=None,
            delete_on_close=False,
            max_iteration_per_run=int(options.get("max_iterations") or 500),
        )
        self._spent = self._metrics()
        version = importlib.metadata.version("openhands-sdk")
        stage.event("agent.session", session_id=str(ident), model=name, program_version=version)

    # ---- what is said to it
    def turn(self, said: "dict[str, Any]") -> None:
        """Say a prompt and let the agent work to its end."""
        with self._lock:
            self.busy, self.stopping, self.summary, self.trouble = True, False, "", ""
        try:
            self.talk.send_message(said["text"])
            self.stage.taken(said)
            self.unheard = True
            while self._open():
                asyncio.run(self.talk.arun())
            reason, detail = self._ending()
        except BaseException as error:
            reason, detail = (
                ("interrupted", "the turn was interrupted") if self.stopping else ("error", reason_of(error))
            )
        with self._lock:
            self.busy = False
        self._close(reason, detail)

    def _open(self) -> bool:
        """Whether there is something to work on; if not, the turn takes nothing in any more."""
        with self._lock:
            self.busy, self.unheard = self.unheard and not self.stopping and not self.trouble, False
            return self.busy

    def _close(self, reason: str, detail: str) -> None:
        for ident, kind in list(self._used.items()):
            self._finished(ident, kind, "it was stopped", ok=False, code=None)
        self._usage()
        self.stage.end(reason, detail, self.summary)

    def _ending(self) -> "tuple[str, str]":
        status = str(getattr(self.talk.state.execution_status, "value", self.talk.state.execution_status))
        if self.stopping:
            return "interrupted", "the turn was interrupted"
        if status in {"finished", "idle"}:
            return "done", ""
        if status == "stuck":
            return "error", "the agent went in circles"
        return ("error", self.trouble) if self.trouble else ("limit", f"the agent ended {status}")

    def steer(self, said: "dict[str, Any]") -> bool:
        """Say something to the working agent, before its next call of the model."""
        with self._lock:
            if not self.busy:
                return False
        threading.Thread(target=self._steer, args=(said,), daemon=True).start()
        return True

    def _steer(self, said: "dict[str, Any]") -> None:
        self.talk.send_message(said["text"])  # blocks until the running tool has ended
        with self._lock:
            self.unheard = True
            if self.busy:
                self.stage.taken(said)
                return
        self.stage.prompts.put({**said, "text": "Go on with what was just said to you."})

    def stop(self) -> None:
        """End the turn now."""
        self.stopping = True
        threading.Thread(target=self.talk.interrupt, daemon=True).start()

    # ---- what it says
    def hear(self, event: Any) -> None:
        """An event of the conversation."""
        kind = type(event).__name__
        if event.source == "agent":
            self.unheard = False
        if kind == "MessageEvent" and event.source == "agent":
            self._words(_text(event.llm_message.content))
        elif kind == "ActionEvent":
            self._action(event)
        elif kind == "ObservationEvent":
            self._observation(event)
        elif kind in {"AgentErrorEvent", "UserRejectObservation"}:
            words = str(getattr(event, "error", "") or getattr(event, "rejection_reason", ""))
            used = self._used.get(event.tool_call_id)
            if used:
                self._finished(event.tool_call_id, used, words, ok=False, code=None)
        elif kind == "ConversationErrorEvent":
            self.trouble = f"{event.code}: {event.detail}"

    def _words(self, words: str) -> None:
        if words.strip():
            self.summary = words
            self.stage.event("agent.message", text=words, partial=False, message_id=None)

    def _action(self, event: Any) -> None:
        thought = _text(event.thought)
        if event.tool_name == "finish":
            self._words(str(getattr(event.action, "message", "")) or thought)
            return
        if thought.strip():
            self._words(thought)
        if event.reasoning_content:
            self.stage.event("agent.thinking", text=event.reasoning_content)
        if event.tool_name in ENDINGS or event.action is None:
            return
        ident, kind = event.tool_call_id, KINDS.get(event.tool_name, "other")
        given = event.action.model_dump(mode="json", exclude_none=True, exclude={"kind"})
        if kind == "edit" and given.get("command") == "view":
            kind = "read"
        self._used[ident] = kind
        if kind == "execute":
            self.stage.command(ident, event.tool_name, str(given.get("command", "")))
        else:
            data = {"id": ident, "name": event.tool_name, "kind": kind, "input": given, "status": "started"}
            self.stage.event("agent.tool_use", **data)

    def _observation(self, event: Any) -> None:
        ident = event.tool_call_id
        kind = self._used.get(ident)
        if kind is None:
            return
        seen = event.observation
        bad = bool(getattr(seen, "is_error", False))
        code = getattr(seen, "exit_code", None)
        if kind == "edit" and not bad and getattr(seen, "path", None):
            fresh = getattr(seen, "prev_exist", True) is False
            self.stage.event("file.created" if fresh else "file.modified", path=str(seen.path))
        self._finished(ident, kind, _text(getattr(seen, "content", "")), ok=not bad, code=code)

    def _finished(self, ident: str, kind: str, output: str, *, ok: bool, code: "int | None") -> None:
        self._used.pop(ident, None)
        if kind == "execute":
            self.stage.commanded(ident, output, code)
        else:
            self.stage.result(ident, output, ok=ok, kind=kind)

    # ---- what it costs
    def _metrics(self) -> "tuple[int, int, float]":
        found = self.talk.conversation_stats.get_combined_metrics()
        tokens = found.accumulated_token_usage
        read, wrote = (tokens.prompt_tokens, tokens.completion_tokens) if tokens else (0, 0)
        return read, wrote, float(found.accumulated_cost or 0.0)

    def _usage(self) -> None:
        before, self._spent = self._spent, self._metrics()
        read, wrote, cost = (max(0, now - then) for now, then in zip(self._spent, before))
        if read or wrote:
            self.stage.event("agent.usage", input_tokens=read, output_tokens=wrote, cost_usd=round(cost, 9) or None)


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(str(part.text) for part in content or () if getattr(part, "text", None))


def main(job: "dict[str, Any]", session: str) -> int:
    """Serve prompts until the input ends."""
    stage = Stage()
    course = Course(stage, job, session)
    stage.steer, stage.stop = course.steer, course.stop
    stage.listen()
    while (said := stage.prompts.get())["type"] != "end":
        course.turn(said)
    return 0
