"""State machines as tables: the only way a status moves."""

from collections.abc import Iterable, Mapping
from enum import StrEnum

from shopfloor.kit.errors import Conflict


class IllegalMove(Conflict):
    """The current state does not allow this move."""


class Machine[S: StrEnum]:
    """Allowed moves of one status; every state must be listed."""

    def __init__(self, moves: Mapping[S, Iterable[S]]) -> None:
        self.moves = {state: frozenset(targets) for state, targets in moves.items()}
        unknown = {t for targets in self.moves.values() for t in targets} - set(self.moves)
        if unknown:
            raise ValueError(f"states without a row: {sorted(unknown)}")

    def allows(self, now: S, to: S) -> bool:
        """Whether `now` may become `to`."""
        return to in self.moves[now]

    def step(self, now: S, to: S) -> S:
        """Answer `to`, or raise IllegalMove naming what is possible instead."""
        if self.allows(now, to):
            return to
        possible = ", ".join(sorted(self.moves[now])) or "nothing (this is a final state)"
        raise IllegalMove(f"{now} cannot become {to}", hint=f"From {now} it can become: {possible}.", state=str(now))

    def final(self, state: S) -> bool:
        """Whether nothing follows `state`."""
        return not self.moves[state]
