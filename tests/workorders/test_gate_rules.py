"""The law of the git gate (issue 3, result 6): pure properties."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shopfloor.workorders.gate_rules import (
    FLUSH,
    BadPush,
    Command,
    advertisement,
    announced,
    commands,
    packet,
    refusals,
    report,
)

OWN = "refs/heads/feat-wo-1"
COMMITS = st.sampled_from(["0" * 40, "1" * 40, "a" * 40, "b" * 64])
REFS = st.one_of(
    st.just(OWN), st.text("abé/.-~", min_size=1, max_size=20).map("refs/heads/".__add__), st.just("refs/tags/v1")
)
ASKED = st.lists(st.builds(Command, old=COMMITS, new=COMMITS, ref=REFS), max_size=5)


def body(asked: list[Command], pack: bytes = b"") -> io.BytesIO:
    """A push as git sends it."""
    lines = [f"{one.old} {one.new} {one.ref}".encode() for one in asked]
    able = [line + (b"\0 report-status agent=git/2" if number == 0 else b"\n") for number, line in enumerate(lines)]
    return io.BytesIO(b"".join(map(packet, able)) + FLUSH + pack)


@given(ASKED, st.binary(max_size=50))
def test_what_is_asked_is_read_and_the_pack_is_left(asked: list[Command], pack: bytes) -> None:
    file = body(asked, pack)
    assert commands(file) == asked
    assert file.read() == pack


@given(st.binary(max_size=200))
def test_any_other_beginning_is_refused_or_asks_for_what_it_says(data: bytes) -> None:
    try:
        asked = commands(io.BytesIO(data))
    except BadPush:
        return
    assert data.startswith(FLUSH if not asked else b"0")


@given(ASKED.filter(bool), st.data())
def test_a_push_that_is_cut_off_is_refused(asked: list[Command], data: st.DataObject) -> None:
    whole = body(asked).getvalue()
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(BadPush):
        commands(io.BytesIO(whole[:cut]))


@pytest.mark.parametrize("line", [b"push-cert\0 push-options", b"shallow " + b"a" * 40, b"", b"x" * 200])
def test_signed_shallow_and_odd_pushes_are_refused(line: bytes) -> None:
    with pytest.raises(BadPush):
        commands(io.BytesIO(packet(line) + FLUSH))


def test_a_head_without_end_is_refused() -> None:
    line = packet(f"{'0' * 40} {'1' * 40} refs/heads/{'x' * 900}".encode())
    with pytest.raises(BadPush):
        commands(io.BytesIO(line * 2000 + FLUSH))


@given(ASKED)
def test_only_one_thing_is_ever_let_in_to_set_the_own_branch(asked: list[Command]) -> None:
    let_in = bool(asked) and not refusals(asked, OWN)
    assert let_in == (len(asked) == 1 and asked[0].ref == OWN and not asked[0].deletes)


@given(ASKED)
def test_a_refused_push_has_a_reason_for_every_reference(asked: list[Command]) -> None:
    why = refusals(asked, OWN)
    assert not why or (set(why) == {one.ref for one in asked} and all(why.values()))


@given(st.dictionaries(REFS, st.text(max_size=400), max_size=4))
def test_a_report_is_whole_lines_whatever_the_reasons_hold(why: dict[str, str]) -> None:
    data, lines = report(why), []
    while not data.startswith(FLUSH):
        size = int(data[:4], 16)
        lines.append(data[4:size].decode())
        data = data[size:]
    assert data == FLUSH
    assert lines[0] == "unpack ok\n"
    assert all(line.endswith("\n") and line[:-1].isprintable() for line in lines)
    assert [line.split(" ")[:2] for line in lines[1:]] == [
        ["ng" if reason else "ok", ref + ("" if reason else "\n")] for ref, reason in why.items()
    ]


def test_an_offer_begins_as_git_wants_it() -> None:
    """The example of git's own gitprotocol-http."""
    assert announced("git-upload-pack") == b"001e# service=git-upload-pack\n0000"
    told = advertisement({"refs/heads/main": "a" * 40, OWN: "b" * 40})
    assert told.startswith(b"%04x" % len(told.partition(b"\n")[0] + b"\n") + b"a" * 40 + b" refs/heads/main\0")
    assert told.endswith(f"{'b' * 40} {OWN}\n".encode() + FLUSH)
