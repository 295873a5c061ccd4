"""The gateway's books: who may call, what runs, what it cost, which account is paused. Sole writer of its tables."""

from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from shopfloor.events import log as events
from shopfloor.events.catalog.gateway import AccountPaused, AccountResumed, BudgetReached, ModelCalled
from shopfloor.gateway import queries
from shopfloor.gateway.models import AccountPause, ModelCall, ModelGrant, ModelTotal
from shopfloor.gateway.rules import SPENT, Verdict, verdict
from shopfloor.kit import log
from shopfloor.kit.db import Database, Session, db_time

logger = log.get(__name__)

OPEN_ALONE = """
INSERT INTO model_calls (
    sandbox_id, attempt_id, work_order_id, task_id, ticket_id, spec_id, project_id, account, model, host_id, most_usd,
    refusal, estimated, input_tokens, cache_read_tokens, cache_write_tokens, output_tokens)
SELECT :sandbox_id, :attempt_id, :work_order_id, :task_id, :ticket_id, :spec_id, :project_id, :account, :model,
    :host_id, :most_usd, '', 0, 0, 0, 0, 0
WHERE (:order_budget IS NULL OR (
    (SELECT spent_usd FROM model_totals WHERE whose = :work_order_id) < :order_budget
    AND NOT EXISTS (SELECT 1 FROM model_calls WHERE work_order_id = :work_order_id AND ended_at IS NULL)))
AND (:project_budget IS NULL OR (
    (SELECT spent_usd FROM model_totals WHERE whose = :project_id) < :project_budget
    AND NOT EXISTS (SELECT 1 FROM model_calls WHERE project_id = :project_id AND ended_at IS NULL)))
RETURNING id
"""
"""A sum that is not there compares as unknown, which is no: then `open_call` is asked."""
FOR = ("sandbox_id", "attempt_id", "work_order_id", "task_id", "ticket_id", "spec_id", "project_id", "account")
"""Whom a call is for, as its grant says."""
CUT = "the gateway's process ended during the call"


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a call used and cost."""

    model: str
    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None
    estimated: bool = False


async def grant(session: Session, sandbox_id: str, **columns: Any) -> None:
    """Let a sandbox use an account for its attempt, within budgets; what was granted before counts no more."""
    await session.execute(sa.delete(ModelGrant).where(ModelGrant.sandbox_id == sandbox_id))
    session.add(ModelGrant(sandbox_id=sandbox_id, **columns))
    await session.flush()
    for whose in (columns["work_order_id"], columns["project_id"]):
        if whose and await session.get(ModelTotal, whose) is None:
            await session.execute(
                _insert(session)(ModelTotal).values(whose=whose, spent_usd=0.0).on_conflict_do_nothing()
            )


def _insert(session: Session) -> Any:
    """`INSERT … ON CONFLICT`, which every database words for itself."""
    from sqlalchemy.dialects import postgresql, sqlite

    assert session.bind
    return (sqlite if session.bind.dialect.name == "sqlite" else postgresql).insert


async def open_call(
    session: Session, granted: ModelGrant, *, model: str, most_usd: float | None, host_id: str
) -> tuple[Verdict, int, str]:
    """Ask for a call to be sent; answers the verdict, the call's id when it is GO, and why not when it is STOP."""
    for budget in await queries.budgets(session, granted):
        found = verdict(budget, most_usd)
        if found == Verdict.STOP:
            why = f"the budget of {budget.whose} is used up: {budget.spent:.4f} of {budget.limit:.4f} USD are spent"
            await refuse(session, granted, status=SPENT, model=model, why=why, host_id=host_id)
            return found, 0, why
        if found == Verdict.WAIT:
            return found, 0, ""
    values = {**_of(granted, model, host_id), "most_usd": most_usd}
    call = sa.insert(ModelCall).values(values).returning(ModelCall.id)
    return Verdict.GO, (await session.execute(call)).scalar_one(), ""


async def open_at_once(
    database: Database, granted: ModelGrant, *, model: str, most_usd: float | None, host_id: str
) -> int | None:
    """Open the usual call, no other running and money left, in one statement past all layers: its agent waits for it.

    None: ask `open_call`, which knows every case; always, where others write at the same time.
    """
    if not database.sqlite:
        return None
    limits = {"order_budget": granted.order_budget_usd, "project_budget": granted.project_budget_usd}
    given = {**_of(granted, model, host_id), "most_usd": most_usd, **limits}
    row = await database.at_once(OPEN_ALONE, given)
    return int(row[0]) if row else None


