"""Work orders from the command line: run, status, work-orders, steer, cancel, retry, explain."""

from typing import Annotated, Any

import typer

from shopfloor.cli import render
from shopfloor.cli.options import Json, OrderId, Url, order_ids


def run(
    repository: Annotated[str, typer.Argument(metavar="REPO", help="A folder (. works) or a repository's address.")],
    prompt: Annotated[str, typer.Argument(help="What is to be done; - reads it from standard input.")],
    agent: Annotated[str | None, typer.Option(help="Agent profile; else the server's default.")] = None,
    model: Annotated[str | None, typer.Option(help="Model, as the agent names it.")] = None,
    workflow: Annotated[
        str, typer.Option(help="plan, build, test, plan_build or plan_build_test.")
    ] = "plan_build_test",
    sandbox: Annotated[str | None, typer.Option(help="Sandbox type; else the server's default.")] = None,
    issue: Annotated[int | None, typer.Option(help="Number of the issue this is for.")] = None,
    base: Annotated[str | None, typer.Option(help="Branch to start from; else the repository's default.")] = None,
    option: Annotated[list[str] | None, typer.Option(help="KEY=VALUE (JSON or text) for the agent.")] = None,
    budget: Annotated[float | None, typer.Option(help="US dollars its models may cost.")] = None,
    max_attempts: Annotated[int | None, typer.Option(help="Attempts before a person must look.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds the agent may take.")] = None,
    allow_no_isolation: Annotated[bool, typer.Option(help="Agree to an agent with your own rights.")] = False,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Print the id and return at once.")] = False,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Have an agent work on a repository. Exits with the work order's outcome; Ctrl-C leaves it running."""
    from shopfloor.cli.repository import located

    body = {
        "repository_url": located(repository),
        "initial_prompt": typer.get_text_stream("stdin").read() if prompt == "-" else prompt,
        "workflow_type": workflow,
        "agent": agent,
        "model": model,
        "sandbox_type": sandbox,
        "github_issue_number": issue,
        "base_branch": base,
        "agent_options": agent_options(option or []),
        "budget_usd": budget,
        "max_attempts": max_attempts,
        "timeout_seconds": timeout,
        "allow_no_isolation": allow_no_isolation,
    }
    _place(url, {k: v for k, v in body.items() if v is not None}, detach=detach, as_json=as_json)


def _place(url: str | None, body: dict[str, Any], *, detach: bool, as_json: bool) -> None:
    """Order the work; follow it unless told otherwise."""
    from shopfloor.cli.client import ORDERS, Client
    from shopfloor.cli.watch import outcome, watch

    with Client(url) as client:
        order = client.post(ORDERS, body)["agent_work_order"]
        order_id = order["agent_work_order_id"]
        if detach:
            render.as_json(order) if as_json else render.say(order_id)
            return
        render.note(f"{order_id}  (Ctrl-C leaves it running)")
        watch(client, order_id, show=not as_json)
        raise typer.Exit(outcome(client, order_id, as_json=as_json))


def agent_options(pairs: list[str]) -> dict[str, Any]:
    """KEY=VALUE pairs; a value that is JSON is taken as such."""
    import json

    options: dict[str, Any] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key:
            raise typer.BadParameter(f"{pair!r} is not KEY=VALUE", param_hint="--option")
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value
    return options


def status(
    order_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="A work order; else the whole shop.", autocompletion=order_ids)
    ] = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """How the shop, or one work order, stands."""
    from shopfloor.cli.client import API, ORDERS, Client
    from shopfloor.cli.watch import show_order

    with Client(url) as client:
        if order_id:
            order = client.order(order_id)
            render.as_json(order) if as_json else show_order(order)
            return
        shop = {
            "url": client.url,
            **client.get("/healthz"),
            "sandboxes": client.get(f"{API}/sandboxes/capacity"),
            "health": client.get(f"{API}/sandboxes/health"),
            "running": client.get(ORDERS, status="running", limit=100)["agent_work_orders"],
            "waiting": client.get(ORDERS, status="pending", limit=1)["total_count"],
        }
    if as_json:
        render.as_json(shop)
        return
    places = shop["sandboxes"]
    render.facts(
        [
            ("server", f"{shop['url']}  version {shop['version']}"),
            ("sandboxes", f"{places['running']} of {places['maximum']} running, {shop['health']['status']}"),
            ("running", len(shop["running"])),
            ("waiting", shop["waiting"]),
        ]
    )
    if shop["running"]:
        print()
        show_orders(shop["running"])


