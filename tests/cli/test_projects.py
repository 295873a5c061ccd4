"""Projects, accounts and costs from the command line."""

from pathlib import Path

import pytest

from tests.cli.conftest import Shop, repository


def test_a_project_is_made_changed_shown_and_forgotten(shop: Shop, place: Path) -> None:
    folder = repository(place)
    made = shop.json("projects", "create", "greeter", str(folder), "--allow", "pypi.org:443", "--budget", "5")
    assert (made["name"], made["allow"], made["budget_usd"]) == ("greeter", ["pypi.org:443"], 5)
    changed = shop.json("projects", "change", "greeter", "--order-budget", "1")
    assert (changed["work_order_budget_usd"], changed["budget_usd"]) == (1, 5)
    assert (changed["git_gate"], shop.json("projects", "change", "greeter", "--git-gate")["git_gate"]) == (False, True)
    assert "pypi.org:443" in shop("projects", "show", "greeter").out
    assert "greeter" in shop("projects", "list").out
    assert shop("projects", "delete", "greeter").code == 0
    assert shop("projects", "show", "greeter").code != 0


def test_a_list_of_projects_is_searched_and_goes_on(shop: Shop, place: Path) -> None:
    for name in ("mill-one", "mill-two"):
        (place / name).mkdir()
        shop.json("projects", "create", name, str(repository(place / name)))
    words = ("projects", "list", "--search", "MILL", "--limit", "1")
    first = shop(*words)
    told = first.err.split()
    rest = shop(*words, "--cursor", told[told.index("--cursor") + 1])
    assert ("mill-one" in first.out, "mill-two" in rest.out, rest.err) == (True, True, "")


def test_a_wrong_setting_is_told_with_what_to_do(shop: Shop, place: Path) -> None:
    done = shop("projects", "create", "bad", str(repository(place)), "--branch-template", "{slug}")
    assert done.code == 1
    assert "{id} must be in it" in done.err


def test_a_projects_board_is_set(shop: Shop, place: Path) -> None:
    options = ("--autonomy", "--wip", "building=3", "--wip", "testing=2", "--gates", '{"testing": []}')
    made = shop.json("projects", "create", "board", str(repository(place)), *options)
    assert (made["autonomy"], made["wip_limits"], made["gates"]) == (
        True,
        {"building": 3, "testing": 2},
        {"testing": []},
    )
    assert "building 3, testing 2" in shop("projects", "show", "board").out
    assert shop.json("projects", "change", "board", "--no-autonomy")["autonomy"] is False


@pytest.mark.parametrize("option", [("--wip", "building"), ("--gates", "{"), ("--wip", "kitchen=2")])
def test_a_board_that_cannot_be_is_told(shop: Shop, place: Path, option: tuple[str, str]) -> None:
    done = shop("projects", "create", "bad", str(repository(place)), *option)
    assert done.code != 0
    assert done.err.strip()


def test_accounts_are_listed(shop: Shop) -> None:
    assert "anthropic" in shop("accounts", "list").out


def test_costs_start_empty(shop: Shop) -> None:
    assert shop.json("costs", "--by", "order")["by"] == "order"


def test_costs_by_something_else_are_refused(shop: Shop) -> None:
    assert shop("costs", "--by", "weather").code == 1
