"""How providers say when a limit ends. Pure."""

import math
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

LONGEST = 8 * 86400.0
"""Seconds: no provider's limit lasts longer than its week."""


def relative(text: str | None, now: float) -> float | None:
    """`retry-after`: seconds, or a date."""
    if not text:
        return None
    found = _number(text)
    if found is None:
        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, TypeError):
            return None
        return bounded(moment.timestamp() - now)
    return bounded(found)


def unix(text: str | None, now: float) -> float | None:
    """A moment in seconds since 1970, or nothing."""
    found = _number(text or "")
    return None if found is None else bounded(found - now)


def spoken(body: bytes, name: str) -> float | None:
    """A number that the error's document says by name."""
    try:
        found: Any = orjson.loads(body)["error"][name]
    except (ValueError, KeyError, TypeError):
        return None
    return bounded(float(found)) if isinstance(found, int | float) and not isinstance(found, bool) else None


def bounded(seconds: float) -> float | None:
    """Seconds to wait that make sense, else nothing."""
    return min(seconds, LONGEST) if math.isfinite(seconds) and seconds > 0 else None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
