"""What the gateway must know of a provider's API: which calls there are, how a key is shown, what an answer cost."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import orjson


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a sandbox wants of a model."""

    model: str
    """Empty for a call that is about no model."""
    metered: bool
    """Whether it costs money."""
    most_output: int | None = None
    """Tokens that the answer may have at most; None: not said."""
    body: bytes = b""
    """What is sent on."""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What one call used."""

    model: str
    tokens: Any
    """`genai_prices.Usage`: all input tokens, of these the cached ones, all output tokens."""
    final: bool
    """Whether the provider said it at the end; else the call was cut and this is what is known."""


class Meter(Protocol):
    """Reads along while an answer passes through."""

    def feed(self, chunk: bytes) -> None:
        """Take in the next bytes of the answer, in any pieces."""

    def usage(self) -> Usage | None:
        """What the call used, as far as the answer has said."""


class Api(Protocol):
    """One provider's API. Each module in adapters/ has `API`, named like the module."""

    provider: str
    """Its name in the price list."""
    base_url: str
    """Where the provider serves it, without the version."""
    base_url_env: str
    """The variable by which its own programs name another place."""
    key_env: str
    """The variable that its own programs take the key from."""

    models_path: str
    """Lists its models, for nothing: to try a key."""

    def asked(self, method: str, path: str, body: bytes) -> Asked | None:
        """What a request is about; None when it may not pass. Raises Unreadable."""

    def key(self, key: str) -> Mapping[str, str]:
        """The headers that show the key."""

    def meter(self, asked: Asked, content_type: str) -> Meter:
        """A meter for the answer."""

    def wait_seconds(self, headers: Mapping[str, str], body: bytes, now: float) -> float | None:
        """After how long a 429 says that the account may call again; None when it does not say."""

    def refusal(self, status: int, kind: str, message: str) -> Any:
        """An error as this API words it, so that the agent's program shows the message."""


class Unreadable(ValueError):
    """The body is not what this API takes."""


def document(body: bytes) -> dict[str, Any]:
    """A request's JSON object; raises Unreadable."""
    try:
        found = orjson.loads(body)
    except ValueError as error:
        raise Unreadable("the body is not JSON") from error
    if not isinstance(found, dict):
        raise Unreadable("the body is not a JSON object")
    return found


class Lines:
    """The JSON of a stream of server-sent events whose line holds one of some words, or of an answer in one piece."""

    def __init__(self, content_type: str, words: tuple[bytes, ...]) -> None:
        self.streamed = "event-stream" in content_type
        self.other_bytes = 0
        """Of lines without these words: the text itself, in its wrapping."""
        self._words, self._rest = words, b""

    def feed(self, chunk: bytes) -> Iterator[dict[str, Any]]:
        """The telling documents that are complete with this chunk."""
        if not self.streamed:
            self._rest += chunk if len(self._rest) < MOST_ANSWER else b""
            return
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            if any(word in line for word in self._words):
                yield from _parsed(line[5:])
            else:
                self.other_bytes += len(line)

    def end(self) -> Iterator[dict[str, Any]]:
        """What an answer in one piece says."""
        if not self.streamed:
            yield from _parsed(self._rest)


MOST_ANSWER = 32 << 20


def _parsed(text: bytes) -> Iterator[dict[str, Any]]:
    try:
        found = orjson.loads(text)
    except ValueError:
        return
    yield from (one for one in (found if isinstance(found, list) else [found]) if isinstance(one, dict))
