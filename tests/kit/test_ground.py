"""The ground floor: configuration, logs, machines, blobs."""

from collections.abc import AsyncIterator
from enum import StrEnum
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shopfloor.kit import config, log
from shopfloor.kit.blobs import BlobNotFound, BlobStore, BlobTooLarge
from shopfloor.kit.errors import NotFound, Problem
from shopfloor.kit.machine import IllegalMove, Machine


class Light(StrEnum):
    RED = "red"
    GREEN = "green"


async def pieces(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def test_a_blob_comes_back_under_its_hash(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    sha256, size = await store.put(pieces(b"hello ", b"world"), limit=100)
    assert (store.path(sha256).read_bytes(), size) == (b"hello world", 11)


async def test_a_blob_over_the_limit_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(BlobTooLarge):
        await BlobStore(tmp_path).put(pieces(b"x" * 11), limit=10)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "0" * 63, "Z" * 64])
def test_a_hash_is_no_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(BlobNotFound):
        BlobStore(tmp_path).path(name)


def test_a_refused_move_says_what_is_possible() -> None:
    machine = Machine({Light.RED: {Light.GREEN}, Light.GREEN: set()})
    with pytest.raises(IllegalMove) as refused:
        machine.step(Light.GREEN, Light.RED)
    assert "final" in refused.value.hint


def test_a_state_without_a_row_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="without a row"):
        Machine({Light.RED: {Light.GREEN}})


class TeapotMissing(NotFound):
    """There is no teapot."""

    hint = "Buy one."


def test_a_problem_explains_itself() -> None:
    document = TeapotMissing(room="kitchen").document()
    wanted = {
        "status": 404,
        "code": "teapot_missing",
        "detail": "There is no teapot.",
        "hint": "Buy one.",
        "room": "kitchen",
    }
    assert wanted.items() <= document.items()


def test_every_problem_has_a_hint() -> None:
    """Bad input gets a clear answer: what to do is part of it."""

    def kinds(kind: type[Problem]) -> list[type[Problem]]:
        return [kind, *(k for child in kind.__subclasses__() for k in kinds(child))]

    import shopfloor.features  # noqa: F401 - brings every kind of problem

    assert [kind.__name__ for kind in kinds(Problem) if not kind.hint or not kind.__doc__] == []


@pytest.mark.parametrize(
    "secret",
    ["ghp_abcdefghijklmnop", "sk-ant-api03-abcdefghij", "sfs_abcdefghij12345", "Bearer abcdefgh12345678"],
)
def test_what_looks_like_a_credential_is_not_logged(secret: str) -> None:
    assert secret not in str(log.redact({"note": f"used {secret} here", "list": [secret]}))


@given(st.dictionaries(st.sampled_from(["token", "api_key", "password", "authorization"]), st.text(min_size=1)))
def test_what_is_named_like_a_credential_is_not_logged(fields: dict[str, str]) -> None:
    assert set(log.redact(fields).values()) <= {log.HIDDEN}


def test_a_wrong_setting_is_named_with_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "shopfloor.toml"
    file.write_text("max_sandboxes = 'many'\n")
    monkeypatch.setenv(config.CONFIG_VARIABLE, str(file))
    with pytest.raises(config.BadConfiguration) as refused:
        config.load()
    assert "max_sandboxes" in refused.value.message
    assert str(file) in refused.value.hint


def test_an_unknown_setting_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "shopfloor.toml"
    file.write_text("max_sandboxen = 3\n")
    monkeypatch.setenv(config.CONFIG_VARIABLE, str(file))
    with pytest.raises(config.BadConfiguration, match="max_sandboxen"):
        config.load()


def test_listening_for_others_needs_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(config.CONFIG_VARIABLE, str(tmp_path / "none.toml"))
    with pytest.raises(config.BadConfiguration, match="api_key"):
        config.load(host="0.0.0.0")
