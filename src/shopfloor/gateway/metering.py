"""What answers used and what that costs, by the maintained price list of the `genai-prices` package."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from shopfloor.gateway.port import Lines, Usage

BYTES_PER_TOKEN = 4
"""A rough guess, only for answers that were cut before they said what they used."""


@dataclass
class Known:
    """What an answer has said so far."""

    model: str
    said: dict[str, Any] = field(default_factory=dict)
    """The part about usage, in the provider's words."""
    flavour: str = "default"
    """Which of the provider's APIs these are words of, as the price list names it."""
    final: bool = False


class Reading:
    """The meter of every API; `take` knows where its documents speak of usage."""

    def __init__(self, provider: str, model: str, lines: Lines, take: Callable[[Known, dict[str, Any]], None]) -> None:
        self._provider, self._lines, self._take = provider, lines, take
        self._known = Known(model)

    def feed(self, chunk: bytes) -> None:
        """Take in the next bytes."""
        for found in self._lines.feed(chunk):
            self._take(self._known, found)

    def usage(self) -> Usage | None:
        """What is known so far."""
        from genai_prices import Usage as Tokens

        for found in self._lines.end():
            self._take(self._known, found)
        tokens = self._tokens()
        if self._known.final and tokens is not None:
            return Usage(model=self._known.model, tokens=tokens, final=True)
        if tokens is None and not self._lines.other_bytes:
            return None
        guessed = max(getattr(tokens, "output_tokens", 0) or 0, self._lines.other_bytes // BYTES_PER_TOKEN)
        known = {
            name: getattr(tokens, name, None) for name in ("input_tokens", "cache_read_tokens", "cache_write_tokens")
        }
        return Usage(model=self._known.model, tokens=Tokens(**known, output_tokens=guessed), final=False)

    def _tokens(self) -> Any:
        from genai_prices import extract_usage

        if not self._known.said:
            return None
        try:
            return extract_usage(self._known.said, provider_id=self._provider, api_flavor=self._known.flavour).usage
        except (ValueError, KeyError, TypeError):
            return None


def price(provider: str, model: str, tokens: Any, own: Any = None) -> float | None:
    """US dollars; None when nobody knows the model's price. `own`: what the settings say it costs."""
    if own is not None:
        return float(own.of(tokens))
    from genai_prices import calc_price

    try:
        return float(calc_price(tokens, model_ref=model, provider_id=provider).total_price)
    except (LookupError, ValueError):
        return None


@lru_cache(maxsize=4096)
def _listed(provider: str, model: str, input_tokens: int, output_tokens: int) -> float | None:
    """By the list alone, which does not change while we run: looking a model up there costs more than a call may wait."""
    from genai_prices import Usage as Tokens

    return price(provider, model, Tokens(input_tokens=input_tokens, output_tokens=output_tokens))


def priced(provider: str, model: str, own: Any = None) -> bool:
    """Whether anybody knows what the model costs."""
    return own is not None or _listed(provider, model, 1, 0) is not None


def most(provider: str, model: str, body_bytes: int, most_output: int | None, own: Any = None) -> float | None:
    """What a call can cost at most: every byte a token, written to the dearest cache; None when there is no telling."""
    from genai_prices import Usage as Tokens

    if most_output is None:
        return None
    if own is not None:
        return price(provider, model, Tokens(input_tokens=2 * body_bytes, output_tokens=most_output), own)
    return _listed(provider, model, _upwards(2 * body_bytes), most_output)


def _upwards(number: int) -> int:
    """The next number with at most four binary digits before its zeros: few are different."""
    shift = max(0, number.bit_length() - 4)
    return -(-number >> shift) << shift
