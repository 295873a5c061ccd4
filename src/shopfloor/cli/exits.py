"""How a command ends: exit codes with one meaning each, and the problems only a client has."""

from enum import IntEnum
from typing import Any

from shopfloor.kit.errors import Malformed, Problem, Unavailable


class Exit(IntEnum):
    """Exit codes of every command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_FOUND = 4
    CANCELLED = 5
    INTERRUPTED = 130


MEANINGS = (
    "Exit codes: 0 done; 1 the work order failed, or the request was refused; 2 wrong usage; 3 the server cannot be reached; "
    "4 there is no such thing; 5 the work order was cancelled; 130 interrupted."
)
OUTCOMES = {"completed": Exit.OK, "failed": Exit.FAILED, "cancelled": Exit.CANCELLED}
"""What a finished work order's status means for the command that followed it."""


class ServerUnreachable(Unavailable):
    """The server cannot be reached."""


class NotAShopfloor(Unavailable):
    """Something else answers at that address."""


class NotARepository(Malformed):
    """This is not a git repository."""


class Refused(Problem):
    """The server refused the request."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(str(answer.get("detail", "")), hint=str(answer.get("hint", "")))
        self.answer = answer

    def document(self) -> dict[str, Any]:
        """The problem document as the server sent it."""
        return self.answer


def exit_code(problem: Problem) -> Exit:
    """The exit code that tells of a problem."""
    match problem:
        case ServerUnreachable() | NotAShopfloor():
            return Exit.UNREACHABLE
        case NotARepository():
            return Exit.USAGE
        case Refused():
            return Exit.NOT_FOUND if problem.answer.get("status") == 404 else Exit.FAILED
    return Exit.FAILED
