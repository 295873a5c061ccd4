"""`accounts` and `costs`: who pays for the models, what they cost, and what waits for a usage limit's reset."""

from typing import Annotated

import typer

from shopfloor.cli import render
from shopfloor.cli.options import Json, Url

app = typer.Typer(help="Model accounts: list, resume.", no_args_is_help=True, rich_markup_mode=None)
COUNTED = ("calls", "cost_usd", "input_tokens", "cache_read_tokens", "output_tokens", "first_byte_ms")


@app.command("list")
def list_accounts(as_json: Json = False, url: Url = None) -> None:
    """Model accounts, whether their key is set for the server, and whether they are paused."""
    from shopfloor.cli.client import Client

    with Client(url) as client:
        found = client.get("/api/v1/accounts")
    if as_json:
        render.as_json(found)
        return
    rows = (
        (
            one["account"],
            one["api"],
            one["base_url"],
            "set" if one["key_set"] else f"{one['key_env']} is not set",
            f"until {one['paused_until']}: {one['paused_reason']}" if one["paused_until"] else "",
        )
        for one in found["accounts"]
    )
    render.table(("account", "api", "server", "key", "paused"), rows)


@app.command()
def resume(
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="A paused account.")],
    as_json: Json = False,
    url: Url = None,
) -> None:
    """End the pause of an account before its time."""
    from shopfloor.cli.client import Client, path_part

    with Client(url) as client:
        found = client.post(f"/api/v1/accounts/{path_part(account)}/resume")
    render.as_json(found) if as_json else render.say(f"{render.clean(account)} may be used again")


def costs(
    by: Annotated[str, typer.Option(help="model, account, project, spec, ticket, task, order or attempt.")] = "model",
    order: Annotated[str | None, typer.Option(help="Only of this work order.")] = None,
    task: Annotated[str | None, typer.Option(help="Only of this task.")] = None,
    ticket: Annotated[str | None, typer.Option(help="Only of this ticket.")] = None,
    spec: Annotated[str | None, typer.Option(help="Only of this spec.")] = None,
    project: Annotated[str | None, typer.Option(help="Only of this project (its id).")] = None,
    account: Annotated[str | None, typer.Option(help="Only of this model account.")] = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """What models were asked and what that cost, as the gateway counted it."""
    from shopfloor.cli.client import Client

    only = {"order": order, "task": task, "ticket": ticket, "spec": spec, "project": project, "account": account}
    with Client(url) as client:
        found = client.get("/api/v1/costs", by=by, **only)
    if as_json:
        render.as_json(found)
        return
    rows = ([one["key"] or "-", *(_shown(name, one[name]) for name in COUNTED)] for one in found["spending"])
    render.table((by, "calls", "USD", "input", "from cache", "output", "first byte ms"), rows)
    if unpriced := sum(one["unpriced"] for one in found["spending"]):
        render.note(f"{unpriced} calls are of models whose price is unknown: set accounts.NAME.prices", "yellow")


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if name == "cost_usd" else f"{value:.0f}"
