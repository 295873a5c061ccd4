"""The gateway's books: who may call, what runs, what it cost, which account is paused. Sole writer of its tables."""

from dataclasses import dataclass
from typing import Any, cast

import sqlalchemy as sa

from shopfloor.events import log as events
from shopfloor.events.catalog import AccountPaused, AccountResumed, BudgetReached, ModelCalled
from shopfloor.gateway import queries
from shopfloor.gateway.models import AccountPause, ModelCall, ModelGrant
from shopfloor.gateway.rules import SPENT, Verdict, verdict
from shopfloor.kit import log
from shopfloor.kit.db import Session, db_time

logger = log.get(__name__)

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


async def open_call(
    session: Session, granted: ModelGrant, *, model: str, most_usd: float | None, host_id: str
) -> tuple[Verdict, int, str]:
    """Ask for a call to be sent; answers the verdict, the call's id when it is GO, and why not when it is STOP."""
    call = ModelCall(
        sandbox_id=granted.sandbox_id,
        attempt_id=granted.attempt_id,
        work_order_id=granted.work_order_id,
        project_id=granted.project_id,
        account=granted.account,
        model=model[:200],
        host_id=host_id,
        most_usd=most_usd,
    )
    for budget in await _locked_budgets(session, granted):
        found = verdict(budget, most_usd)
        if found == Verdict.STOP:
            why = f"the budget of {budget.whose} is used up: {budget.spent:.4f} of {budget.limit:.4f} USD are spent"
            await refuse(session, granted, status=SPENT, model=model, why=why, host_id=host_id)
            return found, 0, why
        if found == Verdict.WAIT:
            return found, 0, ""
    session.add(call)
    await session.flush()
    return Verdict.GO, call.id, ""


async def _locked_budgets(session: Session, granted: ModelGrant) -> list[Any]:
    """How the budgets stand, with nobody else opening a call on them before this transaction ends."""
    if granted.order_budget_usd is None and granted.project_budget_usd is None:
        return []
    if session.bind and session.bind.dialect.name == "postgresql":
        whose = granted.project_id or granted.work_order_id
        await session.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(whose, 0))))
    return await queries.budgets(session, granted)


async def refuse(session: Session, granted: ModelGrant, *, status: int, model: str, why: str, host_id: str) -> None:
    """Write down a call that was not let through."""
    refused = ModelCall(
        sandbox_id=granted.sandbox_id,
        attempt_id=granted.attempt_id,
        work_order_id=granted.work_order_id,
        project_id=granted.project_id,
        account=granted.account,
        model=model[:200],
        host_id=host_id,
        status=status,
        refusal=why,
        ended_at=cast("Any", db_time()),
    )
    session.add(refused)
    await session.flush()
    if status == SPENT:
        await events.append(session, BudgetReached(work_order_id=granted.work_order_id, reason=why))
    logger.warning("model_call_refused", agent_work_order_id=granted.work_order_id, reason=why)


async def close_call(
    session: Session, call_id: int, cost: Cost, *, status: int | None, first_byte_ms: int | None, took_ms: int
) -> None:
    """Write down how a call ended; a second end changes nothing."""
    call = await session.get_one(ModelCall, call_id)
    if call.ended_at is not None:
        return
    call.model = cost.model[:200] or call.model
    for name in ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "cost_usd", "estimated"):
        setattr(call, name, getattr(cost, name))
    call.status, call.first_byte_ms, call.took_ms = status, first_byte_ms, took_ms
    call.ended_at = cast("Any", db_time())
    fact = ModelCalled(
        work_order_id=call.work_order_id,
        attempt_id=call.attempt_id,
        account=call.account,
        model=call.model,
        status=status,
        input_tokens=cost.input_tokens,
        output_tokens=cost.output_tokens,
        cost_usd=cost.cost_usd,
        estimated=cost.estimated,
        took_ms=took_ms,
    )
    await events.append(session, fact)


async def settle_cut_calls(session: Session, host_id: str) -> None:
    """End the calls that an earlier process of this host left open, at what they likely cost.

    The most they could cost takes every byte for a token at twice its price: text is an eighth of that.
    """
    cut = (
        sa.update(ModelCall)
        .where(ModelCall.host_id == host_id, ModelCall.ended_at.is_(None))
        .values(cost_usd=ModelCall.most_usd / 8, estimated=True, refusal=CUT, ended_at=db_time())
        .returning(ModelCall.id)
    )
    if ended := (await session.scalars(cut)).all():
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
