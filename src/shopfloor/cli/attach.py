"""`logs` and `attach`: what happened and happens to a work order, and a prompt line to steer its agent."""

import json
import signal
import sys
import threading
from typing import Annotated, Any

import typer

from shopfloor.cli import render
from shopfloor.cli.options import Json, OrderId, Url

PROMPT = "> "


def logs(
    order_id: OrderId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it is finished.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Heartbeats and the like too.")] = False,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """What happened to a work order; -f: live.

    With -f until it is finished, then exits with its outcome. With --json one event a line.
    """
    from shopfloor.cli import story
    from shopfloor.cli.client import Client
    from shopfloor.cli.exits import OUTCOMES, Exit
    from shopfloor.cli.feed import Feed

    with Client(url) as client:
        client.order(order_id)
        feed = Feed(client, order_id)
        for event in feed.follow() if follow else feed.history():
            if as_json:
                print(json.dumps(event), flush=True)
            elif line := story.line(event):
                print(line, flush=True)
            elif everything:
                print(
                    render.one_line(
                        f"{event['recorded_at'][11:19]} . {event['event_type']} {json.dumps(event['payload'])}"
                    )
                )
        if follow:
            raise typer.Exit(OUTCOMES.get(client.order(order_id)["status"], Exit.OK))


def attach(order_id: OrderId, url: Url = None) -> None:
    """Follow a work order live and steer its agent.

    Every line you type is said to the agent. Ctrl-D or Ctrl-C leaves it running.
    """
    from shopfloor.cli.client import Client
    from shopfloor.cli.exits import OUTCOMES, Exit

    with Client(url) as client:
        client.order(order_id)
        screen = Screen(client, order_id)
        try:
            screen.listen()
        except KeyboardInterrupt:
            render.note(f"\ndetached; {render.clean(order_id)} goes on")
            raise typer.Exit(Exit.INTERRUPTED) from None
        if screen.problem:
            raise screen.problem
        status = client.order(order_id)["status"]
    if screen.ended:
        raise typer.Exit(OUTCOMES.get(status, Exit.OK))


class _OrderEndedError(Exception):
    """Interrupts the prompt: there is nobody left to talk to."""


class Screen:
    """The feed above, the prompt line below: the main thread reads lines, another one prints events over the prompt."""

    def __init__(self, client: Any, order_id: str) -> None:
        self.client, self.order_id = client, order_id
        self.interactive = sys.stdin.isatty() and sys.stdout.isatty()
        self.ended = False
        self.problem: Exception | None = None
        self._reading = False

    def listen(self) -> None:
        """Read lines and say them to the agent, until the input or the order ends."""
        signal.signal(signal.SIGUSR1, self._interrupted)
        feeder = threading.Thread(target=self._feed, daemon=True)
        try:
            if self.interactive:
                render.note("type to steer the agent; Ctrl-D leaves it running")
                import readline  # noqa: F401 - gives input() a line editor
            self._reading = True
            feeder.start()
            while (line := self._line()) is not None:
                if line.strip():
                    self._say(line)
        except _OrderEndedError:
            pass
        finally:
            self._reading = False
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)

    def _line(self) -> str | None:
        if not self.interactive:
            return sys.stdin.readline() or None
        try:
            return input(PROMPT)
        except EOFError:
            return None

    def _say(self, line: str) -> None:
        from shopfloor.cli.watch import steering
        from shopfloor.kit.errors import Problem

        try:
            steering(self.client, self.order_id, line.strip())
        except Problem as problem:
            render.problem(problem)

    def _interrupted(self, _number: int, _frame: Any) -> None:
        if self._reading:
            raise _OrderEndedError

    def _feed(self) -> None:
        from shopfloor.cli import story
        from shopfloor.cli.client import Client
        from shopfloor.cli.feed import Feed

        try:
            with Client(self.client.url) as own:
                for event in Feed(own, self.order_id).follow():
                    if line := story.line(event):
                        self._print(line)
            self.ended = True
        except Exception as error:
            self.problem = error
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    def _print(self, line: str) -> None:
        """A line above the prompt, what is being typed kept."""
        if not self.interactive:
            print(line, flush=True)
            return
        import readline

        sys.stdout.write(f"\r\x1b[K{line}\n{PROMPT}{render.clean(readline.get_line_buffer())}")
        sys.stdout.flush()
