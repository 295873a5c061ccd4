"""Time, in UTC, from one place."""

from datetime import UTC, datetime


def now() -> datetime:
    """The current instant, timezone-aware UTC."""
    return datetime.now(UTC)


def iso(instant: datetime | None) -> str | None:
    """ISO 8601 with microseconds and Z, or None."""
    return instant.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z") if instant else None
