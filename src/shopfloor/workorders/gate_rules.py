"""The law of the git gate: git's packet lines, read and written, and which pushes are looked at. Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import BinaryIO, NamedTuple

from shopfloor.kit.errors import Malformed

FLUSH = b"0000"
MOST_HEAD = 1 << 20
"""Bytes before the pack of a push."""
MOST_WHY = 300
SIZE = re.compile(rb"[0-9a-fA-F]{4}")
COMMAND = re.compile(rb"([0-9a-f]{40}|[0-9a-f]{64}) ([0-9a-f]{40}|[0-9a-f]{64}) ([^\s\x00-\x1f\x7f]{1,1000})")


class BadPush(Malformed):
    """This is no push that is understood here."""

    hint = "Push one branch, with git itself, from a clone with its whole history."


class Command(NamedTuple):
    """One reference that a push wants to change."""

    old: str
    new: str
    """All zeros: it is to be deleted."""
    ref: str

    @property
    def deletes(self) -> bool:
        """Whether the reference is to go."""
        return not self.new.strip("0")


def packet(text: bytes) -> bytes:
    """A packet line."""
    return b"%04x" % (len(text) + 4) + text


def announced(service: str) -> bytes:
    """How an answer begins that says what a service offers."""
    return packet(f"# service={service}\n".encode()) + FLUSH


def advertisement(heads: Mapping[str, str]) -> bytes:
    """What may be pushed to, as git wants to be told: reference -> commit; at least one."""
    kind = "sha256" if len(next(iter(heads.values()))) == 64 else "sha1"
    able = f"\0report-status delete-refs atomic ofs-delta object-format={kind} agent=shopfloor"
    lines = [f"{commit} {ref}" for ref, commit in heads.items()]
    return b"".join(packet(f"{line}\n".encode()) for line in (lines[0] + able, *lines[1:])) + FLUSH


def commands(body: BinaryIO) -> list[Command]:
    """What a push asks for; reads up to its pack. Raises BadPush."""
    found: list[Command] = []
    read = 0
    while (line := _line(body)) is not None:
        read += len(line)
        text = line.partition(b"\0")[0].removesuffix(b"\n")
        if text.startswith((b"push-cert", b"shallow ")):
            raise BadPush("signed pushes, and pushes from shallow clones, are not taken")
        if not (match := COMMAND.fullmatch(text)) or read > MOST_HEAD:
            raise BadPush("the push does not begin as git's pushes do")
        old, new, ref = match.groups()
        found.append(Command(old.decode(), new.decode(), ref.decode("utf-8", "surrogateescape")))
    return found


def _line(body: BinaryIO) -> bytes | None:
    """The next packet's content; None at a flush."""
    size = body.read(4)
    if not SIZE.fullmatch(size):
        raise BadPush("the push ends in the middle of a line")
    if (length := int(size, 16)) == 0:
        return None
    line = body.read(max(0, length - 4))
    if length < 4 or len(line) != length - 4:
        raise BadPush("the push ends in the middle of a line")
    return line


def refusals(asked: Sequence[Command], ref: str) -> dict[str, str]:
    """Why none of these references is changed: reference -> reason; empty when `ref` alone is to be set."""
    why = {one.ref: _against(one, ref) for one in asked}
    if len(asked) == 1 and not any(why.values()):
        return {}
    return {name: reason or "nothing is taken of a push that is refused in part" for name, reason in why.items()}


def _against(one: Command, ref: str) -> str:
    if one.ref != ref:
        return f"this work order may only push {ref}"
    return "the branch of a work order is not deleted by its agent" if one.deletes else ""


def report(why: Mapping[str, str]) -> bytes:
    """The answer to a push: reference -> why it was not changed, empty where it was."""
    lines = (f"ng {ref} {_plain(reason)}\n" if reason else f"ok {ref}\n" for ref, reason in why.items())
    told: Iterable[bytes] = (line.encode("utf-8", "surrogateescape") for line in ("unpack ok\n", *lines))
    return b"".join(map(packet, told)) + FLUSH


def _plain(reason: str) -> str:
    """A reason on one line, without anything that moves a terminal's cursor."""
    words = " ".join(reason.split())
    return "".join(letter if letter.isprintable() else "?" for letter in words)[:MOST_WHY] or "refused"
