"""What holds of every way to compare tickets: by their letters, and by what they mean to a (tiny, real) model."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shopfloor.board.port import DuplicateModelUnusable, Model
from shopfloor.board.rules.likeness import Index
from shopfloor.board.steps.duplicates import load
from tests.board import desk as desks
from tests.board.desk import Desk
from tests.support.platform import folder
from tests.support.word_model import word_model

Making = Callable[[], Index]
TITLES = ("Mend the gate", "Paint the wall", "Count the invoices", "Broken login")
"""No two share a word that counts."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(str(word_model(tmp_path_factory.mktemp("model"))))


@pytest.fixture(scope="module", params=["letters", "sense"])
def making(request: pytest.FixtureRequest, model: Model) -> Making:
    """Makes an empty index, of each kind."""
    return Index if request.param == "letters" else lambda: by_sense(model)


def by_sense(model: Model) -> Index:
    return Index(model.texts(), model.texts())


def test_what_was_dropped_is_not_found(making: Making) -> None:
    index = making()
    index.put("a", "Mend the gate", "")
    index.drop("a")
    assert index.alike("Mend the gate", "", threshold=0.1, limit=5) == []


def test_dropping_what_is_not_there_is_fine(making: Making) -> None:
    index = making()
    index.drop("a")
    assert index.alike("Mend the gate", "", threshold=0.1, limit=5) == []


def test_what_was_replaced_is_found_by_its_new_text_alone(making: Making) -> None:
    index = making()
    index.put("a", "Mend the gate", "")
    index.put("a", "Paint the wall", "")
    assert index.alike("Mend the gate", "", threshold=0.1, limit=5) == []
    assert index.alike("Paint the wall", "", threshold=0.1, limit=5) == [("a", 1.0)]


def test_what_was_taken_in_often_is_found_as_what_was_taken_in_once(making: Making) -> None:
    """A busy ticket's own words became common by its moves, and its literal repetition was let through."""
    often, once = making(), making()
    for number in range(120):
        often.put("a", "Mend the gate", f"Seen {number} times")
    for index in (often, once):
        index.put("a", "Mend the gate", "It squeaks")
    found = [index.alike("Mend the gate", "It squeaks", threshold=0.1, limit=5) for index in (often, once)]
    assert found[0] == found[1] == [("a", 1.0)]


def test_the_most_alike_comes_first_and_equals_by_their_name(making: Making) -> None:
    index = making()
    for key, title in (("c", "Mend the gate"), ("half", "Mend the wall"), ("a", "Mend the gate")):
        index.put(key, title, "")
    assert [key for key, _ in index.alike("Mend the gate", "", threshold=0.01, limit=5)] == ["a", "c", "half"]


def test_nothing_below_the_threshold_is_told(making: Making) -> None:
    index = making()
    index.put("half", "Mend the wall", "")
    ((_, score),) = index.alike("Mend the gate", "", threshold=0.01, limit=5)
    assert 0.01 < score < 1
    assert index.alike("Mend the gate", "", threshold=score + 0.01, limit=5) == []


def test_no_more_are_told_than_were_asked_for(making: Making) -> None:
    index = making()
    for number in range(5):
        index.put(str(number), "Mend the gate", "")
    assert index.alike("Mend the gate", "", threshold=0.1, limit=3) == [("0", 1.0), ("1", 1.0), ("2", 1.0)]


def test_a_description_counts_less_than_a_title(making: Making) -> None:
    index = making()
    index.put("titled", "Mend the gate", "paint wall")
    index.put("described", "Paint the wall", "mend gate")
    found = index.alike("Mend the gate", "paint wall", threshold=0.01, limit=5)
    assert [key for key, _ in found] == ["titled", "described"]


@given(changes=st.lists(st.tuples(st.integers(0, 150), st.sampled_from([*TITLES, None])), max_size=400))
def test_whatever_came_and_went_what_is_there_is_found(making: Making, changes: list[tuple[int, str | None]]) -> None:
    """TKT-13: exactly the tickets that stand now, by the texts that they have now."""
    index = making()
    now: dict[str, str] = {}
    for number, title in changes:
        key = str(number)
        if title is None:
            index.drop(key)
            now.pop(key, None)
        else:
            index.put(key, title, "")
            now[key] = title
    for title in TITLES:
        found = {key for key, _ in index.alike(title, "", threshold=0.99, limit=1000)}
        assert found == {key for key, stands in now.items() if stands == title}


