"""Why an agent may not use a tool, and what it means when a model server refuses."""

import fnmatch
import re
from collections.abc import Iterable
from typing import Any, Optional

MEANINGS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "payment_required_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}
NUMBERS = {word: number for number, word in MEANINGS.items()}
STATUS = re.compile(
    r"\b(?:status(?: code)?|code|HTTP|Error)\W{0,3}([45]\d\d)\b|\b([45]\d\d)\b(?= [A-Z])", re.IGNORECASE
)


def refused(status: int, said: str = "") -> str:
    """The sentence for a model that answered with an error status."""
    return f"the model answered {status} ({MEANINGS.get(status, 'api_error')}): {said}".rstrip(": ")


def status_in(text: str) -> Optional[int]:
    """The HTTP status that a program's words about an error name."""
    found = STATUS.search(text)
    return int(found[1] or found[2]) if found else None


def forbidden(options: "dict[str, Any]", names: "Iterable[str]") -> str:
    """Why the profile's lists keep a tool, known by any of these names, from being used; empty when they do not."""
    known = [name for name in names if name]
    denied = [rule for rule in options.get("deny_tools") or () if "(" not in rule]
    allowed = [rule.partition("(")[0] for rule in options.get("allow_tools") or ()]
    tool = known[0] if known else "?"
    if any(fnmatch.fnmatchcase(name, rule) for name in known for rule in denied):
        return f"The profile of this work order denies the tool {tool}."
    if allowed and not any(fnmatch.fnmatchcase(name, rule) for name in known for rule in allowed):
        return f"The profile of this work order does not allow the tool {tool}."
    return ""
