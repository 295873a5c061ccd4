"""What a forge tells of a ticket's change: a review or a failed check sends the ticket back, an end cleans up. Each fact is answered once, in the transaction of what is done (decision 21)."""

from dataclasses import dataclass

import sqlalchemy as sa

from shopfloor.board import queries
from shopfloor.board.models import Ticket
from shopfloor.board.rules import Column, How, is_forward
from shopfloor.board.steps.advance import mend, upcoming
from shopfloor.board.steps.move import move_back
from shopfloor.board.steps.offer import offer
from shopfloor.forges import inbox, texts
from shopfloor.forges.models import Change, Delivery
from shopfloor.forges.rules import ChangeState
from shopfloor.forges.signals import Kind, Signal
from shopfloor.forges.steps import answers
from shopfloor.forges.steps import merge as merging
from shopfloor.kit.db import Session
from shopfloor.kit.errors import Unavailable
from shopfloor.projects import queries as projects
from shopfloor.projects.models import Project
from shopfloor.workorders import queries as orders
from shopfloor.workorders.steps import Tools

FORGE = "forge"
"""Who sends a ticket back whose checks failed; a reviewer is named."""
LONGEST_REASON = 4000


class BoardFirst(Unavailable):
    """The ticket is not in building, or its next task there is about to be made: the fact is answered afterwards."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What somebody, or a failed check, wants of a ticket."""

    words: str
    """For the agent."""
    reason: str
    """For the ticket's history."""
    reaction: str
    how: How
    by: str


