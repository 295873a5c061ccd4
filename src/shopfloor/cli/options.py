"""Options and arguments that several commands share."""

from typing import Annotated

import typer


def order_ids(incomplete: str) -> list[str]:
    """Shell completion: the newest work orders, when the server can be reached."""
    from shopfloor.cli.client import ORDERS, Client
    from shopfloor.kit.errors import Problem

    try:
        with Client(timeout=1) as client:
            found = client.get(ORDERS, limit=100)["agent_work_orders"]
    except (Problem, KeyError, TypeError):
        return []
    return [order["agent_work_order_id"] for order in found if order["agent_work_order_id"].startswith(incomplete)]


Url = Annotated[
    str | None,
    typer.Option("--url", envvar="SHOPFLOOR_URL", help="The server; else the address in the configuration."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
OrderId = Annotated[str, typer.Argument(metavar="ID", help="A work order's id.", autocompletion=order_ids)]
Cursor = Annotated[str | None, typer.Option(help="Where to go on: what the page before ended with.")]
