"""What came from elsewhere cannot steer the terminal."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shopfloor.board.rules.gates import Finding
from shopfloor.cli import render, story
from shopfloor.cli.exits import Refused

pytestmark = pytest.mark.unit
HOSTILE = st.text(
    st.one_of(st.sampled_from("\x1b\x07\x9b\x9d\r\n\t[];?0m\\\u202e\u2066\u2028\ufeff"), st.characters()), max_size=80
)


@given(HOSTILE)
@example("\x1b[31mred\x1b[0m \x1b]52;c;ZXZpbA==\x07 \x1b]8;;http://evil\x1b\\link \x9b2J \u202egnp.exe")
@example("\x1b\x1b[[31m31m")
def test_no_control_character_is_left(text: str) -> None:
    left = {c for c in render.clean(text) if unicodedata.category(c) in {"Cc", "Cs"}}
    assert left <= {"\n", "\t"}


@given(HOSTILE)
def test_no_character_that_turns_text_around_is_left(text: str) -> None:
    assert not any(
        unicodedata.bidirectional(c) in {"RLO", "LRO", "RLE", "LRE", "PDF", "RLI", "LRI", "FSI", "PDI"}
        for c in render.clean(text)
    )


@given(HOSTILE)
def test_cleaning_twice_changes_nothing_more(text: str) -> None:
    assert render.clean(render.clean(text)) == render.clean(text)


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=80))
def test_honest_text_is_shown_as_it_is(text: str) -> None:
    assert render.clean(text) == text


@given(HOSTILE, st.integers(5, 40))
def test_one_line_is_one_line_of_that_width(text: str, width: int) -> None:
    line = render.one_line(text, width)
    assert "\n" not in line
    assert len(line) <= width


@pytest.mark.parametrize("kind", sorted(story.TELLERS))
@given(text=HOSTILE)
def test_every_event_is_told_cleanly(kind: str, text: str) -> None:
    """Whatever an agent puts into an event: fields it should have, with hostile words in them."""
    names = "reason text name output command path branch subject content after status tool detail step adapter sha exit_code"
    payload: dict[str, object] = dict.fromkeys(names.split(), text) | {"ok": False}
    line = story.line({"event_type": kind, "payload": payload, "recorded_at": "2026-01-01T10:11:12Z" + text})
    assert line is None or render.clean(line) == line


def test_an_unknown_event_says_nothing() -> None:
    assert story.line({"event_type": "who.knows", "payload": {}}) is None


def test_a_payload_that_is_no_object_does_no_harm() -> None:
    assert story.line({"event_type": "agent.message", "payload": ["?"], "recorded_at": ""}) is None


def test_a_refusal_names_every_gate_and_who_may_pass_it(capsys: pytest.CaptureFixture[str]) -> None:
    """By the flags that the terminal has."""
    open_ = [
        Finding(gate="evidence", kind="evidence", missing="0 of 2 \x1b[31mhold"),
        Finding(gate="approval", kind="approval", missing="it is rejected", who="nobody; a person approves the ticket"),
    ]
    render.problem(Refused({"detail": "no", "hint": "look", "missing": [one.document() for one in open_]}))
    assert capsys.readouterr().err.splitlines() == [
        "error: no",
        "missing: evidence: 0 of 2 hold; may override: a person, with --override --reason …",
        "missing: approval: it is rejected; may override: nobody; a person approves the ticket",
        "hint: look",
    ]
