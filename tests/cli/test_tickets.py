"""Tickets and the board from the command line."""

from pathlib import Path

import pytest

from tests.cli.conftest import Shop, repository


def made(shop: Shop, place: Path, name: str) -> str:
    shop.json("projects", "create", name, str(repository(place)))
    words = ["tickets", "create", name, "Mend the gate", "-c", "it shuts :: test -f gate", "--priority", "HIGH"]
    return str(shop.json(*words)["ticket_id"])


def test_a_ticket_is_made_moved_sent_back_and_told_of(shop: Shop, place: Path) -> None:
    ticket = made(shop, place, "gates")
    assert shop.json("tickets", "progress", ticket)["status"] == "analyzing"
    assert shop.json("tickets", "move", ticket, "PHASE_IMPLEMENTATION")["status"] == "building"
    refused = shop("tickets", "progress", ticket)
    assert refused.code != 0
    assert "nothing was changed" in refused.err
    assert shop.json("tickets", "regress", ticket, "-r", "not yet")["status"] == "analyzing"
    assert "not yet" in shop("tickets", "history", ticket).out
    assert "it shuts" in shop("tickets", "criteria", ticket).out
    assert "flowchart" in shop("tickets", "graph", ticket).out
    assert ticket in shop("tickets", "list", "--project", "gates").out
    assert "→" in shop("tickets", "show", ticket).out


def test_the_board_shows_every_column(shop: Shop, place: Path) -> None:
    ticket = made(shop, place, "walls")
    assert shop("tickets", "block", ticket, "-r", "rain").code == 0
    shown = shop("board", "walls").out
    assert all(column in shown for column in ("backlog 1", "analyzing 0/5", "testing 0/8", "done 0"))
    assert ticket in shown
    assert "waiting_on_clarification" in shown
    assert shop("tickets", "unblock", ticket).code == 0


def test_a_ticket_waits_for_its_approval(shop: Shop, place: Path) -> None:
    shop.json("projects", "create", "careful", str(repository(place)))
    ticket = shop.json("tickets", "create", "careful", "Dig", "--approval")["ticket_id"]
    assert "approve" in shop("tickets", "progress", ticket).err
    assert shop.json("tickets", "approve", ticket, "--by", "ann")["approval_by"] == "person:ann"
    assert shop.json("tickets", "progress", ticket)["status"] == "analyzing"


def test_two_colons_without_spaces_are_part_of_a_criterion(shop: Shop, place: Path) -> None:
    shop.json("projects", "create", "colons", str(repository(place)))
    ticket = shop.json("tickets", "create", "colons", "Sort", "-c", "std::sort is used")["ticket_id"]
    found = shop.json("tickets", "criteria", ticket, "--add", "std::vector too :: test -f a::b")["criteria"]
    commands = [one["check"] and one["check"]["command"] for one in found]
    assert [one["text"] for one in found] == ["std::sort is used", "std::vector too"]
    assert commands == [None, "test -f a::b"]


@pytest.mark.parametrize("what", ["tickets", "tasks"])
def test_a_list_says_that_there_is_more_and_goes_on(shop: Shop, place: Path, what: str) -> None:
    shop.json("projects", "create", f"many-{what}", str(repository(place)))
    for word in ("Oil the hinges", "Paint the fence"):
        shop.json(what, "create", f"many-{what}", word)
    words = (what, "list", "--project", f"many-{what}", "--limit", "1")
    first = shop(*words)
    told = first.err.split()
    assert told[:3] == ["2", "in", "all;"]
    rest = shop(*words, "--cursor", told[told.index("--cursor") + 1])
    assert ("Paint" in first.out, "Oil" in rest.out, rest.err) == (True, True, "")
