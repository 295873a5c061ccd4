"""`changes`: delivered branches, from the list to the merge."""

from typing import Annotated, Any

import typer

from shopfloor.cli import render
from shopfloor.cli.options import Json, Url

app = typer.Typer(help="Delivered branches: list, show, diff, merge.", no_args_is_help=True, rich_markup_mode=None)
ChangeId = Annotated[str, typer.Argument(metavar="ID", help="A change's id, or its work order's.")]
PATH = "/api/v1/changes"


@app.command("list")
def list_changes(
    state: Annotated[str | None, typer.Option(help="Only open, merged or closed ones.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many, newest first.")] = 20,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """List changes, newest first."""
    from shopfloor.cli.client import Client

    with Client(url) as client:
        found = client.get(PATH, state=state, limit=limit)
    if as_json:
        render.as_json(found)
        return
    names = ("change_id", "state", "mergeable", "head_branch", "base_branch", "title")
    rows = ([change.get(name) for name in names] for change in found["changes"])
    render.table(("id", "state", "mergeable", "branch", "into", "title"), rows)


@app.command()
def show(change_id: ChangeId, as_json: Json = False, url: Url = None) -> None:
    """One change."""
    from shopfloor.cli.client import Client

    with Client(url) as client:
        change = _found(client, change_id)
    if as_json:
        render.as_json(change)
        return
    render.facts((name.replace("_", " "), _shown(value)) for name, value in change.items())


@app.command()
def diff(change_id: ChangeId, as_json: Json = False, url: Url = None) -> None:
    """What a change changes."""
    from shopfloor.cli.client import Client

    with Client(url) as client:
        told = client.get(f"{PATH}/{_found(client, change_id)['change_id']}/diff")
    if as_json:
        render.as_json(told)
        return
    for line in render.clean(told["diff"]).splitlines():
        style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
        print(render.paint(line, style))
    if told["truncated"]:
        render.note("the diff is longer; fetch the branch to see all of it", "yellow")


@app.command()
def merge(
    change_id: ChangeId,
    squash: Annotated[bool, typer.Option("--squash", help="As one commit.")] = False,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Merge a change into the branch it was made for."""
    from shopfloor.cli.client import Client

    with Client(url) as client:
        change = _found(client, change_id)
        merged = client.post(
            f"{PATH}/{change['change_id']}/merge", {"expected_head": change["head_commit"], "squash": squash}
        )
    render.as_json(merged) if as_json else render.say(
        f"{merged['state']}: {render.clean(merged['merge_commit'] or '')}"
    )


def _found(client: Any, change_id: str) -> dict[str, Any]:
    """The change of that id, or the newest of the work order of that id."""
    from shopfloor.cli.client import path_part

    if change_id.startswith("wo-"):
        newest: list[dict[str, Any]] = client.get(PATH, work_order_id=change_id, limit=1)["changes"]
        if newest:
            return newest[0]
    change: dict[str, Any] = client.get(f"{PATH}/{path_part(change_id)}")
    return change


def _shown(value: object) -> object:
    return ", ".join(map(str, value)) if isinstance(value, list) else value
