"""Random interleavings of everything that can happen to messages, against a simple model."""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from shopfloor.events.models import EventRow
from shopfloor.kit.db import Database, db_time
from shopfloor.kit.machine import IllegalMove
from shopfloor.messages import service
from shopfloor.messages.models import Message
from shopfloor.messages.rules import MessageState as S
from shopfloor.messages.rules import MessageType

ENDS = {S.DONE, S.FAILED, S.EXPIRED}
RANK = {S.ACCEPTED: 0, S.DELIVERED: 1, S.SEEN: 2, S.DONE: 3}


class Messages(RuleBasedStateMachine):
    ids = Bundle("ids")

    @initialize()
    def open(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.database = Database(f"sqlite:///{Path(self.folder.name) / 'm.db'}")
        self.loop.run_until_complete(self.database.create_all())
        self.states: dict[str, S] = {}
        self.kinds: dict[str, str] = {}
        self.held: set[str] = set()
        self.moves = 0

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.loop.run_until_complete(self.database.close())
            self.loop.close()
            self.folder.cleanup()

    def do(self, verb: Any, *args: Any) -> Any:
        async def once() -> Any:
            async with self.database.transaction() as session:
                return await verb(session, *args)

        return self.loop.run_until_complete(once())

    def move(self, message_id: str, state: S) -> None:
        self.states[message_id] = state
        self.held.discard(message_id)
        self.moves += 1

    @rule(target=ids, kind=st.sampled_from([MessageType.USER_MESSAGE, MessageType.INTERRUPT]))
    def queue(self, kind: str) -> str:
        message = self.do(service.queue, "sb-1", "hello", kind)
        self.states[message.id], self.kinds[message.id] = S.ACCEPTED, kind
        message_id: str = message.id
        return message_id

    @rule(target=ids)
    def take(self) -> Any:
        pending = [i for i, s in self.states.items() if s is S.ACCEPTED and i not in self.held]
        assert [m.id for m in self.do(service.take, "sb-1")] == pending
        for message_id in pending:
            self.move(message_id, S.DELIVERED)
        return multiple()

    @rule()
    def lease(self) -> None:
        wanted, blocked = [], False
        for message_id in [i for i, s in self.states.items() if s is S.ACCEPTED]:
            if message_id in self.held:
                blocked = True
            elif not blocked or self.kinds[message_id] == MessageType.INTERRUPT:
                wanted.append(message_id)
        wanted = wanted[: service.MOST_AT_ONCE]
        assert [m.id for m in self.do(service.lease, "sb-1")] == wanted
        self.held |= set(wanted)

    @rule()
    def leases_run_out(self) -> None:
        async def forget(session: Any) -> None:
            await session.execute(sa.update(Message).values(lease_until=db_time(-1)))

        self.do(forget)
        self.held.clear()

    @rule(message_id=ids, state=st.sampled_from([S.DELIVERED, S.SEEN, S.DONE, S.FAILED]))
    def receipt(self, message_id: str, state: S) -> None:
        before = self.states[message_id]
        late = before == state or (before in RANK and state in RANK and RANK[state] <= RANK[before])
        try:
            self.do(service.receipt, "sb-1", message_id, state)
        except IllegalMove:
            assert before in ENDS
            assert not late
        else:
            if not late:
                assert before not in ENDS
                self.move(message_id, state)

    @rule()
    def sandbox_ends(self) -> None:
        unfinished = [i for i, s in self.states.items() if s not in ENDS]
        unseen = [
            i for i in unfinished if self.states[i] in {S.ACCEPTED, S.DELIVERED} and self.kinds[i] == "user_message"
        ]
        assert len(self.do(service.expire_for, "sb-1")) == len(unseen)
        for message_id in unfinished:
            self.move(message_id, S.EXPIRED)

    @invariant()
    def the_table_agrees_with_the_model(self) -> None:
        if not hasattr(self, "loop"):
            return

        async def look(session: Any) -> Any:
            return (await session.execute(sa.select(Message.id, Message.state).order_by(Message.position))).all()

        assert [tuple(row) for row in self.do(look)] == list(self.states.items())

    @invariant()
    def every_move_is_announced_once(self) -> None:
        if not hasattr(self, "loop"):
            return

        async def count(session: Any) -> Any:
            kind = EventRow.event_type == "message.receipt_changed"
            return await session.scalar(sa.select(sa.func.count()).where(kind))

        assert self.do(count) == self.moves


TestMessages = Messages.TestCase
TestMessages.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
