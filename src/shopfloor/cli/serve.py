"""`up`, `serve`, `engine`: run the processes of the platform here."""

import sys
from pathlib import Path
from typing import Annotated

import typer

DataDir = Annotated[Path | None, typer.Option(help="Where everything is kept.")]
Host = Annotated[str | None, typer.Option(help="Address to listen on.")]
Port = Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on.")]
MaxSandboxes = Annotated[int | None, typer.Option(min=1, help="Sandboxes that may run at once.")]


def up(data_dir: DataDir = None, host: Host = None, port: Port = None, max_sandboxes: MaxSandboxes = None) -> None:
    """Run the platform: API and engine in one process.

    Ctrl-C ends it; what runs is taken up again at the next start.
    """
    _run(data_dir, host, port, max_sandboxes, api=True, engine=True)


def serve(data_dir: DataDir = None, host: Host = None, port: Port = None) -> None:
    """Run the API alone, beside engines (PostgreSQL)."""
    _run(data_dir, host, port, None, api=True, engine=False)


def engine(data_dir: DataDir = None, max_sandboxes: MaxSandboxes = None) -> None:
    """Run an engine alone, beside the API (PostgreSQL)."""
    _run(data_dir, None, None, max_sandboxes, api=False, engine=True)


def _run(
    data_dir: Path | None, host: str | None, port: int | None, max_sandboxes: int | None, *, api: bool, engine: bool
) -> None:
    import asyncio

    from shopfloor.kit import log
    from shopfloor.kit.config import load

    where = data_dir.expanduser().absolute() if data_dir else None
    settings = load(data_dir=where, host=host, port=port, max_sandboxes=max_sandboxes)
    log.configure(settings.log_level, json=settings.log_json)
    from shopfloor import server

    if api and sys.stderr.isatty():
        _greet(settings.host, settings.port, str(settings.data_dir))
    asyncio.run(server.run(settings, api=api, engine=engine))


def _greet(host: str, port: int, data_dir: str) -> None:
    from shopfloor.cli.render import note

    shown = f"[{host}]" if ":" in host else host
    note(
        f"Shopfloor at http://{shown}:{port} (data in {data_dir}). Try, in another terminal: "
        "shopfloor doctor   shopfloor run . 'Fix the failing test'",
        "bold",
    )
