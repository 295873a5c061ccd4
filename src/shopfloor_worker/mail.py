"""Messages said to the agent: kept on disk with how far each has come, so that one leased again is not said twice."""

import contextlib
import json
import os
from dataclasses import dataclass
from typing import Any

from shopfloor_worker.outbox import Outbox

ORDER = ("accepted", "delivered", "seen", "done", "failed")
ALIASES = {"guardian_nudge": "guardian_intervention", "system": "user_message"}


@dataclass(eq=False)
class Message:
    """Something said to the agent."""

    message_id: str
    kind: str
    content: str
    state: str = "accepted"

    @property
    def ends_the_order(self) -> bool:
        """An interrupt that does not say what to do instead."""
        return self.kind == "interrupt" and not self.content.strip()


class Mail:
    """Every message of the job. Used by the main thread only."""

    def __init__(self, folder: str, outbox: Outbox) -> None:
        self._outbox, self._path = outbox, os.path.join(folder, "messages.jsonl")
        self._states: dict[str, tuple[str, str]] = {}
        self._waiting: list[Message] = []
        self._held: list[Message] = []
        self._unfinished: list[Message] = []
        with contextlib.suppress(OSError), open(self._path, encoding="utf-8") as file:
            for line in file:
                with contextlib.suppress(ValueError):
                    noted = json.loads(line)
                    self._states[noted["id"]] = (noted["state"], noted["detail"])
        self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115 - open as long as the worker lives

    def accept(self, told: "dict[str, Any]") -> bool:
        """A message came in; False when it is an old one, which is only acknowledged again."""
        known = self._states.get(told["message_id"])
        if known:
            if known[0] != "accepted":
                self._outbox.receipt(told["message_id"], *known)
            return False
        kind = ALIASES.get(told["message_type"], told["message_type"])
        self._states[told["message_id"]] = ("accepted", "")
        self._waiting.append(Message(told["message_id"], kind, told["content"]))
        return True

    def waiting(self) -> "list[Message]":
        """Take what has just come in; what was put back waits for the next turn."""
        taken, self._waiting = self._waiting, []
        return taken

    def everything(self) -> "list[Message]":
        """Take all that is to be said."""
        taken, self._held, self._waiting = [*self._held, *self._waiting], [], []
        return taken

    def put_back(self, messages: "list[Message]") -> None:
        """These were not said after all, or are to be said in the next turn."""
        self._held.extend(messages)

    def advance(self, message: Message, state: str, detail: str = "") -> None:
        """Note how far a message has come and tell the server; never backwards."""
        if ORDER.index(state) <= ORDER.index(message.state) or message.state == "done":
            return
        message.state = state
        self._states[message.message_id] = (state, detail)
        self._file.write(json.dumps({"id": message.message_id, "state": state, "detail": detail}) + "\n")
        self._file.flush()
        self._outbox.receipt(message.message_id, state, detail)

    def settle(self, used: "list[Message]", outcome: str, detail: str) -> None:
        """A turn has ended: what it used is done with, unless its program died and will go on with it."""
        self._unfinished.extend(used)
        if outcome == "crash":
            return
        used, self._unfinished = self._unfinished, []
        for message in used:
            good = outcome in {"done", "interrupted"}
            self.advance(message, "done" if good else "failed", "" if good else detail)

    def refuse(self, detail: str) -> None:
        """Nobody will hear what is left."""
        for message in self.everything():
            self.advance(message, "failed", detail)
