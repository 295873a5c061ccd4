"""Reads of the gateway: what was granted, what was spent, what is paused."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from shopfloor.gateway.models import AccountPause, ModelCall, ModelGrant, ModelTotal
from shopfloor.gateway.rules import Budget
from shopfloor.kit.db import Session, db_time
from shopfloor.kit.errors import Forbidden

BY = {
    "attempt": ModelCall.attempt_id,
    "order": ModelCall.work_order_id,
    "task": ModelCall.task_id,
    "ticket": ModelCall.ticket_id,
    "spec": ModelCall.spec_id,
    "project": ModelCall.project_id,
    "account": ModelCall.account,
    "model": ModelCall.model,
}
"""What costs can be summed by."""


class NoModelGranted(Forbidden):
    """This sandbox was granted no model."""

    hint = "Its agent's profile has no account, or talks to its model itself (direct = true)."


async def grant(session: Session, sandbox_id: str) -> ModelGrant:
    """What a sandbox may ask for; raises NoModelGranted."""
    if (found := await session.get(ModelGrant, sandbox_id)) is None:
        raise NoModelGranted
    return found


async def pauses(session: Session) -> Sequence[AccountPause]:
    """The pauses in force."""
    query = sa.select(AccountPause).where(AccountPause.paused_until > db_time()).order_by(AccountPause.account)
    return (await session.scalars(query)).all()


async def overdue(session: Session) -> bool:
    """Whether a pause is over and nobody has said so yet."""
    query = sa.select(AccountPause.account).where(AccountPause.paused_until <= db_time()).limit(1)
    return await session.scalar(query) is not None


async def pause_of(session: Session, account: str) -> tuple[AccountPause, float] | None:
    """The pause of an account and the seconds it still lasts."""
    query = sa.select(AccountPause, db_time()).where(
        AccountPause.account == account, AccountPause.paused_until > db_time()
    )
    row = (await session.execute(query)).first()
    return (row[0], (row[0].paused_until - row[1]).total_seconds()) if row else None


def paused(account: sa.ColumnExpressionArgument[str | None]) -> sa.ColumnElement[bool]:
    """Whether the account that a column names is paused, inside a statement."""
    return sa.exists().where(AccountPause.account == account, AccountPause.paused_until > db_time())


def limits(granted: ModelGrant) -> dict[str, float]:
    """Whose budgets a sandbox's calls count on, and how high they are."""
    found = {granted.work_order_id: granted.order_budget_usd}
    if granted.project_id:
        found[granted.project_id] = granted.project_budget_usd
    return {whose: limit for whose, limit in found.items() if limit is not None}


async def budgets(session: Session, granted: ModelGrant) -> list[Budget]:
    """How things stand with everything that limits a sandbox; nobody else can count on it before this transaction ends."""
    if not (known := limits(granted)):
        return []
    totals = sa.select(ModelTotal.whose, ModelTotal.spent_usd).where(ModelTotal.whose.in_(known))
    rows = (await session.execute(totals.order_by(ModelTotal.whose).with_for_update())).all()
    return [await _budget(session, granted, whose, known[whose], spent) for whose, spent in rows]


async def _budget(session: Session, granted: ModelGrant, whose: str, limit: float, spent: float) -> Budget:
    order = whose == granted.work_order_id
    count, known, most = (
        await session.execute(
            sa.select(
                sa.func.count(),
                sa.func.count(ModelCall.most_usd),
                sa.func.coalesce(sa.func.sum(ModelCall.most_usd), 0.0),
            ).where((ModelCall.work_order_id if order else ModelCall.project_id) == whose, ModelCall.ended_at.is_(None))
        )
    ).one()
    return Budget(
        whose=f"{'work order' if order else 'project'} {whose}",
        limit=limit,
        spent=spent,
        running=count,
        at_most=most if known == count else None,
    )


async def costs_of_orders(session: Session, order_ids: Sequence[str]) -> dict[str, float]:
    """What the calls of some work orders cost so far; an order without calls is not in it."""
    query = (
        sa.select(ModelCall.work_order_id, sa.func.sum(ModelCall.cost_usd))
        .where(ModelCall.work_order_id.in_(order_ids), ModelCall.cost_usd.is_not(None))
        .group_by(ModelCall.work_order_id)
    )
    return {row[0]: round(row[1] or 0.0, 9) for row in await session.execute(query)}


async def refusal(session: Session, attempt_id: str) -> tuple[int | None, str]:
    """How and why the gateway refused an attempt's last call; empty when it let it through."""
    newest = (
        sa.select(ModelCall.status, ModelCall.refusal)
        .where(ModelCall.attempt_id == attempt_id)
        .order_by(ModelCall.id.desc())
        .limit(1)
    )
    row = (await session.execute(newest)).first()
    return (row[0], row[1]) if row and row[1] else (None, "")


async def spending(session: Session, by: str, **only: str | None) -> list[dict[str, Any]]:
    """Calls, tokens, cost and latency, summed by one of BY, the dearest first; `only` narrows it by others of BY."""
    key = BY[by]
    sums: dict[str, sa.ColumnElement[Any]] = {
        "calls": sa.func.count(),
        "failed": sa.func.count().filter(sa.or_(ModelCall.status >= 400, ModelCall.refusal != "")),
        "running": sa.func.count().filter(ModelCall.ended_at.is_(None)),
        "unpriced": sa.func.count().filter(ModelCall.cost_usd.is_(None), ModelCall.status < 300),
        "cost_usd": sa.func.coalesce(sa.func.sum(ModelCall.cost_usd), 0.0),
        "input_tokens": sa.func.coalesce(sa.func.sum(ModelCall.input_tokens), 0),
        "cache_read_tokens": sa.func.coalesce(sa.func.sum(ModelCall.cache_read_tokens), 0),
        "cache_write_tokens": sa.func.coalesce(sa.func.sum(ModelCall.cache_write_tokens), 0),
        "output_tokens": sa.func.coalesce(sa.func.sum(ModelCall.output_tokens), 0),
        "first_byte_ms": sa.func.avg(ModelCall.first_byte_ms),
        "took_ms": sa.func.avg(ModelCall.took_ms),
    }
    query = sa.select(key, *(column.label(name) for name, column in sums.items())).group_by(key)
    for name, value in only.items():
        if value is not None:
            query = query.where(BY[name] == value)
    rows = await session.execute(query.order_by(sa.desc("cost_usd"), key).limit(1000))
    return [{"key": row[0], **dict(zip(sums, row[1:], strict=True))} for row in rows]
