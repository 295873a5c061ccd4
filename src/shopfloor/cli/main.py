"""The `shopfloor` command. Each command imports what it needs when it runs, so that help and completion answer at once."""

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from shopfloor.cli import (
    accounts,
    attach,
    board,
    changes,
    doctor,
    forges,
    orders,
    projects,
    recover,
    serve,
    tasks,
    tickets,
)
from shopfloor.cli.demo import command as demo
from shopfloor.cli.exits import MEANINGS, Exit, exit_code
from shopfloor.kit.errors import Problem

app = typer.Typer(
    name="shopfloor",
    help="Runs a crew of coding agents in isolated sandboxes: request in, proven branch out.",
    epilog=MEANINGS,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS: dict[str, Callable[..., None]] = {
    "up": serve.up,
    "run": orders.run,
    "status": orders.status,
    "work-orders": orders.work_orders,
    "logs": attach.logs,
    "attach": attach.attach,
    "steer": orders.steer,
    "cancel": orders.cancel,
    "retry": orders.retry,
    "explain": orders.explain,
    "costs": accounts.costs,
    "board": board.board,
    "recover": recover.recover,
    "doctor": doctor.doctor,
    "verify": forges.verify,
    "issues": forges.issues,
    "demo": demo.demo,
    "serve": serve.serve,
    "engine": serve.engine,
}
for name, function in COMMANDS.items():
    app.command(name)(function)
app.add_typer(changes.app, name="changes")
app.add_typer(projects.app, name="projects")
app.add_typer(tickets.app, name="tickets")
app.add_typer(tasks.app, name="tasks")
app.add_typer(accounts.app, name="accounts")


def _version(wanted: bool) -> None:
    if wanted:
        from shopfloor import __version__

        print(f"shopfloor {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command; a problem becomes a message with a hint, and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        app(prog_name="shopfloor")
    except Problem as problem:
        from shopfloor.cli import render

        render.problem(problem, json_wanted="--json" in sys.argv)
        sys.exit(exit_code(problem))
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)


if __name__ == "__main__":
    main()
