"""Facts about projects."""

from typing import ClassVar

from shopfloor.events.catalog.base import Event


class ProjectChanged(Event, frozen=True, kw_only=True):
    """A project was created, changed or deleted."""

    type: ClassVar[str] = "project.changed"
    entity_type: ClassVar[str] = "project"
    entity: ClassVar[str] = "project_id"

    project_id: str
    name: str
    what: str
