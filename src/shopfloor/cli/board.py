"""`board`: the columns of a project, in the terminal."""

import shutil
import sys
from itertools import zip_longest
from typing import Annotated, Any

import typer

from shopfloor.cli import render
from shopfloor.cli.options import Json, Url

NARROWEST = 16
"""Characters of a column below which the columns stand below each other."""


def board(
    project: Annotated[str | None, typer.Argument(metavar="PROJECT", help="A project's name or id; else all.")] = None,
    limit: Annotated[int, typer.Option(help="Most tickets of a column.")] = 20,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Show the board: every ticket in its column, with its tasks, its evidence and what is in its way."""
    from shopfloor.cli.client import API, Client

    with Client(url) as client:
        view = client.get(f"{API}/board/view", project=project, limit=limit)
    if as_json:
        render.as_json(view)
        return
    width = (shutil.get_terminal_size((120, 40)).columns - 10) // len(view["columns"])
    if width < NARROWEST or not sys.stdout.isatty():
        _below(view["columns"])
    else:
        _beside(view["columns"], width)
    if together := view["union"]:
        render.say(_together(together))


def _together(union: dict[str, Any]) -> str:
    reason = f": {render.clean(union['reason'])}" if union["reason"] else ""
    return f"all {len(union['tickets'])} live branches together: {union['verdict'] or union['state']}{reason}"


def _head(column: dict[str, Any]) -> str:
    limit = f"/{column['wip_limit']}" if column["wip_limit"] else ""
    return f"{column['phase_id']} {column['count']}{limit}"


def _below(columns: list[dict[str, Any]]) -> None:
    for column in columns:
        print(render.paint(_head(column), "bold"))
        for card in column["tickets"]:
            print("  " + "  ".join(filter(None, _lines(card))))
        if column["next_cursor"]:
            print(f"  … {column['count'] - len(column['tickets'])} more")


def _beside(columns: list[dict[str, Any]], width: int) -> None:
    stacks = [[line for card in column["tickets"] for line in (*filter(None, _lines(card)), "")] for column in columns]
    print("  ".join(render.paint(render.one_line(_head(column), width).ljust(width), "bold") for column in columns))
    for row in zip_longest(*stacks, fillvalue=""):
        print("  ".join(render.one_line(cell, width).ljust(width) for cell in row).rstrip())


def _lines(card: dict[str, Any]) -> tuple[str, ...]:
    proven = card["evidence"]
    tasks = card["tasks"].values()
    done = sum(1 for _, status in tasks if status == "completed")
    return (
        render.one_line(card["ticket_id"]),
        render.one_line(card["title"], 60),
        f"tasks {done}/{len(tasks)}" if tasks else "",
        f"proven {proven['passed']}/{proven['total']}" if proven["total"] else "",
        f"{proven['failed']} fail" if proven["failed"] else "",
        f"! {card['blocked_class']}" if card["is_blocked"] else "",
        card["approval"] if card["approval"] not in {"not_required", "approved"} else "",
        f"conflicts with {len(card['conflicts_with'])}" if card["conflicts_with"] else "",
        f"behind {card['behind']}" if card["behind"] else "",
        f"${card['cost_usd']:.2f}" if card["cost_usd"] else "",
    )
