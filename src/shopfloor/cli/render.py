"""What the terminal shows. Everything that came from elsewhere goes through `clean` first."""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import IO, Any

from shopfloor.kit.errors import Problem

SEQUENCE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\x1b[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?"  # OSC, DCS, SOS, PM, APC: titles, links, clipboard
    r"|\x1b[ -/]*[0-~]?"  # two-byte escapes
)
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufeff\ud800-\udfff]")
"""Control characters but newline and tab, characters that turn the direction of text, and halves of characters."""
STYLES = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
}
OF_STATUS = {"pending": "yellow", "running": "cyan", "completed": "green", "failed": "red", "cancelled": "magenta"}


def clean(text: object) -> str:
    """Text that cannot steer a terminal: no escape sequences, no control characters but newline and tab."""
    return CONTROL.sub("", SEQUENCE.sub("", str(text).replace("\r\n", "\n")))


def one_line(text: object, width: int = 160) -> str:
    """The text cleaned, on one line, cut to a width."""
    flat = " ".join(clean(text).split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"


def colourful(stream: IO[str]) -> bool:
    """Whether a stream wants colours."""
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def paint(text: str, style: str, stream: IO[str] | None = None) -> str:
    """Clean text in a style, when the stream (stdout) wants colours."""
    if not style or not colourful(stream or sys.stdout):
        return text
    return f"\x1b[{';'.join(STYLES[s] for s in style.split())}m{text}\x1b[0m"


def status(word: str, stream: IO[str] | None = None) -> str:
    """A status in its colour."""
    return paint(clean(word), OF_STATUS.get(word, ""), stream)


def say(text: str = "", style: str = "") -> None:
    """A line on stdout, at once."""
    print(paint(text, style), flush=True)


def note(text: str, style: str = "dim") -> None:
    """A line on stderr: for people, not for the next program in the pipe."""
    print(paint(text, style, sys.stderr), file=sys.stderr, flush=True)


def as_json(value: Any) -> None:
    """One JSON document on stdout, ASCII only, so that it can steer no terminal either; indented when a person reads it."""
    print(json.dumps(value, indent=2 if sys.stdout.isatty() else None), flush=True)


def problem(found: Problem, *, json_wanted: bool = False) -> None:
    """A problem on stderr: what is wrong, what each gate wants and who may pass it as it is, then what to do."""
    if json_wanted:
        print(json.dumps(found.document(), default=str), file=sys.stderr)
        return
    print(f"{paint('error:', 'bold red', sys.stderr)} {clean(found.message)}", file=sys.stderr)
    for gate in found.document().get("missing", []):
        who = str(gate["who_may_override"]).replace("override=true and a reason", "--override --reason …")
        line = clean(f"{gate['gate']}: {gate['missing']}; may override: {who}")
        print(f"{paint('missing:', 'yellow', sys.stderr)} {line}", file=sys.stderr)
    if found.hint:
        print(f"{paint('hint:', 'cyan', sys.stderr)} {clean(found.hint)}", file=sys.stderr)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, lined_up: bool = False) -> None:
    """A table: lined up in a terminal (or where asked), tab-separated and without a head in a pipe."""
    lines = [[one_line(cell, 60) for cell in row] for row in rows]
    if not (lined_up or sys.stdout.isatty()):
        for line in lines:
            print("\t".join(line))
        return
    widths = [max(len(line[n]) for line in [list(columns), *lines]) for n in range(len(columns))]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else 200
    widths[-1] = max(len(columns[-1]), min(widths[-1], room - sum(widths[:-1]) - 2 * len(widths) + 2))
    print("  ".join(paint(name.ljust(width), "bold") for name, width in zip(columns, widths, strict=True)))
    for line in lines:
        cells = (paint(one_line(c, w).ljust(w), OF_STATUS.get(c, "")) for c, w in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())


def rest(page: dict[str, Any]) -> None:
    """That there is more than a page of a list, and how to see it; nothing after the last."""
    if page["next_cursor"]:
        note(f"{page['total_count']} in all; --limit shows more, --cursor {clean(page['next_cursor'])} the next")


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """Named values, one a line; empty ones are left out."""
    kept = [(name, clean(value)) for name, value in pairs if value not in (None, "")]
    width = max((len(name) for name, _ in kept), default=0)
    for name, value in kept:
        first, *rest = value.splitlines() or [""]
        print(f"{paint(name.ljust(width), 'dim')}  {paint(first, OF_STATUS.get(first, ''))}")
        for line in rest:
            print(f"{' ' * width}  {line}")
