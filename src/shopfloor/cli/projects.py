"""`projects`: a repository's settings, from the command line."""

from typing import Annotated, Any

import typer

from shopfloor.cli import render
from shopfloor.cli.options import Json, Url

app = typer.Typer(
    help="Projects: a repository with its budget, allow list and branch template.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
PATH = "/api/v1/projects"
Name = Annotated[str, typer.Argument(metavar="PROJECT", help="A project's name or id.")]
Agent = Annotated[str | None, typer.Option(help="Agent profile of its work orders.")]
Sandbox = Annotated[str | None, typer.Option(help="Sandbox type of its work orders.")]
Budget = Annotated[float | None, typer.Option(help="US dollars that the models of all its work orders may cost.")]
Each = Annotated[float | None, typer.Option(help="US dollars that the models of one work order may cost.")]
Allow = Annotated[list[str] | None, typer.Option(help="host:port its sandboxes may reach; repeatable.")]
Template = Annotated[str | None, typer.Option(help="Branch names, such as '{type}/{number}-{slug}-{id}'.")]

Gate = Annotated[bool | None, typer.Option(help="Whether its agents may git fetch and git push themselves.")]


@app.command("list")
def list_projects(as_json: Json = False, url: Url = None) -> None:
    """List projects by name."""
    from shopfloor.cli.client import Client

    with Client(url) as client:
        found = client.get(PATH, limit=500)
    if as_json:
        render.as_json(found)
        return
    names = ("name", "project_id", "repository_url", "budget_usd")
    rows = ([project[name] or "" for name in names] for project in found["projects"])
    render.table(("name", "id", "repository", "budget"), rows)


@app.command()
def show(project: Name, as_json: Json = False, url: Url = None) -> None:
    """One project."""
    from shopfloor.cli.client import Client, path_part

    with Client(url) as client:
        _show(client.get(f"{PATH}/{path_part(project)}"), as_json=as_json)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What it is called.")],
    repository: Annotated[str, typer.Argument(metavar="REPO", help="A folder (. works) or a repository's address.")],
    agent: Agent = None,
    sandbox: Sandbox = None,
    budget: Budget = None,
    order_budget: Each = None,
    allow: Allow = None,
    branch_template: Template = None,
    git_gate: Gate = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Make a project of a repository; its work orders obey it from then on."""
    from shopfloor.cli.client import Client
    from shopfloor.cli.repository import located

    given = _given(agent, sandbox, budget, order_budget, allow, branch_template, git_gate)
    with Client(url) as client:
        made = client.post(PATH, {"name": name, "repository_url": located(repository), **given})
    _show(made, as_json=as_json)


@app.command()
def change(
    project: Name,
    agent: Agent = None,
    sandbox: Sandbox = None,
    budget: Budget = None,
    order_budget: Each = None,
    allow: Allow = None,
    branch_template: Template = None,
    git_gate: Gate = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Change what is named; work that runs keeps what it began with."""
    from shopfloor.cli.client import Client, path_part

    given = _given(agent, sandbox, budget, order_budget, allow, branch_template, git_gate)
    with Client(url) as client:
        changed = client.request("PATCH", f"{PATH}/{path_part(project)}", json=given)
    _show(changed, as_json=as_json)


@app.command()
def delete(project: Name, url: Url = None) -> None:
    """Forget a project; its repository and work orders stay."""
    from shopfloor.cli.client import Client, path_part

    with Client(url) as client:
        client.request("DELETE", f"{PATH}/{path_part(project)}")


def _given(*values: Any) -> dict[str, Any]:
    names = (
        "agent",
        "sandbox_type",
        "budget_usd",
        "work_order_budget_usd",
        "allow",
        "branch_template",
        "git_gate",
    )
    return {name: value for name, value in zip(names, values, strict=True) if value is not None}


def _show(project: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        render.as_json(project)
        return
    shown = {**project, "allow": ", ".join(project["allow"])}
    render.facts((name.replace("_", " "), value) for name, value in shown.items())
