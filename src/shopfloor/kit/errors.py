"""Errors a user can act on: each carries an HTTP status, a stable code and a hint."""

import re
from typing import Any, ClassVar


class Problem(Exception):
    """Something went wrong."""

    status: ClassVar[int] = 500
    hint: str = "The server's log says more."

    def __init__(self, message: str = "", *, hint: str = "", **facts: Any) -> None:
        self.message = message or (type(self).__doc__ or "").strip()
        self.hint = hint or type(self).hint
        self.facts = facts
        super().__init__(self.message)

    @property
    def code(self) -> str:
        """Stable machine-readable name: the class name in snake_case."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower()

    def document(self) -> dict[str, Any]:
        """The RFC 9457 problem document."""
        return {
            "type": f"urn:shopfloor:problem:{self.code}",
            "title": (type(self).__doc__ or self.message).strip().splitlines()[0],
            "status": self.status,
            "detail": self.message,
            "code": self.code,
            "hint": self.hint,
            **self.facts,
        }


class Malformed(Problem):
    """The request is not well formed."""

    status = 422
    hint = "Correct what 'detail' names; /openapi.json says what is accepted."


class Unauthenticated(Problem):
    """Say who you are."""

    status = 401
    hint = "Send the API key or sandbox token as 'Authorization: Bearer …'."


class Forbidden(Problem):
    """You may not do this."""

    status = 403
    hint = "Ask with other credentials, or ask its owner."


class NotFound(Problem):
    """There is no such thing."""

    status = 404
    hint = "Check the id; the list above it shows what exists."


class Conflict(Problem):
    """The current state does not allow this."""

    status = 409
    hint = "Look at its present state (explain) and decide anew."


class TooLarge(Problem):
    """The request is larger than allowed."""

    status = 413
    hint = "Send less at once."


class Unavailable(Problem):
    """This cannot be done right now."""

    status = 503
    hint = "Try again in a moment; the server's log says more."


class Misconfigured(Problem):
    """The configuration does not allow this."""

    status = 500
    hint = "Correct the setting that 'detail' names."
