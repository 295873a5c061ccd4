"""`tasks`: executable units, from the command line."""

from typing import Annotated, Any

import typer

from shopfloor.cli import render
from shopfloor.cli.options import Cursor, Json, Url

app = typer.Typer(
    help="Tasks: what waits, runs and ended, and what waits for what.", no_args_is_help=True, rich_markup_mode=None
)
PATH = "/api/v1/tasks"
TaskId = Annotated[str, typer.Argument(metavar="ID", help="A task's id.")]
Others = Annotated[list[str] | None, typer.Option(help="A task's id; repeatable.")]
COLUMNS = ("task_id", "status", "phase", "priority", "held", "open_dependencies", "title", "reason")
HEADS = ("id", "status", "phase", "priority", "held", "waits for", "title", "reason")


@app.command("list")
def list_tasks(
    status: Annotated[str | None, typer.Option(help="pending, running, completed, failed or cancelled.")] = None,
    phase: Annotated[str | None, typer.Option(help="Only of one column of the board.")] = None,
    project: Annotated[str | None, typer.Option(help="A project's name or id.")] = None,
    ticket: Annotated[str | None, typer.Option(help="A ticket's id.")] = None,
    search: Annotated[str | None, typer.Option(help="Words of the title or description.")] = None,
    sort: Annotated[str, typer.Option(help="created_at, updated_at, rank or title; with - before it, descending.")] = (
        "-created_at"
    ),
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many.")] = 50,
    cursor: Cursor = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """List tasks, newest first."""
    from shopfloor.cli.client import Client

    wanted = {"status": status, "phase_id": phase, "project": project, "ticket": ticket, "q": search}
    with Client(url) as client:
        found = client.get(PATH, sort=sort, limit=limit, cursor=cursor, **wanted)
    if as_json:
        render.as_json(found)
        return
    rows = ([_plain(task[name]) for name in COLUMNS] for task in found["tasks"])
    render.table(HEADS, rows)
    render.rest(found)


@app.command()
def create(
    project: Annotated[str, typer.Argument(metavar="PROJECT", help="A project's name or id.")],
    description: Annotated[str, typer.Argument(help="What the agent is told.")],
    title: Annotated[str, typer.Option(help="Else made of the description.")] = "",
    ticket: Annotated[str | None, typer.Option(help="The ticket it belongs to.")] = None,
    phase: Annotated[str, typer.Option(help="The column of the board its work belongs to.")] = "building",
    priority: Annotated[str, typer.Option(help="critical, high, medium or low.")] = "medium",
    agent: Annotated[str | None, typer.Option(help="Agent profile; else the project's.")] = None,
    workflow: Annotated[str | None, typer.Option(help="plan, build, test, plan_build or plan_build_test.")] = None,
    after: Others = None,
    owns: Annotated[list[str] | None, typer.Option(help="Glob of files it may touch; repeatable.")] = None,
    deadline: Annotated[str | None, typer.Option(help="Such as 2026-12-01T12:00:00Z.")] = None,
    start: Annotated[bool, typer.Option("--start", help="Also in a project without autonomy.")] = False,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Make a task; `--after` names those it waits for."""
    from shopfloor.cli.client import Client

    body: dict[str, Any] = {
        "project": project,
        "description": description,
        "title": title,
        "phase": phase,
        "priority": priority,
        "depends_on": after or [],
        "owned_paths": owns or [],
        "force": start,
    }
    some = {"ticket_id": ticket, "agent": agent, "workflow_type": workflow, "deadline": deadline}
    with Client(url) as client:
        made = client.post(PATH, body | {name: value for name, value in some.items() if value is not None})
    _show(made, as_json=as_json)


@app.command()
def show(task_id: TaskId, as_json: Json = False, url: Url = None) -> None:
    """One task."""
    _show(_ask("GET", task_id, url), as_json=as_json)


@app.command()
def cancel(
    task_id: TaskId,
    reason: Annotated[str, typer.Option(help="Why.")] = "cancelled",
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Cancel; a running agent is stopped first, what it committed stays."""
    _show(_ask("POST", f"{task_id}/cancel", url, {"reason": reason}), as_json=as_json)


@app.command()
def retry(
    task_id: TaskId,
    reason: Annotated[str, typer.Option(help="Why.")] = "retry asked for",
    afresh: Annotated[bool, typer.Option("--afresh", help="With a new order and branch.")] = False,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Let a failed or cancelled task have another try."""
    _show(_ask("POST", f"{task_id}/retry", url, {"reason": reason, "afresh": afresh}), as_json=as_json)


@app.command()
def dispatch(task_id: TaskId, as_json: Json = False, url: Url = None) -> None:
    """Start a waiting task though its project has no autonomy."""
    _show(_ask("POST", f"{task_id}/dispatch", url), as_json=as_json)


@app.command()
def explain(task_id: TaskId, as_json: Json = False, url: Url = None) -> None:
    """Why it stands where it stands, and what would change it."""
    told = _ask("GET", f"{task_id}/explain", url)
    if as_json:
        render.as_json(told)
        return
    render.facts((name, told[name]) for name in ("subject", "status", "since", "reason"))
    for one in told["what_would_change_it"]:
        render.say(f"- {render.one_line(one)}")


@app.command()
def dependencies(
    task_id: TaskId, add: Others = None, remove: Others = None, as_json: Json = False, url: Url = None
) -> None:
    """Show what a task waits for; add to it, or take from it."""
    from shopfloor.cli.client import path_part

    if add:
        _ask("POST", f"{task_id}/dependencies", url, {"depends_on": add})
    for other in remove or []:
        _ask("DELETE", f"{task_id}/dependencies/{path_part(other)}", url)
    found = _ask("GET", f"{task_id}/dependencies", url)
    if as_json:
        render.as_json(found)
        return
    names = {"waits for": "depends_on", "still open": "open_dependencies", "waited for by": "blocks"}
    render.facts((name, _plain(_joined(found[field]))) for name, field in names.items())


@app.command()
def graph(
    id_: Annotated[str, typer.Argument(metavar="ID", help="A task's, ticket's or project's id.")],
    kind: Annotated[str, typer.Option(help="task, ticket or project.")] = "task",
    mermaid: Annotated[bool, typer.Option("--mermaid", help="As a mermaid diagram.")] = False,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """What waits for what, each task below everything that it waits for."""
    from shopfloor.cli.client import Client, path_part

    path = f"/api/v1/graph/dependency-graph/{path_part(kind)}/{path_part(id_)}"
    with Client(url) as client:
        if mermaid:
            render.say(render.clean(client.text(path, format="mermaid")).rstrip())
            return
        found = client.get(path)
    if as_json:
        render.as_json(found)
        return
    for line in lines(found["nodes"], found["edges"]):
        render.say(line)


def lines(nodes: list[dict[str, Any]], edges: list[dict[str, Any]]) -> list[str]:
    """A graph as text, a line for each task, after those it waits for and one step further in than the deepest of them."""
    waits: dict[str, list[str]] = {node["task_id"]: [] for node in nodes}
    for edge in edges:
        waits[edge["task_id"]].append(edge["depends_on"])
    depth: dict[str, int] = {}
    left = list(waits)
    while left:
        ready = [one for one in left if all(other in depth for other in waits[one])] or left[:1]
        for one in ready:
            depth[one] = 1 + max((depth.get(other, 0) for other in waits[one]), default=-1)
        left = [one for one in left if one not in depth]
    shown = []
    for node in sorted(nodes, key=lambda node: depth[node["task_id"]]):
        one = node["task_id"]
        after = f"  after {', '.join(waits[one])}" if waits[one] else ""
        shown.append(f"{'  ' * depth[one]}{one} {node['status']}: {render.one_line(node['title'], 60)}{after}")
    return shown


def _ask(method: str, path: str, url: str | None, body: dict[str, Any] | None = None) -> Any:
    from shopfloor.cli.client import Client, path_part

    task_id, _, rest = path.partition("/")
    with Client(url) as client:
        return client.request(method, f"{PATH}/{path_part(task_id)}" + (f"/{rest}" if rest else ""), json=body)


def _plain(value: Any) -> Any:
    """What is not so is left empty."""
    return "yes" if value is True else value or ""


def _show(task: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        render.as_json(task)
        return
    hidden = {"description", "result", "rank"}
    render.facts((name.replace("_", " "), _joined(value)) for name, value in task.items() if name not in hidden)


def _joined(value: Any) -> Any:
    return ", ".join(value) if isinstance(value, list) else value
