"""The conversation with the agent: one turn at a time, messages in at the earliest point, interrupts, ends by force."""

import os
import queue
import signal
import time
from dataclasses import dataclass, field
from typing import Any, Optional

from shopfloor_worker import child
from shopfloor_worker.adapters import new_uuid
from shopfloor_worker.child import Child
from shopfloor_worker.mail import Mail, Message
from shopfloor_worker.outbox import Outbox, shorten
from shopfloor_worker.port import Adapter, Dropped, Event, Fact, Reply, Taken, Tally, TurnEnd
from shopfloor_worker.repo import Files

INTERRUPT_SECONDS = 5.0
"""An agent that does not end its turn so long after an interrupt is ended by force."""
LATE_SECONDS = 10.0
"""A text handed over just before the turn's end starts a turn of its own within so long, or is said again."""
RAW_KEPT = 16 * 1024
OUTPUT_KEPT = 4 * 1024
LOG_KEPT = 64 << 20
CARRY_RAW = {
    f"agent.{name}" for name in ("session", "message", "thinking", "tool_use", "tool_result", "permission", "retry")
}
"""One event of a line carries the line itself."""
ENDS = {"stop", "away", "unwanted", "broken"}


@dataclass
class Outcome:
    """How a turn ended: done, interrupted, limit, error, crash, lost_session; or what ends the worker (ENDS)."""

    kind: str
    detail: str = ""
    summary: str = ""
    exit_code: Optional[int] = None


@dataclass
class Turn:
    """What is known of the running turn."""

    step: str
    deadline: float
    open: "dict[str, Optional[Message]]" = field(default_factory=dict)
    """Texts handed to the program and not yet taken in, by ident."""
    used: "list[Message]" = field(default_factory=list)
    """Messages this turn took in."""
    started: bool = False
    """The agent has taken in what the turn was begun with."""
    ended: Optional[TurnEnd] = None
    ended_at: float = 0
    why: str = ""
    """Set once the turn is to be stopped: interrupted or limit."""
    stopping_at: float = 0
    reason: str = ""