def test_a_model_finds_what_is_said_without_one_common_letter(model: Model) -> None:
    letters, sense = Index(), by_sense(model)
    for index in (letters, sense):
        index.put("a", "Broken login", "")
        index.put("b", "Mend the gate", "")
    assert letters.alike("Cannot sign in", "", threshold=0.0001, limit=5) == []
    assert sense.alike("Cannot sign in", "", threshold=0.7, limit=5) == [("a", 1.0)]


def test_a_text_of_which_the_model_knows_no_word_is_like_nothing(model: Model) -> None:
    index = by_sense(model)
    index.put("a", "Xylophone", "")
    assert index.alike("Xylophone", "", threshold=0.0001, limit=5) == []


def test_one_project_is_taken_in_while_another_is_asked_about(model: Model) -> None:
    """Loading happens in a thread, beside the requests."""

    def fill(_: int) -> list[tuple[str, float]]:
        index = by_sense(model)
        for number in range(200):
            index.put(str(number), TITLES[number % len(TITLES)], "words " * 50)
        return index.alike("Cannot sign in", "", threshold=0.6, limit=1)

    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(fill, range(3)))
    assert found == [[("103", 1.0)]] * 3


def test_without_a_model_nothing_of_it_is_loaded() -> None:
    """Issue 4.6: no model by default."""
    program = "import sys, shopfloor.app, shopfloor.cli.doctor; print([n for n in ('model2vec', 'numpy') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("wrong", ["file", "empty", "broken"])
def test_a_folder_that_holds_no_model_is_told(wrong: str, tmp_path: Path) -> None:
    place = tmp_path / "model"
    if wrong == "file":
        place.write_text("no folder")
    elif wrong == "empty":
        place.mkdir()
    else:
        (word_model(place) / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(DuplicateModelUnusable, match="duplicate_model"):
        load(str(place))


@pytest.fixture
def place() -> Iterator[Path]:
    with folder() as made:
        yield Path(made)


async def tickets(desk: Desk) -> int:
    return int((await desk.get("/tickets"))["total_count"])


async def test_a_ticket_that_means_the_same_must_be_insisted_on(database_url: str, place: Path) -> None:
    """TKT-02, with a model: same candidates, same force_create."""
    chosen = {"duplicate_model": str(word_model(place / "model"))}
    async with desks.desk(database_url, place, board=chosen) as desk:
        await desk.project()
        first = await desk.ticket("Broken login")
        wish = {"project": "p", "title": "Cannot sign in"}
        looked = await desk.post("/tickets/check-duplicates", wish)
        assert (looked["threshold"], [one["ticket_id"] for one in looked["candidates"]]) == (0.7, [first])
        refused = await desk.post("/tickets", wish, expect=409)
        assert (refused["code"], refused["candidates"][0]["ticket_id"]) == ("duplicate_tickets", first)
        await desk.post("/tickets", wish | {"force_create": True}, expect=201)


async def test_a_model_that_is_not_there_refuses_with_what_to_do_and_takes_what_is_insisted_on(
    database_url: str, place: Path
) -> None:
    async with desks.desk(database_url, place, board={"duplicate_model": str(place / "later")}) as desk:
        await desk.project()
        wish = {"project": "p", "title": "Broken login"}
        for path in ("/tickets", "/tickets/check-duplicates"):
            refused = await desk.post(path, wish, expect=503)
            assert (refused["code"], "force_create" in refused["hint"]) == ("duplicate_model_unusable", True)
        assert await tickets(desk) == 0
        await desk.post("/tickets", wish | {"force_create": True}, expect=201)


async def test_a_model_that_came_late_is_asked_without_a_restart(database_url: str, place: Path) -> None:
    async with desks.desk(database_url, place, board={"duplicate_model": str(place / "later")}) as desk:
        await desk.project()
        first = await desk.ticket("Broken login")
        wish = {"project": "p", "title": "Cannot sign in"}
        await desk.post("/tickets", wish, expect=503)
        word_model(place / "later")
        assert (await desk.post("/tickets", wish, expect=409))["candidates"][0]["ticket_id"] == first
