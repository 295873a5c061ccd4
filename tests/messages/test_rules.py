"""The law of messages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shopfloor.kit.machine import IllegalMove
from shopfloor.messages import rules
from shopfloor.messages.rules import MessageState as S
from shopfloor.messages.rules import MessageType

RANK = {S.ACCEPTED: 0, S.DELIVERED: 1, S.SEEN: 2, S.DONE: 3, S.FAILED: 3, S.EXPIRED: 3}


@given(st.sampled_from(S), st.sampled_from(S))
def test_a_receipt_only_ever_moves_forward(now: S, to: S) -> None:
    try:
        moved = rules.moves_on(now, to)
    except IllegalMove:
        moved = False
    assert not moved or RANK[to] > RANK[now]


@given(st.lists(st.sampled_from([S.DELIVERED, S.SEEN, S.DONE])))
def test_receipts_in_any_order_end_at_the_furthest(receipts: list[S]) -> None:
    state = S.ACCEPTED
    for receipt in receipts:
        state = receipt if rules.moves_on(state, receipt) else state
    assert RANK[state] == max((RANK[r] for r in receipts), default=0)


def test_what_is_done_cannot_fail() -> None:
    with pytest.raises(IllegalMove):
        rules.moves_on(S.DONE, S.FAILED)


@given(st.text())
def test_cleaned_content_holds_no_control_characters(text: str) -> None:
    clean = rules.cleaned(text, MessageType.INTERRUPT)
    assert not any((ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0 for c in clean)


@given(st.text(st.characters(blacklist_categories=["C"]), min_size=1))
def test_harmless_content_is_kept_as_it_is(text: str) -> None:
    assert rules.cleaned(text, MessageType.INTERRUPT) == text


def test_a_message_beyond_the_limit_is_refused() -> None:
    with pytest.raises(rules.MessageTooLarge):
        rules.cleaned("ä" * 5121, MessageType.USER_MESSAGE)


def test_an_empty_message_is_refused() -> None:
    with pytest.raises(rules.EmptyMessage):
        rules.cleaned(" \x00\n", MessageType.USER_MESSAGE)


def test_the_old_name_of_a_guardian_message_is_understood() -> None:
    assert rules.message_type("guardian_nudge") is MessageType.GUARDIAN_INTERVENTION