def work_orders(
    wanted: Annotated[str | None, typer.Option("--status", help="Only those in this status.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many, newest first.")] = 20,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """List work orders, newest first."""
    from shopfloor.cli.client import ORDERS, Client

    with Client(url) as client:
        found = client.get(ORDERS, status=wanted, limit=limit)
    if as_json:
        render.as_json(found)
        return
    show_orders(found["agent_work_orders"])
    if found["has_more"]:
        render.note(f"{found['total_count']} in all; --limit shows more")


def show_orders(orders: list[dict[str, Any]]) -> None:
    """Work orders as a table."""
    columns = ("id", "status", "phase", "agent", "branch", "+", "-", "request")
    render.table(
        columns,
        (
            (
                order["agent_work_order_id"],
                order["status"],
                order["current_phase"] or "",
                order["agent"],
                order["git_branch_name"] or "",
                order["git_lines_added"],
                order["git_lines_removed"],
                order["initial_prompt"],
            )
            for order in orders
        ),
    )


def steer(
    order_id: OrderId,
    text: Annotated[str, typer.Argument(help="What to tell the agent; - reads it from standard input.")] = "",
    interrupt: Annotated[bool, typer.Option("--interrupt", help="Stop the agent's turn first.")] = False,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Say something to a running agent.

    One that has not started yet is told at its start.
    """
    from shopfloor.cli.client import Client
    from shopfloor.cli.watch import steering

    said = typer.get_text_stream("stdin").read() if text == "-" else text
    if not said.strip() and not interrupt:
        raise typer.BadParameter("say something, or use --interrupt", param_hint="TEXT")
    with Client(url) as client:
        answer = steering(client, order_id, said, interrupt=interrupt)
    render.as_json(answer) if as_json else render.say(str(answer.get("message") or "queued for the running agent"))


def cancel(order_id: OrderId, as_json: Json = False, url: Url = None) -> None:
    """Stop a work order; its commits stay."""
    _act(url, order_id, "cancel", None, as_json=as_json)


def retry(
    order_id: OrderId,
    prompt: Annotated[str, typer.Option(help="What to tell the agent in addition.")] = "",
    agent: Annotated[str | None, typer.Option(help="Another agent profile.")] = None,
    model: Annotated[str | None, typer.Option(help="Another model.")] = None,
    budget: Annotated[
        float | None, typer.Option(help="US dollars for the whole order, what was spent included.")
    ] = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Continue a failed or cancelled work order.

    It goes on from its last commit and, where the agent can, its conversation.
    """
    _act(
        url,
        order_id,
        "retry",
        {"prompt": prompt, "agent": agent, "model": model, "budget_usd": budget},
        as_json=as_json,
    )


def _act(url: str | None, order_id: str, verb: str, body: Any, *, as_json: bool) -> None:
    from shopfloor.cli.client import ORDERS, Client, path_part

    with Client(url) as client:
        order = client.post(f"{ORDERS}/{path_part(order_id)}/{verb}", body)["agent_work_order"]
    render.as_json(order) if as_json else render.say(f"{order['status']}: {render.one_line(order['reason'])}")


def explain(order_id: OrderId, as_json: Json = False, url: Url = None) -> None:
    """Why a work order is in its status.

    Since when, by which evidence, and what would change it.
    """
    from shopfloor.cli.client import ORDERS, Client, path_part

    with Client(url) as client:
        told = client.get(f"{ORDERS}/{path_part(order_id)}/explain")
    if as_json:
        render.as_json(told)
        return
    render.facts(
        [
            ("status", told["status"]),
            ("since", told["since"]),
            ("because", told["reason"]),
            ("would change it", "\n".join(told["what_would_change_it"])),
            ("evidence", "\n".join(render.one_line(f"{e['at']} {e['event_type']}") for e in told["evidence"])),
        ]
    )
