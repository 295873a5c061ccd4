"""Meters read along: whatever pieces an answer comes in, the same is counted, and nothing is made up."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import orjson
import pytest
from genai_prices import Usage as Tokens
from hypothesis import given, settings
from hypothesis import strategies as st

from shopfloor.gateway import metering
from shopfloor.gateway.accounts import ADAPTERS, Price
from shopfloor.gateway.port import Api, Asked, Usage
from shopfloor.kit import plugins
from tests.gateway.upstream import INPUT, OUTPUT, anthropic, chat, gemini, responses

STREAM = "text/event-stream"
ANSWERS: list[tuple[str, str, Callable[[], Iterator[bytes]]]] = [
    ("anthropic", "claude-opus-4-5", anthropic),
    ("openai", "gpt-5", responses),
    ("openai", "gpt-5", chat),
    ("gemini", "gemini-2.5-pro", gemini),
]
every_answer = pytest.mark.parametrize(("name", "model", "answer"), ANSWERS, ids=[a[2].__name__ for a in ANSWERS])


def api(name: str) -> Api:
    return cast("Api", plugins.load(ADAPTERS, name).API)


def read(name: str, pieces: Sequence[bytes], content_type: str = STREAM) -> Usage | None:
    meter = api(name).meter(Asked(model="asked", metered=True), content_type)
    for piece in pieces:
        meter.feed(piece)
    return meter.usage()


@every_answer
@settings(deadline=None)
@given(cuts=st.lists(st.integers(0, 3000), max_size=12))
def test_pieces_of_any_size_count_the_same(
    name: str, model: str, answer: Callable[[], Iterator[bytes]], cuts: list[int]
) -> None:
    whole = b"".join(answer())
    places = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    found = read(name, [whole[a:b] for a, b in itertools.pairwise(places)])
    assert found is not None
    assert (found.model, found.tokens.input_tokens, found.tokens.output_tokens, found.final) == (
        model,
        INPUT,
        OUTPUT,
        True,
    )


@every_answer
@settings(deadline=None)
@given(part=st.floats(0, 0.8))
def test_an_answer_that_was_cut_is_never_taken_for_a_whole_one(
    name: str, model: str, answer: Callable[[], Iterator[bytes]], part: float
) -> None:
    del model
    *pieces, _ = list(answer()) if name == "gemini" else list(answer())[:-1]
    whole = b"".join(pieces)
    found = read(name, [whole[: int(len(whole) * part)]])
    assert found is None or not found.final


@pytest.mark.parametrize("name", ["anthropic", "openai", "gemini"])
@settings(deadline=None)
@given(junk=st.lists(st.binary(max_size=200), max_size=5))
def test_junk_costs_nothing_and_breaks_nothing(name: str, junk: list[bytes]) -> None:
    found = read(name, junk)
    assert found is None or not found.final


@pytest.mark.parametrize("name", ["anthropic", "openai", "gemini"])
@settings(deadline=None)
@given(
    said=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["usage", "message", "type", "model", "response", "usageMetadata", "candidates", "input_tokens"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_documents_of_any_shape_break_nothing(name: str, said: Any) -> None:
    try:
        body = orjson.dumps(said)
    except TypeError:
        return
    read(name, [b"data: " + body + b"\n\n"])
    read(name, [body], "application/json")


ONE_PIECE: list[tuple[str, dict[str, Any]]] = [
    ("anthropic", {"type": "message", "model": "m", "usage": {"input_tokens": INPUT, "output_tokens": OUTPUT}}),
    ("openai", {"model": "m", "usage": {"input_tokens": INPUT, "output_tokens": OUTPUT}}),
    ("openai", {"model": "m", "usage": {"prompt_tokens": INPUT, "completion_tokens": OUTPUT}}),
    (
        "gemini",
        {
            "modelVersion": "m",
            "candidates": [{"finishReason": "STOP"}],
            "usageMetadata": {"promptTokenCount": INPUT, "candidatesTokenCount": OUTPUT},
        },
    ),
]


@pytest.mark.parametrize(("name", "document"), ONE_PIECE)
def test_an_answer_in_one_piece_is_counted(name: str, document: dict[str, Any]) -> None:
    found = read(name, [orjson.dumps(document)], "application/json")
    assert found is not None
    assert (found.model, found.tokens.input_tokens, found.tokens.output_tokens, found.final) == (
        "m",
        INPUT,
        OUTPUT,
        True,
    )


def test_cached_input_costs_less_and_writing_the_cache_more() -> None:
    from genai_prices import Usage as Tokens

    plain = metering.price("anthropic", "claude-opus-4-5", Tokens(input_tokens=1000))
    read = metering.price("anthropic", "claude-opus-4-5", Tokens(input_tokens=1000, cache_read_tokens=1000))
    written = metering.price("anthropic", "claude-opus-4-5", Tokens(input_tokens=1000, cache_write_tokens=1000))
    assert plain is not None
    assert read is not None
    assert written is not None
    assert read < plain < written


def test_a_price_of_ones_own_counts_cached_tokens_apart() -> None:
    from genai_prices import Usage as Tokens

    own = Price(input=10, output=20, cache_read=1)
    tokens = Tokens(input_tokens=1_000_000, cache_read_tokens=400_000, output_tokens=100_000)
    assert own.of(tokens) == pytest.approx(6 + 0.4 + 2)


def test_an_unknown_model_has_no_price() -> None:
    assert not metering.priced("anthropic", "nobody-knows-it")


REFUSED: list[tuple[str, str, str]] = [
    ("anthropic", "POST", "/v1/files"),
    ("anthropic", "GET", "/v1/organizations/usage_report/messages"),
    ("anthropic", "POST", "/v1/messages/batches"),
    ("openai", "POST", "/v1/files"),
    ("openai", "GET", "/v1/responses/resp_1"),
    ("openai", "POST", "/v1/organization/admin_api_keys"),
    ("openai", "DELETE", "/v1/models/x"),
    ("gemini", "POST", "/v1beta/cachedContents"),
    ("gemini", "POST", "/v1beta/models/a/b:generateContent"),
    ("gemini", "POST", "/upload/v1beta/files"),
]


@pytest.mark.parametrize(("name", "method", "path"), REFUSED)
def test_a_key_opens_nothing_but_models(name: str, method: str, path: str) -> None:
    assert api(name).asked(method, path, b"{}") is None


@given(st.integers(0, 5_000_000), st.integers(0, 200_000))
def test_the_most_a_call_can_cost_is_never_less_than_what_it_costs(size: int, output: int) -> None:
    """Rounded upwards, so that the list is asked seldom: at most an eighth more."""
    exact = metering.price("anthropic", "claude-opus-4-5", Tokens(input_tokens=2 * size, output_tokens=output))
    most = metering.most("anthropic", "claude-opus-4-5", size, output)
    assert exact is not None
    assert most is not None
    assert exact <= most <= exact * 1.13 + 1e-4
