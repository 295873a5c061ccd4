"""Facts about tasks."""

from typing import ClassVar

from shopfloor.events.catalog.base import Event


class TaskEvent(Event, frozen=True, kw_only=True):
    """A fact about a task."""

    entity_type: ClassVar[str] = "task"
    entity: ClassVar[str] = "task_id"

    task_id: str
    ticket_id: str | None
    project_id: str


class TaskCreated(TaskEvent, frozen=True, kw_only=True):
    """There is something to do."""

    type: ClassVar[str] = "task.created"
    phase: str
    title: str


class TaskStatusChanged(TaskEvent, frozen=True, kw_only=True):
    """The task entered another status."""

    type: ClassVar[str] = "task.status_changed"
    phase: str
    before: str
    after: str
    reason: str = ""
    work_order_id: str | None = None


class TaskChanged(TaskEvent, frozen=True, kw_only=True):
    """Something else of the task changed: its title, timeout, hold or dependencies."""

    type: ClassVar[str] = "task.changed"
    what: str
