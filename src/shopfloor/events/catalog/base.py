"""What every fact is: a frozen class with ids and plain values only."""

from typing import ClassVar

import msgspec


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Base of every fact. `type` and `entity_type` are on the wire; `entity` names the field holding the entity's id."""

    type: ClassVar[str]
    entity_type: ClassVar[str]
    entity: ClassVar[str]

    @property
    def entity_id(self) -> str:
        """The id of the entity this fact is about."""
        value: str = getattr(self, self.entity)
        return value
