"""The same app the event tests drive."""

from tests.events.conftest import address, app, client

__all__ = ["address", "app", "client"]
