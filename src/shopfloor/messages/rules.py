"""The law of messages: kinds, how a receipt moves, what content is let through. Pure."""

import re
from enum import StrEnum

from shopfloor.kit.errors import Malformed, TooLarge
from shopfloor.kit.machine import Machine

MOST_CONTENT = 10 * 1024
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


class MessageState(StrEnum):
    """How far a message has come."""

    ACCEPTED = "accepted"
    DELIVERED = "delivered"
    SEEN = "seen"
    DONE = "done"
    FAILED = "failed"
    EXPIRED = "expired"


S = MessageState
_ENDS = (S.DONE, S.FAILED, S.EXPIRED)
MOVES = Machine(
    {
        S.ACCEPTED: (S.DELIVERED, S.SEEN, *_ENDS),
        S.DELIVERED: (S.SEEN, *_ENDS),
        S.SEEN: _ENDS,
        S.DONE: (),
        S.FAILED: (),
        S.EXPIRED: (),
    }
)
_ORDER = (S.ACCEPTED, S.DELIVERED, S.SEEN, S.DONE)


class MessageType(StrEnum):
    """What kind of thing is said."""

    USER_MESSAGE = "user_message"
    INTERRUPT = "interrupt"
    GUARDIAN_INTERVENTION = "guardian_intervention"
    SYSTEM = "system"


ALIASES = {"guardian_nudge": MessageType.GUARDIAN_INTERVENTION}


class UnknownMessageType(Malformed):
    """There is no such type of message."""

    hint = f"One of: {', '.join(MessageType)}."


class EmptyMessage(Malformed):
    """A message must say something."""

    hint = "Only an interrupt may be empty."


class MessageTooLarge(TooLarge):
    """The message is larger than allowed."""

    hint = "Put long texts into a file of the repository and name it in the message."


def message_type(text: str) -> MessageType:
    """The kind by its name or an old name of it."""
    if text in ALIASES:
        return ALIASES[text]
    try:
        return MessageType(text)
    except ValueError:
        raise UnknownMessageType(f"{text[:50]!r} is no type of message") from None


def cleaned(content: str, kind: MessageType) -> str:
    """The content without control characters; raises EmptyMessage or MessageTooLarge."""
    clean = _CONTROL.sub("", content.replace("\r\n", "\n"))
    if not clean.strip() and kind is not MessageType.INTERRUPT:
        raise EmptyMessage
    if (size := len(clean.encode())) > MOST_CONTENT:
        raise MessageTooLarge(f"the message has {size} bytes; at most {MOST_CONTENT}")
    return clean


def moves_on(now: MessageState, to: MessageState) -> bool:
    """Whether a receipt brings news. A repeated or late one does not; one the law forbids raises IllegalMove."""
    if now == to or (now in _ORDER and to in _ORDER and _ORDER.index(to) <= _ORDER.index(now)):
        return False
    MOVES.step(now, to)
    return True
