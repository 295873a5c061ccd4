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
    delete_branch: Annotated[
        bool | None, typer.Option("--delete-branch/--keep-branch", help="By default as the forge's settings say.")
    ] = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Merge a change into the branch it was made for."""
    from shopfloor.cli.client import Client

    with Client(url) as client:
        change = _found(client, change_id)
        merged = client.post(
            f"{PATH}/{change['change_id']}/merge",
            {"expected_head": change["head_commit"], "squash": squash, "delete_branch": delete_branch},
        )
    render.as_json(merged) if as_json else render.say(
        f"{merged['state']}: {render.clean(merged['merge_commit'] or '')}"
    )


@app.command()
def close(change_id: ChangeId, as_json: Json = False, url: Url = None) -> None:
    """Withdraw a change; its branch stays."""
    from shopfloor.cli.client import Client

    with Client(url) as client:
        closed = client.post(f"{PATH}/{_found(client, change_id)['change_id']}/close")
    render.as_json(closed) if as_json else render.say(closed["state"])


@app.command("delete-branch")
def delete_branch(change_id: ChangeId, url: Url = None) -> None:
    """Remove the branch of a change that was merged or closed."""
    from shopfloor.cli.client import Client

    with Client(url) as client:
        change = _found(client, change_id)
        client.request("DELETE", f"{PATH}/{change['change_id']}/branch")
    render.say(f"{render.clean(change['head_branch'])} is gone")


@app.command()
def review(
    change_id: ChangeId,
    approve: Annotated[bool, typer.Option("--approve", help="It may be merged.")] = False,
    request_changes: Annotated[bool, typer.Option("--request-changes", help="It may not be merged like this.")] = False,
    message: Annotated[str, typer.Option("--message", "-m", help="What there is to say.")] = "",
    author: Annotated[str, typer.Option(help="Who says it.")] = "",
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Review a change of plain git; without a verdict, comment on it."""
    from shopfloor.cli.client import Client

    verdict = "approved" if approve and not request_changes else "changes_requested" if request_changes else "commented"
    with Client(url) as client:
        change = _found(client, change_id)
        body = {"verdict": verdict, "body": message, "author": author, "expected_head": change["head_commit"]}
        said = client.post(f"{PATH}/{change['change_id']}/reviews", body)
    render.as_json(said) if as_json else render.say(f"{said['verdict']} at {render.clean(said['commit'])[:12]}")


@app.command()
def reviews(change_id: ChangeId, as_json: Json = False, url: Url = None) -> None:
    """What reviewers said."""
    from shopfloor.cli.client import Client

    with Client(url) as client:
        told = client.get(f"{PATH}/{_found(client, change_id)['change_id']}/reviews")
    if as_json:
        render.as_json(told)
        return
    names = ("author", "verdict", "commit", "body")
    render.table(names, ([one[name] for name in names] for one in told["reviews"]))


@app.command()
def checks(change_id: ChangeId, as_json: Json = False, url: Url = None) -> None:
    """What programs of the forge think of a change."""
    from shopfloor.cli.client import Client

    with Client(url) as client:
        told = client.get(f"{PATH}/{_found(client, change_id)['change_id']}/checks")
    if as_json:
        render.as_json(told)
        return
    names = ("name", "state", "url")
    render.table(names, ([one[name] for name in names] for one in told["checks"]))


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
