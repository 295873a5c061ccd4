"""`projects`: a repository's settings, from the command line."""

import inspect
import json
from collections.abc import Callable
from typing import Annotated, Any, cast

import typer

from shopfloor.cli import render
from shopfloor.cli.options import Cursor, Json, Url
from shopfloor.kit.errors import Malformed

app = typer.Typer(
    help="Projects: a repository with its budget, allow list, branch template and board.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
PATH = "/api/v1/projects"
Name = Annotated[str, typer.Argument(metavar="PROJECT", help="A project's name or id.")]
Command = Callable[..., None]
SETTINGS: dict[str, Any] = {
    "agent": Annotated[str | None, typer.Option(help="Agent profile of its work orders.")],
    "sandbox": Annotated[str | None, typer.Option(help="Sandbox type of its work orders.")],
    "budget": Annotated[float | None, typer.Option(help="US dollars that the models of all its work orders may cost.")],
    "order_budget": Annotated[
        float | None, typer.Option(help="US dollars that the models of one work order may cost.")
    ],
    "allow": Annotated[list[str] | None, typer.Option(help="host:port its sandboxes may reach; repeatable.")],
    "branch_template": Annotated[str | None, typer.Option(help="Such as '{type}/{number}-{slug}-{id}'.")],
    "git_gate": Annotated[bool | None, typer.Option(help="Whether its agents may git fetch and git push themselves.")],
    "base_branch": Annotated[str | None, typer.Option(help="Where its tickets' work begins and ends.")],
    "autonomy": Annotated[
        bool | None, typer.Option(help="Whether its tickets move and its tasks start by themselves.")
    ],
    "approval": Annotated[bool | None, typer.Option(help="Whether a person must approve each ticket first.")],
    "wip": Annotated[list[str] | None, typer.Option(help="COLUMN=N tickets at most in a column; repeatable.")],
    "gates": Annotated[str | None, typer.Option(help="What each column wants before a ticket leaves it, as JSON.")],
    "max_running_tasks": Annotated[int | None, typer.Option(help="How many of its tasks run at a time.")],
    "test_command": Annotated[str | None, typer.Option(help="How one test is run, such as 'pytest -q {test}'.")],
    "check_command": Annotated[str | None, typer.Option(help="What must succeed on every merged tree.")],
    "merge_queue": Annotated[bool | None, typer.Option(help="Whether tickets that are done are merged by themselves.")],
    "union_check": Annotated[
        bool | None, typer.Option(help="Whether the check command is run on all live branches together, too.")
    ],
}
CALLED = {
    "sandbox": "sandbox_type",
    "budget": "budget_usd",
    "order_budget": "work_order_budget_usd",
    "wip": "wip_limits",
}
"""Options whose names over the wire are others."""


class BadSetting(Malformed):
    """A setting cannot be read."""


def with_settings(command: Command) -> Command:
    """Give a command an option for each setting; it gets those that were named as keywords."""
    own = inspect.signature(command)
    plain = [one for one in own.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in SETTINGS.items()
    ]
    cast("Any", command).__signature__ = own.replace(parameters=[*plain, *options])
    command.__annotations__ |= SETTINGS
    return command


@app.command("list")
def list_projects(
    query: Annotated[str | None, typer.Option("--search", "-q", help="With these words.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many.")] = 500,
    cursor: Cursor = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """List projects by name."""
    from shopfloor.cli.client import Client

    with Client(url) as client:
        found = client.get(PATH, q=query, limit=limit, cursor=cursor)
    if as_json:
        render.as_json(found)
        return
    names = ("name", "project_id", "repository_url", "budget_usd")
    rows = ([project[name] or "" for name in names] for project in found["projects"])
    render.table(("name", "id", "repository", "budget"), rows)
    render.rest(found)


@app.command()
def show(project: Name, as_json: Json = False, url: Url = None) -> None:
    """One project."""
    from shopfloor.cli.client import Client, path_part

    with Client(url) as client:
        _show(client.get(f"{PATH}/{path_part(project)}"), as_json=as_json)


@app.command()
@with_settings
def create(
    name: Annotated[str, typer.Argument(help="What it is called.")],
    repository: Annotated[str, typer.Argument(metavar="REPO", help="A folder (. works) or a repository's address.")],
    as_json: Json = False,
    url: Url = None,
    **settings: Any,
) -> None:
    """Make a project of a repository; its work orders obey it from then on."""
    from shopfloor.cli.client import Client
    from shopfloor.cli.repository import located

    given = _given(settings)
    with Client(url) as client:
        made = client.post(PATH, {"name": name, "repository_url": located(repository), **given})
    _show(made, as_json=as_json)


@app.command()
@with_settings
def change(
    project: Name,
    as_json: Json = False,
    url: Url = None,
    **settings: Any,
) -> None:
    """Change what is named; work that runs keeps what it began with."""
    from shopfloor.cli.client import Client, path_part

    given = _given(settings)
    with Client(url) as client:
        changed = client.request("PATCH", f"{PATH}/{path_part(project)}", json=given)
    _show(changed, as_json=as_json)


@app.command()
def delete(project: Name, url: Url = None) -> None:
    """Forget a project; its repository and work orders stay."""
    from shopfloor.cli.client import Client, path_part

    with Client(url) as client:
        client.request("DELETE", f"{PATH}/{path_part(project)}")


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    named = {CALLED.get(name, name): value for name, value in settings.items() if value not in (None, [])}
    if "wip_limits" in named:
        named["wip_limits"] = dict(_limit(one) for one in named["wip_limits"])
    if "gates" in named:
        try:
            named["gates"] = json.loads(named["gates"])
        except ValueError as error:
            raise BadSetting(
                f"--gates is not JSON: {error}", hint='Such as {"testing": [{"kind": "evidence"}]}.'
            ) from None
    return named


def _limit(text: str) -> tuple[str, int]:
    column, _, number = text.partition("=")
    if not number.strip().isdigit():
        raise BadSetting(f"--wip {text[:40]!r} is not COLUMN=N", hint="Such as --wip building=5.")
    return column.strip(), int(number)


def _show(project: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        render.as_json(project)
        return
    limits = ", ".join(f"{column} {most}" for column, most in project["wip_limits"].items())
    gates = json.dumps(project["gates"]) if project["gates"] else ""
    shown = {**project, "allow": ", ".join(project["allow"]), "wip_limits": limits, "gates": gates}
    render.facts((name.replace("_", " "), value) for name, value in shown.items())
