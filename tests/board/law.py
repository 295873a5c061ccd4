"""The law of the board, checked on what its log tells: every step forward was allowed when it was made."""

from typing import Any

from shopfloor.board.rules import MAY_COST, ORDER, is_forward
from shopfloor.board.rules.fold import Board, Card, apply


class Law:
    """Reads the log round by round, in the order it was written, and notes what it saw."""

    def __init__(self, limits: dict[str, int], *, one_writer: bool) -> None:
        self.limits, self.one_writer = limits, one_writer
        self.board: Board = {}
        self.moments: list[Board] = []
        """What a move of this round may have seen: with several writers, what is written down at the same time too."""
        self.returned: set[str] = set()
        """Tickets that went back in this round; a move at the same time need not have counted them."""
        self.seen: set[str] = set()

    def check(self, rows: list[tuple[str, dict[str, Any]]]) -> None:
        """What happened in one round. Raises AssertionError where the law did not hold."""
        self.moments, self.returned = [self.board], set()
        for kind, payload in rows:
            if kind == "TICKET_TRANSITIONED":
                self._moved(self.board[payload["ticket_id"]], payload)
            self.board = apply(self.board, kind, payload)
            self.moments = [self.board] if self.one_writer else [*self.moments, self.board]
            self.seen |= news(kind, payload)

    def _moved(self, card: Card, step: dict[str, Any]) -> None:
        assert card.status == step["before"], step
        if not is_forward(step["before"], step["after"]):
            self.returned |= set() if self.one_writer else {card.ticket_id}
            return
        assert ORDER.index(step["after"]) == ORDER.index(step["before"]) + 1, step
        assert card.approval in MAY_COST, step
        assert not card.is_blocked, step
        self._fits(step)
        if step["before"] == "analyzing":
            assert any(one.criteria for one in self._moments_of(card)), step
        if step["before"] in {"building", "building-done", "testing"}:
            own = [status for phase, status in card.tasks.values() if phase == step["before"]]
            assert set(own) <= {"completed", "cancelled"}, step
        if step["after"] == "done":
            self._is_proven(card, step)

    def _fits(self, step: dict[str, Any]) -> None:
        there = {key for key, one in self.board.items() if one.status == step["after"]} - self.returned
        limit = self.limits.get(step["after"])
        assert limit is None or len(there) < limit, step

    def _is_proven(self, card: Card, step: dict[str, Any]) -> None:
        """On the head it was done with, each criterion by a finding of its check as it was."""
        moments = self._moments_of(card)
        assert card.head_commit is not None, step
        assert any(one.criteria for one in moments), step
        for key in card.criteria:
            found = [one.criteria[key].standing for one in moments if key in one.criteria]
            assert "passed" in found, step

    def _moments_of(self, card: Card) -> list[Card]:
        found = [board[card.ticket_id] for board in self.moments if card.ticket_id in board]
        return [one for one in found if one.head_commit == card.head_commit]


BACK_FROM_DONE = {"its branch moved": "its head moved", "it is not proven": "not proven any more"}


def news(kind: str, payload: dict[str, Any]) -> set[str]:
    """What a fact shows to have been reached, in words."""
    if kind == "TICKET_TRANSITIONED" and payload["after"] == "done":
        return {"done"}
    if kind == "TICKET_TRANSITIONED" and payload["before"] == "done":
        return {name for begin, name in BACK_FROM_DONE.items() if payload["reason"].startswith(begin)}
    if kind == "ticket.union_checked":
        return {"conflicts" if payload["conflicts_with"] else "no conflicts"}
    if kind == "criteria.changed":
        return {f"criterion {payload['what']}"}
    if kind == "ticket.changed":
        changes = payload["changes"]
        merged = {"merged"} if changes.get("merge_commit") else set()
        return merged | ({"begun anew"} if changes.get("head_commit", "") is None else set())
    return set()