class Talk:
    """Everything said between worker and agent. Only the main thread calls its methods; other threads use `inbox`."""

    def __init__(
        self, job: "dict[str, Any]", adapter: Adapter, outbox: Outbox, mail: Mail, early: Optional[Child]
    ) -> None:
        self.job, self.adapter, self.outbox, self.mail, self.child = job, adapter, outbox, mail, early
        self.inbox: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self.tally, self.action, self.started = Tally(), "initializing", False
        self.files: Optional[Files] = None
        self.seconds = float(job["agent"].get("turn_timeout_seconds") or 3600)
        self.patience = float(job["agent"].get("interrupt_seconds") or INTERRUPT_SECONDS)
        self._early = early is not None
        self._queued: dict[str, Optional[Message]] = {}
        self._log = open(os.path.join(job["spool"], "agent.jsonl"), "ab")  # noqa: SIM115 - open as long as the worker lives
        if early:
            self._attend(early)

    def turn(self, prompt: str, step: str, messages: "Optional[list[Message]]" = None) -> Outcome:
        """Say the prompt (or messages) and follow the agent to the end of its turn."""
        turn = Turn(step, time.monotonic() + self.seconds, self._queued)
        self._queued = {}
        self._begin(turn, prompt, messages or [])
        for message in self.mail.everything():
            self._hear(turn, message)
        outcome = None
        while outcome is None:
            outcome = self._happen(turn, self._next(turn))
        self.started = turn.started
        self._queued = turn.open
        if outcome.kind != "interrupted" or self.child is None:
            self.mail.put_back(self._carried())
        self.mail.settle(turn.used, outcome.kind, outcome.detail)
        return outcome

    def _carried(self) -> "list[Message]":
        """Texts the program still has in its queue; they are said again when it cannot say them to the agent itself."""
        queued, self._queued = self._queued, {}
        return [message for message in queued.values() if message]

    def _begin(self, turn: Turn, prompt: str, messages: "list[Message]") -> None:
        self.action = "thinking"
        if self._early:
            self._early = False
            turn.open["prompt-1"] = None
            return
        if self.child is None or not self.child.running:
            self.child = child.launch(self.adapter, self.job)
            self._attend(self.child)
            if opening := self.adapter.opening():  # b"" would close its input
                self.child.write(opening)
        if not messages:
            self._say(turn, prompt, "prompt", None)
        for message in messages:
            self._say(turn, message.content, message.kind, message)

    def _attend(self, started: Child) -> None:
        data = {
            "adapter": self.adapter.name,
            "model": self.job["agent"].get("model"),
            "session_id": self.adapter.session_id,
            "program_version": self.adapter.version,
        }
        self.outbox.event("agent.started", data, at=started.started_at)
        started.listen(lambda who, line: self.inbox.put(("line", who, line)), self._keep)

    def _keep(self, line: bytes) -> None:
        if self._log.tell() < LOG_KEPT:
            self._log.write(line)
            self._log.flush()

    def _next(self, turn: Turn) -> "tuple[Any, ...]":
        left = self._alarm_at(turn) - time.monotonic()
        try:
            return self.inbox.get(timeout=max(0.01, min(left, 60.0)))
        except queue.Empty:
            return ("tick",)

    def _happen(self, turn: Turn, item: "tuple[Any, ...]") -> Optional[Outcome]:
        if item[0] == "line":
            if item[1] is not self.child:
                return None
            return self._gone(turn) if item[2] is None else self._line(turn, item[2])
        if item[0] in ENDS:
            self.outbox.event("agent.turn_end", {"reason": "interrupted", "detail": item[1]})
            return Outcome(item[0], item[1])
        if item[0] == "message" and self.mail.accept(item[1]):
            for message in self.mail.waiting():
                self._hear(turn, message)
        elif item[0] == "written":
            self.mail.advance(item[1], "delivered")
        return self._alarm(turn)

    def catch_up(self) -> None:
        """Take in what was said between turns."""
        kept = []
        while not self.inbox.empty():
            item = self.inbox.get()
            if item[0] == "message":
                self.mail.accept(item[1])
            elif item[0] == "written":
                self.mail.advance(item[1], "delivered")
            else:
                kept.append(item)
        for item in kept:
            self.inbox.put(item)

    # ---- time
    def _alarm_at(self, turn: Turn) -> float:
        if turn.stopping_at:
            return turn.stopping_at + self.patience
        if turn.ended:
            return turn.ended_at + LATE_SECONDS
        return turn.deadline

    def _alarm(self, turn: Turn) -> Optional[Outcome]:
        if time.monotonic() < self._alarm_at(turn):
            return None
        if turn.stopping_at:
            self.halt(polite=0.1)
            detail = turn.reason or "the agent did not react to the interrupt and was ended by force"
            return self._ended(turn.why, detail)
        if turn.ended:
            return self._end(turn, turn.ended)
        self._stop_turn(turn, "limit", f"the turn took longer than the {self.seconds:g} s allowed")
        return None

    def _stop_turn(self, turn: Turn, why: str, reason: str = "") -> None:
        if turn.stopping_at:
            return
        turn.why, turn.reason, turn.stopping_at, turn.ended = why, reason, time.monotonic(), None
        self.action = "interrupting"
        if self.child:
            self.child.write(self.adapter.interrupt())

    # ---- ends
    def _gone(self, turn: Turn) -> Outcome:
        assert self.child
        gone, self.child = self.child, None
        if gone.failure:
            return self._ended("error", gone.failure)
        code = gone.wait(5)
        code = gone.stop(0, 1) if code is None else code
        child.sweep(gone.mark)
        if turn.ended:
            return self._end(turn, turn.ended)
        if turn.stopping_at:
            return self._ended(turn.why, turn.reason or "the agent program ended")
        if code is not None and (code < 0 or code > 128):
            name = signal.Signals(-code if code < 0 else code - 128).name
            outcome = self._ended("error", f"the agent program was killed by {name} before its turn ended")
            return Outcome("crash", outcome.detail, exit_code=code)
        said = gone.stderr.decode("utf-8", "replace").strip()[-1000:]
        return self._ended(
            "error", f"the agent program ended with exit code {code} before its turn did{said and ': '}{said}"
        )

    def _ended(self, reason: str, detail: str) -> Outcome:
        self.outbox.event("agent.turn_end", {"reason": reason, "detail": detail})
        return Outcome(reason, detail)

    def _end(self, turn: Turn, end: TurnEnd) -> Outcome:
        if end.session_lost:
            return Outcome("lost_session", end.detail)
        return Outcome(turn.why or end.reason, turn.reason or end.detail, end.summary)

    def halt(self, polite: float = 2.0, term: float = 1.0) -> None:
        """End the agent program with everything it started."""
        gone, self.child = self.child, None
        if gone:
            gone.write(self.adapter.interrupt())
            gone.stop(polite, term)
        self.mail.put_back(self._carried())

    # ---- what the program says
    def _line(self, turn: Turn, line: bytes) -> Optional[Outcome]:
        raw = line[:RAW_KEPT].decode("utf-8", "replace").rstrip("\n")
        for fact in self.adapter.read(line):
            carries = not isinstance(fact, Event) or fact.event_type in CARRY_RAW
            self._learn(turn, fact, raw if carries else "")
            raw = "" if carries and isinstance(fact, Event) else raw
        if turn.ended and (turn.stopping_at or not turn.open):
            return self._end(turn, turn.ended)
        return None

    def _learn(self, turn: Turn, fact: Fact, raw: str) -> None:
        if isinstance(fact, Event):
            self._report(fact, raw)
        elif isinstance(fact, Reply):
            self._reply(turn, fact)
        elif isinstance(fact, Taken):
            for ident in fact.idents:
                self._taken(turn, ident)
        elif isinstance(fact, Dropped):
            self.mail.put_back([m for m in (turn.open.pop(ident, None) for ident in fact.idents) if m])
        else:
            turn.ended, turn.ended_at = fact, time.monotonic()
            data = {"reason": turn.why or fact.reason, "detail": turn.reason or fact.detail, "raw": raw}
            self.outbox.event("agent.turn_end", data, source="agent")

    def _reply(self, turn: Turn, reply: Reply) -> None:
        held = [message for message in map(turn.open.get, reply.idents) if message]

        def written() -> None:
            for message in held:
                self.inbox.put(("written", message))

        if self.child:
            self.child.write(reply.data, written)

    def _taken(self, turn: Turn, ident: str) -> None:
        if ident not in turn.open:
            return
        message = turn.open.pop(ident)
        steered = turn.started
        turn.started, turn.ended = True, None
        if message:
            turn.used.append(message)
            self.mail.advance(message, "seen")
            if steered:
                self.outbox.event("agent.steered", {"message_id": message.message_id})

    def _report(self, fact: Event, raw: str) -> None:
        data = dict(fact.data)
        if fact.event_type == "agent.usage":
            self.tally.add(data)
        elif fact.event_type == "agent.tool_use":
            self.action = _action(data)
        elif fact.event_type == "agent.tool_result":
            self.action = "thinking"
            data["output"] = shorten(data.get("output", ""), OUTPUT_KEPT)
            if data.pop("kind", "other") in {"execute", "other"} and self.files:
                self.files.nudge()
        elif fact.event_type.startswith("file."):
            if self.files is None:
                return
            data["path"] = self.files.told(data["path"])
        if raw:
            data["raw"] = raw
        self.outbox.event(fact.event_type, data, source="agent")

    # ---- what is said to it
    def _hear(self, turn: Turn, message: Message) -> None:
        if message.kind != "interrupt" or message.state != "accepted":
            self._say(turn, message.content, message.kind, message)
            return
        self._stop_turn(turn, "interrupted")
        self.mail.advance(message, "delivered")
        if message.content.strip():
            self.mail.put_back([message])
        else:
            turn.used.append(message)

    def _say(self, turn: Turn, text: str, kind: str, message: Optional[Message]) -> None:
        ident = new_uuid()
        turn.open[ident] = message
        assert self.child
        written = (lambda: self.inbox.put(("written", message))) if message else None
        self.child.write(self.adapter.say(text, ident, kind, turn.step), written)


def _action(data: "dict[str, Any]") -> str:
    given = data.get("input")
    values = given.values() if isinstance(given, dict) else ()
    first = next((v for v in values if isinstance(v, str) and v), "")
    return f"{data.get('name', '')}: {first.splitlines()[0][:200]}" if first else str(data.get("name", ""))
