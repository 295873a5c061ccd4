"""Every fact the platform itself announces, a module for each kind of thing. Agents' events are open-ended."""

from shopfloor.events.catalog import board, evidence, forges, gateway, projects, sandboxes, tasks, work_orders
from shopfloor.events.catalog.base import Event

MODULES = (board, evidence, forges, gateway, projects, sandboxes, tasks, work_orders)
OURS = frozenset(
    kind.type
    for module in MODULES
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, Event) and hasattr(kind, "type")
)
"""What the platform alone says: such a word of a sandbox would be taken for a fact."""