def _of(ticket_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(Delivery.work_order_id == ticket_id, ~orders.told_of_orders())


async def answer(tools: Tools, ticket_id: str) -> None:
    """React to every fact about the ticket's changes that nobody has reacted to."""
    async with tools.database.reading() as session:
        rows = await inbox.unanswered(session, _of(ticket_id))
    await answers.answer_each(tools.database, rows, lambda row: _answer(tools, row))


async def reply(tools: Tools, ticket_id: str) -> None:
    """Answer every thread of a review with the commit that followed it, once that is offered."""
    async with tools.database.reading() as session:
        rows = await inbox.unreplied(session, _of(ticket_id))
    await answers.reply_each(tools.database, rows, lambda row: _reply(tools, row))


async def _answer(tools: Tools, row: Delivery) -> bool:
    signal = inbox.signal_of(row)
    if signal.kind == Kind.REVIEWED and signal.verdict == "approved":
        return await _note(tools, row, "approved")
    async with tools.database.reading() as session:
        ticket = await queries.get(session, row.work_order_id or "")
        change = await inbox.ours(session, row.repository_url, signal)
        if signal.kind == Kind.CLOSED:
            why = "" if change and change.state != ChangeState.OPEN else "still open"
        else:
            project = await projects.get(session, ticket.project_id)
            why = await _nothing_asked(tools, session, project, ticket, change, signal)
    if why or change is None:
        return await _note(tools, row, why)
    if signal.kind == Kind.CLOSED:
        return await _clean_up(tools, row, ticket, change)
    if signal.kind == Kind.CHECKS_FAILED:
        return await _repair(tools, row, signal, change)
    return await _heed(tools, row, signal)


async def _note(tools: Tools, row: Delivery, reaction: str) -> bool:
    async with tools.database.transaction() as session:
        return await inbox.answer(session, row.delivery_id, reaction)


def _is_made(ticket: Ticket) -> bool:
    """Whether the work of building is over for now."""
    return is_forward(Column.BUILDING, ticket.status)


async def _nothing_asked(
    tools: Tools, session: Session, project: Project, ticket: Ticket, change: Change | None, signal: Signal
) -> str:
    """Why the ticket is left as it is; empty when it is not. Raises BoardFirst.

    A commit that is being worked on needs no repair: its successor is checked again. Words are never dropped: they wait until no
    other reason for work, which would not be told then, is about to become a task.
    """
    if change is None:
        return "not the head any more"
    if ticket.archived_at is not None:
        return "its ticket was archived"
    if change.state != ChangeState.OPEN or ticket.merge_commit is not None:
        return "its change has ended"
    if _is_made(ticket):
        return ""
    if signal.kind == Kind.CHECKS_FAILED:
        return "at work already"
    step = await upcoming(session, project, ticket, tools)
    if ticket.status != Column.BUILDING or step.what in {"make", "mend"}:
        raise BoardFirst
    return ""


async def _heed(tools: Tools, row: Delivery, signal: Signal) -> bool:
    """A reviewer's word is a person's: who may write to the repository may send the ticket back."""
    said = await answers.said(tools.repositories, row, signal)
    if not said:
        return await _note(tools, row, "says nothing")
    what = f"{signal.actor} ({signal.verdict or 'comment'}) on change {signal.number}: {said}"
    wish = Wish(
        words=answers.review_words(signal, said),
        reason=what,
        reaction="continued",
        how=How.REGRESS,
        by=f"person:{signal.actor}",
    )
    return await _send_back(tools, row, signal, wish)


async def _repair(tools: Tools, row: Delivery, signal: Signal, change: Change) -> bool:
    """Try again, each commit once; then hand it to a person and say so."""
    async with tools.database.reading() as session:
        repaired = await inbox.repaired(session, change.work_order_id)
    if signal.head_commit in repaired:
        return await _note(tools, row, "repaired already")
    if len(repaired) >= answers.REPAIRS:
        await answers.give_up(tools.repositories, change)
        return await _note(tools, row, "left to a person")
    told = await answers.failures(tools.repositories, row, signal)
    what = f"checks failed on {signal.head_commit[:12]}: {told}"
    words = answers.failure_words(signal, told)
    return await _send_back(
        tools, row, signal, Wish(words=words, reason=what, reaction="repaired", how=How.FAILED, by=FORGE)
    )


async def _send_back(tools: Tools, row: Delivery, signal: Signal, wish: Wish) -> bool:
    """Back to building, with a task that is told in full; a ticket that is there gets the task only. Without autonomy nobody starts it but a person."""
    async with tools.database.transaction() as session:
        project, ticket = await queries.locked_with_project(session, row.work_order_id or "")
        change = await inbox.ours(session, row.repository_url, signal)
        why = await _nothing_asked(tools, session, project, ticket, change, signal)
        if why or change is None:
            return await inbox.answer(session, row.delivery_id, why)
        stood = f"{change.head_commit} {ticket.head_commit}"
        if not await inbox.answer(session, row.delivery_id, wish.reaction, note=stood):
            return False
        if ticket.status != Column.BUILDING:
            reason = texts.plain(wish.reason)[:LONGEST_REASON]
            await move_back(session, ticket, Column.BUILDING, how=wish.how, by=wish.by[:200], reason=reason)
        await mend(tools, session, project, ticket, wish.words)
    return True


async def _clean_up(tools: Tools, row: Delivery, ticket: Ticket, change: Change) -> bool:
    """The change has ended on its forge. The merge queue notes a merge on the ticket; a branch that work still starts from stays."""
    if ticket.archived_at is not None or _is_made(ticket):
        await merging.clear(tools.database, tools.repositories, change)
    return await _note(tools, row, f"cleaned up: {change.state}")


async def _reply(tools: Tools, row: Delivery) -> str:
    """The commit is the change's newest, so the round of work is over; where the branch stood when the review was heard is in the row."""
    signal = inbox.signal_of(row)
    async with tools.database.reading() as session:
        ticket = await queries.get(session, row.work_order_id or "")
        change = await inbox.ours(session, row.repository_url, signal)
    if change and change.change_id == ticket.change_id and _is_made(ticket):
        change = await offer(tools, ticket.ticket_id) or change
    if change and change.head_commit not in row.note.split():
        await answers.say_done(tools.repositories, row, signal, change.head_commit)
        return "continued, replied"
    over = change is None or change.state != ChangeState.OPEN or ticket.archived_at is not None
    return "continued, nothing followed" if over else ""
