"""Following a work order in the terminal, and talking to its agent."""

from typing import Any

from shopfloor.cli import render, story
from shopfloor.cli.client import API, ORDERS, Client, path_part
from shopfloor.cli.exits import OUTCOMES, Exit, Refused
from shopfloor.cli.feed import Feed


def watch(client: Client, order_id: str, *, show: bool = True) -> None:
    """Show the order's events until it is finished; Ctrl-C says how to come back and leaves it running."""
    import typer

    try:
        for event in Feed(client, order_id).follow():
            if show and (line := story.line(event)):
                print(line, flush=True)
    except KeyboardInterrupt:
        shown = render.clean(order_id)
        render.note(f"\n{shown} goes on. See it: shopfloor attach {shown}   Stop it: shopfloor cancel {shown}")
        raise typer.Exit(Exit.INTERRUPTED) from None


def outcome(client: Client, order_id: str, *, as_json: bool = False) -> Exit:
    """Print how a finished order came out; answers the exit code that says so."""
    order = client.order(order_id)
    if as_json:
        render.as_json(order)
    else:
        print()
        show_order(order)
        if order["status"] == "failed":
            shown = render.clean(order_id)
            render.note(f"More: shopfloor explain {shown}   Go on from its last commit: shopfloor retry {shown}")
            render.note(f"What it had not handed out: shopfloor recover {shown}")
    return OUTCOMES.get(order["status"], Exit.OK)


def show_order(order: dict[str, Any]) -> None:
    """A work order's facts."""
    changed = f"{order['git_files_changed']} files, +{order['git_lines_added']} -{order['git_lines_removed']}"
    render.facts(
        [
            ("work order", order["agent_work_order_id"]),
            ("status", order["status"]),
            ("because", order["reason"]),
            ("request", render.one_line(order["initial_prompt"], 300)),
            ("repository", order["repository_url"]),
            ("branch", order["git_branch_name"]),
            ("commits", f"{order['git_commit_count']} ({changed})" if order["git_commit_count"] else None),
            ("change", order["github_pull_request_url"] or order["change_id"]),
            ("phase", order["current_phase"]),
            ("agent", " ".join(filter(None, (order["agent"], order["model"])))),
            ("sandbox", order["sandbox_identifier"]),
            ("attempts", f"{order['attempts']} of {order['max_attempts']}"),
            ("cost", _cost(order)),
            ("paused until", order["paused_until"]),
            ("created", order["created_at"]),
            ("finished", order["execution_completed_at"]),
        ]
    )


def _cost(order: dict[str, Any]) -> str | None:
    if order["cost_usd"] is None:
        return None
    return f"{order['cost_usd']:.4f} USD" + (f" of {order['budget_usd']:g}" if order["budget_usd"] else "")


def steering(client: Client, order_id: str, text: str, *, interrupt: bool = False) -> dict[str, Any]:
    """Say something to the order's agent; an interrupt stops its turn first."""
    answer: dict[str, Any]
    if not interrupt:
        answer = client.post(f"{ORDERS}/{path_part(order_id)}/prompt", {"prompt_text": text})
        return answer
    order = client.order(order_id)
    sandbox = order["sandbox_identifier"]
    if order["status"] != "running" or not sandbox:
        detail = f"the order is {order['status']}; there is no turn to interrupt"
        raise Refused(
            {"status": 409, "code": "order_not_running", "detail": detail, "hint": "steer without --interrupt."}
        )
    body = {"content": text, "message_type": "interrupt"}
    answer = client.post(f"{API}/sandboxes/{path_part(sandbox)}/messages", body)
    return answer
