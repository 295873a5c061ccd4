"""Tasks from the command line."""

from pathlib import Path

from shopfloor.cli.tasks import lines
from tests.cli.conftest import Shop, repository


def test_a_task_is_made_listed_explained_cancelled_and_retried(shop: Shop, place: Path) -> None:
    shop.json("projects", "create", "toolshop", str(repository(place)))
    first = shop.json("tasks", "create", "toolshop", "Sharpen the saw. Slowly.")["task_id"]
    second = shop.json("tasks", "create", "toolshop", "Cut the wood.", "--after", first, "--priority", "HIGH")[
        "task_id"
    ]
    assert "Sharpen the saw" in shop("tasks", "list", "--project", "toolshop").out
    assert f"it waits for {first}" in shop("tasks", "explain", second).out
    assert shop.json("tasks", "dependencies", first)["blocks"] == [second]
    drawn = shop("tasks", "graph", second).out.splitlines()
    assert drawn == [f"{first} pending: Sharpen the saw", f"  {second} pending: Cut the wood  after {first}"]
    assert "-->" in shop("tasks", "graph", "toolshop", "--kind", "project", "--mermaid").out
    assert shop.json("tasks", "dependencies", second, "--remove", first)["depends_on"] == []
    assert shop.json("tasks", "cancel", first, "--reason", "no")["reason"] == "no"
    assert shop.json("tasks", "retry", first)["status"] == "pending"
    assert "pending" in shop("tasks", "show", first).out


def test_a_circle_is_refused_with_what_to_do(shop: Shop, place: Path) -> None:
    shop.json("projects", "create", "ring", str(repository(place)))
    task_id = shop.json("tasks", "create", "ring", "One")["task_id"]
    refused = shop("tasks", "dependencies", task_id, "--add", task_id)
    assert (refused.code != 0, "Leave out one dependency" in refused.err) == (True, True)


def test_a_graph_as_text_puts_each_task_below_what_it_waits_for() -> None:
    nodes = [{"task_id": name, "status": "pending", "title": name} for name in ("c", "a", "b")]
    edges = [
        {"task_id": "c", "depends_on": "b"},
        {"task_id": "b", "depends_on": "a"},
        {"task_id": "c", "depends_on": "a"},
    ]
    assert lines(nodes, edges) == ["a pending: a", "  b pending: b  after a", "    c pending: c  after b, a"]
