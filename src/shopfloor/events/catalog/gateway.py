"""Facts about model calls, budgets and accounts."""

from typing import ClassVar

from shopfloor.events.catalog.base import Event
from shopfloor.events.catalog.work_orders import WorkOrderEvent


class ModelCalled(WorkOrderEvent, frozen=True, kw_only=True):
    """A call of a model has ended, however it did."""

    type: ClassVar[str] = "model.called"
    attempt_id: str
    account: str
    model: str
    status: int | None
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    """None: the model's price is unknown."""
    estimated: bool
    took_ms: int


class BudgetReached(WorkOrderEvent, frozen=True, kw_only=True):
    """A call of a model was not let through."""

    type: ClassVar[str] = "budget.reached"
    reason: str


class AccountEvent(Event, frozen=True, kw_only=True):
    """A fact about a model account."""

    entity_type: ClassVar[str] = "account"
    entity: ClassVar[str] = "account"

    account: str


class AccountPaused(AccountEvent, frozen=True, kw_only=True):
    """The provider lets this account call again only later: all its work waits."""

    type: ClassVar[str] = "account.paused"
    paused_until: str
    reason: str


class AccountResumed(AccountEvent, frozen=True, kw_only=True):
    """The account may be used again."""

    type: ClassVar[str] = "account.resumed"
    reason: str
