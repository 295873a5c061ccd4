"""`tickets`: cards of the board, from the command line."""

from typing import Annotated, Any

import typer

from shopfloor.cli import render
from shopfloor.cli.options import Cursor, Json, Url

app = typer.Typer(
    help="Tickets: made, moved, approved, proven.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
PATH = "/api/v1/tickets"
Id = Annotated[str, typer.Argument(metavar="ID", help="A ticket's id.")]
Reason = Annotated[str, typer.Option("--reason", "-r", help="Why; stays in the ticket's history.")]
By = Annotated[str, typer.Option(help="Who says so.")]
Override = Annotated[bool, typer.Option("--override", help="Pass gates that do not hold; needs --reason.")]


@app.command("list")
def list_tickets(
    project: Annotated[str | None, typer.Option(help="Of one project.")] = None,
    status: Annotated[str | None, typer.Option(help="In one column.")] = None,
    query: Annotated[str | None, typer.Option("--search", "-q", help="With these words.")] = None,
    blocked: Annotated[
        bool | None, typer.Option("--blocked/--not-blocked", help="With something in their way.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many.")] = 50,
    cursor: Cursor = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """List tickets, newest first."""
    from shopfloor.cli.client import Client

    with Client(url) as client:
        found = client.get(PATH, project=project, status=status, q=query, blocked=blocked, limit=limit, cursor=cursor)
    if as_json:
        render.as_json(found)
        return
    names = ("ticket_id", "status", "priority", "approval", "blocked_class", "title")
    rows = ([ticket[name] or "" for name in names] for ticket in found["tickets"])
    render.table(("id", "status", "priority", "approval", "blocked", "title"), rows)
    render.rest(found)


@app.command()
def create(
    project: Annotated[str, typer.Argument(help="A project's name or id.")],
    title: Annotated[str, typer.Argument(help="What is to be done, in a line.")],
    description: Annotated[str, typer.Option("--description", "-d", help="What its agents are told.")] = "",
    criterion: Annotated[
        list[str] | None,
        typer.Option("--criterion", "-c", help="What must hold: 'text' or 'text :: shell command'; repeatable."),
    ] = None,
    priority: Annotated[str, typer.Option(help="critical, high, medium or low.")] = "medium",
    kind: Annotated[str, typer.Option(help="feat, fix, refactor …")] = "feat",
    approval: Annotated[bool | None, typer.Option("--approval", help="Somebody must approve it first.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Although there are tickets like it.")] = False,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Make a ticket."""
    from shopfloor.cli.client import Client

    body = {
        "project": project,
        "title": title,
        "description": description,
        "priority": priority,
        "kind": kind,
        "criteria": [_criterion(text) for text in criterion or []],
        "require_approval": approval,
        "force_create": force,
    }
    with Client(url) as client:
        _show(client.post(PATH, body), as_json=as_json)


def _criterion(text: str) -> dict[str, Any]:
    words, _, command = text.partition(" :: ")  # with spaces: std::sort is no command
    check = {"kind": "command", "command": command.strip()} if command.strip() else None
    return {"text": words.strip(), "check": check}


@app.command()
def show(ticket: Id, as_json: Json = False, url: Url = None) -> None:
    """One ticket, and why it stands where it stands."""
    from shopfloor.cli.client import Client, path_part

    with Client(url) as client:
        found = client.get(f"{PATH}/{path_part(ticket)}")
        why = client.get(f"{PATH}/{path_part(ticket)}/explain")
    if as_json:
        render.as_json({**found, "explain": why})
        return
    _show(found, as_json=False)
    for line in why["what_would_change_it"]:
        print(f"→ {render.one_line(line, 300)}")


@app.command()
def move(
    ticket: Id,
    column: Annotated[str, typer.Argument(help="A column, or one of the four phase names.")],
    reason: Reason = "",
    override: Override = False,
    by: By = "",
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Move a ticket to a column, through its gates."""
    body = {"to_status": column, "reason": reason, "override": override, "by": by}
    _say(url, ticket, "transition", body, as_json=as_json)


@app.command()
def progress(
    ticket: Id, reason: Reason = "", override: Override = False, by: By = "", as_json: Json = False, url: Url = None
) -> None:
    """Move a ticket one column on, through its gates."""
    _say(url, ticket, "progress", {"reason": reason, "override": override, "by": by}, as_json=as_json)


@app.command()
def regress(
    ticket: Id,
    column: Annotated[str | None, typer.Argument(help="Where to; else the column before.")] = None,
    reason: Reason = "",
    by: By = "",
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Send a ticket back."""
    _say(url, ticket, "regress", {"to_status": column, "reason": reason, "by": by}, as_json=as_json)


@app.command()
def approve(ticket: Id, reason: Reason = "", by: By = "", as_json: Json = False, url: Url = None) -> None:
    """Let a ticket be worked on."""
    _decide(url, "approve", {"ticket_id": ticket, "reason": reason, "by": by}, as_json=as_json)


@app.command()
def reject(ticket: Id, reason: Reason = "", by: By = "", as_json: Json = False, url: Url = None) -> None:
    """Let a ticket not be worked on."""
    _decide(url, "reject", {"ticket_id": ticket, "reason": reason, "by": by}, as_json=as_json)


@app.command()
def block(ticket: Id, reason: Reason = "", by: By = "", as_json: Json = False, url: Url = None) -> None:
    """Say what is in a ticket's way: nothing of it starts until it is unblocked."""
    _say(url, ticket, "block", {"reason": reason, "by": by}, as_json=as_json)


@app.command()
def unblock(ticket: Id, reason: Reason = "", by: By = "", as_json: Json = False, url: Url = None) -> None:
    """Nothing is in a ticket's way any more."""
    _say(url, ticket, "unblock", {"reason": reason, "by": by}, as_json=as_json)


@app.command()
def check(ticket: Id, as_json: Json = False, url: Url = None) -> None:
    """Have its criteria checked now, on the newest commit of its branch."""
    from shopfloor.cli.client import Client, path_part

    with Client(url) as client:
        run = client.post(f"{PATH}/{path_part(ticket)}/check")
    if as_json:
        render.as_json(run)
    else:
        render.facts(run.items())


@app.command()
def criteria(
    ticket: Id,
    add: Annotated[list[str] | None, typer.Option("--add", help="'text' or 'text :: shell command'.")] = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """What must hold before it is done, and how that stands."""
    from shopfloor.cli.client import Client, path_part

    path = f"{PATH}/{path_part(ticket)}/criteria"
    with Client(url) as client:
        found = client.post(path, [_criterion(text) for text in add]) if add else client.get(path)
    if as_json:
        render.as_json(found)
        return
    rows = ((one["criterion_id"], one["verdict"], one["text"], one["reason"]) for one in found["criteria"])
    render.table(("id", "verdict", "criterion", "why"), rows)


@app.command()
def history(ticket: Id, as_json: Json = False, url: Url = None) -> None:
    """A ticket's way over the board."""
    from shopfloor.cli.client import Client, path_part

    with Client(url) as client:
        found = client.get(f"{PATH}/{path_part(ticket)}/history")
    if as_json:
        render.as_json(found)
        return
    rows = (
        (one["created_at"][:19], one["before"], one["after"], one["how"], one["moved_by"], _why(one))
        for one in found["moves"]
    )
    render.table(("when", "from", "to", "how", "by", "why"), rows)


def _why(move: dict[str, Any]) -> str:
    passed = ", ".join(one["gate"] for one in move["overridden"])
    return f"{move['reason']} (overridden: {passed})" if passed else str(move["reason"])


@app.command()
def graph(ticket: Id, url: Url = None) -> None:
    """Its tasks and what they wait for, as a mermaid flowchart."""
    from shopfloor.cli.client import API, Client, path_part

    with Client(url) as client:
        text = client.text(f"{API}/graph/dependency-graph/ticket/{path_part(ticket)}", format="mermaid")
    print(render.clean(text), end="")


def _say(url: str | None, ticket: str, verb: str, body: dict[str, Any], *, as_json: bool) -> None:
    from shopfloor.cli.client import Client, path_part

    with Client(url) as client:
        _show(client.post(f"{PATH}/{path_part(ticket)}/{verb}", body), as_json=as_json)


def _decide(url: str | None, verb: str, body: dict[str, Any], *, as_json: bool) -> None:
    from shopfloor.cli.client import Client

    with Client(url) as client:
        _show(client.post(f"{PATH}/{verb}", body), as_json=as_json)


def _show(ticket: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        render.as_json(ticket)
        return
    proven = ticket["evidence"]
    shown = {
        "ticket": ticket["ticket_id"],
        "title": ticket["title"],
        "status": ticket["status"],
        "reason": ticket["reason"],
        "priority": ticket["priority"],
        "approval": ticket["approval"],
        "blocked": f"{ticket['blocked_class']}: {ticket['blocked_reason']}" if ticket["is_blocked"] else "",
        "tasks": "; ".join(
            f"{phase}: " + ", ".join(f"{count} {status}" for status, count in counts.items())
            for phase, counts in ticket["tasks"].items()
        ),
        "proven": f"{proven['passed']} of {proven['total']}" if proven["total"] else "",
        "branch": ticket["branch"],
        "head": ticket["head_commit"],
        "change": ticket["change_id"],
        "cost": f"${ticket['cost_usd']:.2f}" if ticket["cost_usd"] else "",
    }
    render.facts(shown.items())
