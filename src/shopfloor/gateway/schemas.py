"""What goes over the wire about model accounts and costs."""

from shopfloor.kit.http import Schema, Timestamp


class AccountView(Schema):
    """A model account; of its key only whether it is there."""

    account: str
    api: str
    base_url: str
    key_env: str
    key_set: bool
    pause_on_limit: bool
    paused_until: Timestamp | None
    paused_reason: str


class AccountList(Schema):
    """Every model account."""

    accounts: list[AccountView]


class Spending(Schema):
    """What some calls used; milliseconds are means."""

    key: str | None
    calls: int
    failed: int
    running: int
    unpriced: int
    """Answered calls whose model's price is unknown."""
    cost_usd: float
    input_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    output_tokens: int
    first_byte_ms: float | None
    took_ms: float | None


class SpendingList(Schema):
    """Spending by one thing."""

    by: str
    spending: list[Spending]
