"""`changes`: what was delivered and waits for a person."""

import typer

app = typer.Typer(help="Delivered branches: list, look, merge.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_changes() -> None:
    """List."""


@app.command()
def show() -> None:
    """Show."""
