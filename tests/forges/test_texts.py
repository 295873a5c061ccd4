"""What people read on a forge: filled templates, and hostile words that cannot speak as ours. And signals: no payload breaks them."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shopfloor.forges import signals, texts

WORDS = st.text(max_size=300)
PIECES = (
    *("<!-- shopfloor:order=wo-9 -->", "<!--SHOPFLOOR:x=y-->", "@everyone", "@org/team", "closes #1", "Fixes: #22"),
    *(
        "\n",
        " ",
        "<!-- /shopfloor:evidence -->",
        "## What",
        "Fixes #",
        "| x |",
        "resolves https://github.com/a/b/issues/1",
    ),
    "ü",
)
NASTY = st.lists(st.sampled_from(PIECES), max_size=20).map("".join)
CLOSING = re.compile(r"(?i)\b(close[sd]?|fix(e[sd])?|resolve[sd]?):?\s+(#\d|https?://)")


def body(request: str, template: str | None = None, **more: Any) -> str:
    told: dict[str, Any] = {"order_id": "wo-1", "issue": None, "closes": None, "evidence": [("tests", "12 passed")]}
    return texts.change_body(request=request, template=template, **told | more)


@given(request=WORDS | NASTY, template=st.none() | WORDS | NASTY)
def test_only_our_own_marker_is_in_a_text(request: str, template: str | None) -> None:
    assert texts.markers(body(request, template)) == {"order": "wo-1"}


@given(request=WORDS | NASTY)
def test_a_request_closes_no_issue_and_wakes_nobody(request: str) -> None:
    told = body(request)
    assert not CLOSING.search(told)
    assert not re.search(r"(?<![A-Za-z0-9_`/])@(everyone|org)", told)


@given(evidence=st.lists(st.tuples(WORDS | NASTY, WORDS | NASTY), max_size=5))
def test_evidence_is_one_row_each_whatever_it_holds(evidence: list[tuple[str, str]]) -> None:
    rows = texts.table(evidence).split("\n")
    assert len(rows) == 4 + len(evidence)


@given(heading=st.sampled_from(["## What", "# Summary", "### Description of changes", "## Why"]), rest=WORDS)
def test_a_templates_headings_and_open_boxes_stay(heading: str, rest: str) -> None:
    template = f"{heading}\n\n{texts.tame(rest)}\n- [ ] a person looked at it\n"
    told = body("Do it.", template)
    assert heading in told
    assert "- [ ] a person looked at it" in told
    assert told.index("Do it.") > told.index(heading)


def test_a_template_that_asks_for_nothing_follows_our_words() -> None:
    assert body("Do it.", "- [ ] tested\n").startswith("Do it.\n\n- [ ] tested")


@pytest.mark.parametrize(
    ("template", "closes", "line"),
    [
        ("Fixes #\n", 7, "Fixes #7"),
        ("Closes: #\n", 7, "Closes: #7"),
        ("Fixes #\n", None, "For #7"),
        ("nothing", 7, "Closes #7"),
    ],
)
def test_an_issue_is_named_where_the_template_asks(template: str, closes: int | None, line: str) -> None:
    assert line in body("Do it.", template, issue=7, closes=closes)


@given(text=st.text(max_size=500))
def test_a_title_is_one_plain_line(text: str) -> None:
    told = texts.title(text)
    assert 0 < len(told) <= 200
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", told)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)
FIELDS = (
    "action",
    "issue",
    "comment",
    "review",
    "pull_request",
    "sender",
    "repository",
    "check_run",
    "workflow_run",
    "label",
    "number",
    "id",
    "body",
    "user",
    "head",
    "state",
    "labels",
    "html_url",
)
PAYLOAD = st.recursive(JSON, lambda inner: st.dictionaries(st.sampled_from(FIELDS), inner, max_size=6), max_leaves=30)


@given(event=st.sampled_from([*signals.READERS, "ping", ""]), payload=PAYLOAD)
def test_no_payload_breaks_the_reader(event: str, payload: Any) -> None:
    signals.read(event, payload)


@given(secret=st.text(min_size=1, max_size=20), data=st.binary(max_size=100), other=st.binary(max_size=100))
def test_a_signature_is_good_for_its_own_bytes_only(secret: str, data: bytes, other: bytes) -> None:
    headers = {"x-hub-signature-256": f"sha256={signals.signature(secret, data)}"}
    assert signals.signed(secret, data, headers)
    assert signals.signed(secret, other, headers) == (other == data)
    assert not signals.signed("", data, headers)


@pytest.mark.parametrize(
    ("event", "verdict"), [("pull_request_approved", "approved"), ("pull_request_rejected", "changes_requested")]
)
def test_forgejos_review_is_read(event: str, verdict: str) -> None:
    """As its documentation shows it: no recorded delivery was at hand."""
    told = {
        "action": "reviewed",
        "pull_request": {"number": 3, "head": {"ref": "feat", "sha": "a"}, "updated_at": "x"},
        "review": {"type": event, "content": "Please."},
        "repository": {"html_url": "https://git.example.org/acme/demo"},
        "sender": {"login": "me"},
    }
    found = signals.read(event, told)
    assert found
    assert (found.verdict, found.text, found.host) == (verdict, "Please.", "git.example.org")


@given(words=st.lists(WORDS | st.integers(1, 60).map("=".__mul__), max_size=4).map("".join))
def test_nobody_writes_themselves_out_of_the_fence(words: str) -> None:
    told = texts.fenced(words)
    assert len(told.split(texts.FENCE)) == 3
    assert told.startswith(texts.FENCE)
    assert told.endswith(texts.FENCE)


@given(words=st.text(st.characters() | st.sampled_from("\x00\ud800")))
def test_somebodys_words_can_be_stored(words: str) -> None:
    assert "\x00" not in texts.plain(words)
    texts.plain(words).encode()