def _of(granted: ModelGrant, model: str, host_id: str) -> dict[str, Any]:
    return {**{name: getattr(granted, name) for name in FOR}, "model": model[:200], "host_id": host_id}


async def refuse(session: Session, granted: ModelGrant, *, status: int, model: str, why: str, host_id: str) -> None:
    """Write down a call that was not let through."""
    refused = {**_of(granted, model, host_id), "status": status, "refusal": why, "ended_at": db_time()}
    await session.execute(sa.insert(ModelCall).values(refused))
    if status == SPENT:
        await events.append(session, BudgetReached(work_order_id=granted.work_order_id, reason=why))
    logger.warning("model_call_refused", agent_work_order_id=granted.work_order_id, reason=why)


async def close_call(
    session: Session, call_id: int, cost: Cost, *, status: int | None, first_byte_ms: int | None, took_ms: int
) -> None:
    """Write down how a call ended; a second end changes nothing."""
    ended = {"status": status, "first_byte_ms": first_byte_ms, "took_ms": took_ms, "ended_at": db_time()}
    update = (
        sa.update(ModelCall)
        .where(ModelCall.id == call_id, ModelCall.ended_at.is_(None))
        .values(**asdict(cost), **ended)
        .returning(ModelCall.work_order_id, ModelCall.project_id, ModelCall.attempt_id, ModelCall.account)
    )
    if (call := (await session.execute(update)).first()) is None:
        return
    await _spend(session, call.work_order_id, call.project_id, cost.cost_usd)
    fact = ModelCalled(
        work_order_id=call.work_order_id,
        attempt_id=call.attempt_id,
        account=call.account,
        model=cost.model,
        status=status,
        input_tokens=cost.input_tokens,
        output_tokens=cost.output_tokens,
        cost_usd=cost.cost_usd,
        estimated=cost.estimated,
        took_ms=took_ms,
    )
    await events.append(session, fact)


async def _spend(session: Session, order_id: str, project_id: str | None, cost_usd: float | None) -> None:
    if cost_usd:
        mine = ModelTotal.whose.in_([order_id, project_id] if project_id else [order_id])
        await session.execute(sa.update(ModelTotal).where(mine).values(spent_usd=ModelTotal.spent_usd + cost_usd))


async def settle_cut_calls(session: Session, host_id: str) -> None:
    """End the calls that an earlier process of this host left open, at what they likely cost.

    The most they could cost takes every byte for a token at twice its price: text is an eighth of that.
    """
    cut = (
        sa.update(ModelCall)
        .where(ModelCall.host_id == host_id, ModelCall.ended_at.is_(None))
        .values(cost_usd=ModelCall.most_usd / 8, estimated=True, refusal=CUT, ended_at=db_time())
        .returning(ModelCall.work_order_id, ModelCall.project_id, ModelCall.cost_usd)
    )
    if ended := (await session.execute(cut)).all():
        for row in ended:
            await _spend(session, *row)
        logger.warning("model_calls_cut", calls=len(ended))


async def pause(session: Session, account: str, seconds: float, reason: str) -> None:
    """Let nobody use the account for so long; a pause in force is only made longer."""
    row = await session.get(AccountPause, account, with_for_update=True)
    until = (await session.execute(sa.select(db_time(seconds), db_time()))).one()
    if row is not None and row.paused_until > until[1]:
        row.paused_until = max(row.paused_until, until[0])
        return
    if row is not None:
        await session.delete(row)
        await session.flush()
    session.add(AccountPause(account=account, paused_until=until[0], reason=reason))
    await session.flush()
    fact = AccountPaused(account=account, paused_until=until[0].isoformat(), reason=reason)
    await events.append(session, fact)
    logger.warning("account_paused", account=account, seconds=round(seconds), reason=reason)


async def resume(session: Session, account: str) -> bool:
    """End a pause before its time; answers whether there was one."""
    return await _lift(session, AccountPause.account == account, "asked for")


async def lift(session: Session) -> bool:
    """Say of the pauses that are over that they are; answers whether there were any."""
    return await _lift(session, AccountPause.paused_until <= db_time(), "its limit was reset")


async def _lift(session: Session, which: sa.ColumnElement[bool], reason: str) -> bool:
    gone = sa.delete(AccountPause).where(which).returning(AccountPause.account)
    accounts = (await session.scalars(gone)).all()
    for account in accounts:
        await events.append(session, AccountResumed(account=account, reason=reason))
        logger.info("account_resumed", account=account, reason=reason)
    return bool(accounts)
