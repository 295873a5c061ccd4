"""What an agent adapter must do, and the facts it reads from its program's lines."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Optional, Protocol, Union


@dataclass(frozen=True)
class Event:
    """Something to report. `path` events of files are checked against the work tree by the caller."""

    event_type: str
    data: "dict[str, Any]"


@dataclass(frozen=True)
class Reply:
    """Bytes the program waits for. `idents` are the texts that are in them, which could not be written when they were said."""

    data: bytes
    idents: "tuple[str, ...]" = ()


@dataclass(frozen=True)
class Taken:
    """The program took these texts in (the idents given to `say`)."""

    idents: "tuple[str, ...]"


@dataclass(frozen=True)
class Dropped:
    """The program will not take these texts in."""

    idents: "tuple[str, ...]"


@dataclass(frozen=True)
class TurnEnd:
    """The turn is over. reason: done, interrupted, limit, error."""

    reason: str
    detail: str = ""
    summary: str = ""
    session_lost: bool = False
    """The conversation to be continued does not exist: start a new one."""


Fact = Union[Event, Reply, Taken, Dropped, TurnEnd]


@dataclass
class Tally:
    """Sums over the whole job."""

    cost_usd: Optional[float] = None
    tokens: "dict[str, int]" = field(default_factory=dict)

    def add(self, data: "dict[str, Any]") -> None:
        """Count an agent.usage event."""
        if data.get("cost_usd") is not None:
            self.cost_usd = round((self.cost_usd or 0.0) + float(data["cost_usd"]), 9)
        for name in ("input_tokens", "output_tokens"):
            self.tokens[name] = self.tokens.get(name, 0) + int(data.get(name) or 0)


class Adapter(Protocol):
    """One kind of agent program. Its constructor takes the job; it must be cheap, it runs before the agent starts."""

    name: str
    session_id: Optional[str]
    version: Optional[str]

    def command(self) -> "list[str]":
        """The program and its arguments; continues the conversation `session_id` when there is one."""

    def environment(self) -> "dict[str, str]":
        """What the program's environment needs beyond the job's."""

    def opening(self) -> bytes:
        """What to write when the program has started."""

    def say(self, text: str, ident: str, kind: str, step: str) -> bytes:
        """A text for the agent; kind: prompt, user_message, guardian_intervention, interrupt. Joins a running turn.

        Empty when the program cannot take it yet: it is then in a later `Reply`, or `Dropped`.
        """

    def interrupt(self) -> bytes:
        """Ask the program to end its turn now."""

    def read(self, line: bytes) -> "Sequence[Fact]":
        """What a line of the program's output means."""

    def restarting(self) -> bool:
        """The program is about to be started again; answers whether the conversation goes on (else a new one begins)."""

    def continuation(self, prompt: str) -> str:
        """What to say to an agent whose program died in the middle of a turn it had been given `prompt` for."""
