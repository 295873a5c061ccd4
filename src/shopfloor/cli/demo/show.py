"""What the demo shows while it works: the events above, a table of the crew below; plain lines when it is no terminal."""

import sys
from types import TracebackType
from typing import Any, Self

from shopfloor.cli import render, story
from shopfloor.cli.demo.crew import Job

STYLES = {"roman": "cyan", "units": "magenta", "spell": "yellow"}


class Show:
    """The crew at work, on stdout, or on stderr when stdout is for JSON."""

    def __init__(self, jobs: list[Job], *, quiet: bool = False) -> None:
        self.jobs = jobs
        self.stream = sys.stderr if quiet else sys.stdout
        self.live: Any = None

    def __enter__(self) -> Self:
        if render.colourful(self.stream):
            from rich.console import Console
            from rich.live import Live

            console = Console(file=self.stream)
            self.live = Live(get_renderable=self._table, console=console, refresh_per_second=8, transient=True)
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()

    def say(self, text: str, style: str = "") -> None:
        """A line of the demo's own."""
        self._print(render.paint(text, style, self.stream))

    def event(self, job: Job, event: dict[str, Any]) -> None:
        """What happened to a job."""
        if line := story.line(event, width=110, stream=self.stream):
            self._print(f"{render.paint(job.name.ljust(6), STYLES.get(job.name, 'bold'), self.stream)} {line}")

    def _print(self, line: str) -> None:
        if self.live:
            from rich.text import Text

            self.live.console.print(Text.from_ansi(line), soft_wrap=True)
        else:
            print(line, file=self.stream, flush=True)

    def _table(self) -> Any:
        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        grid = Table(box=None, pad_edge=False, show_header=False)
        for job in self.jobs:
            busy = job.status in {"pending", "running"}
            mark = Spinner("dots") if busy else Text("✔" if job.status == "completed" else "✘")
            told = "steered" if job.steered else "recovered" if job.restarted else "killed" if job.killed else ""
            grid.add_row(mark, Text(job.name, "bold"), Text(job.step if busy else job.status), Text(told, "dim"))
        return grid
