"""The law of tasks: statuses, the place in the queue, what their orders' ends mean, titles, paths, cycles. Pure."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import StrEnum

from shopfloor.kit.errors import Malformed
from shopfloor.kit.machine import Machine
from shopfloor.workorders.rules import OrderStatus


class TaskStatus(StrEnum):
    """Where a task stands."""

    PENDING = "pending"
    RUNNING = "running"
    """Its work order is waiting for a place or at work."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


T = TaskStatus
TASK = Machine(
    {
        T.PENDING: {T.RUNNING, T.COMPLETED, T.FAILED, T.CANCELLED},
        T.RUNNING: {T.PENDING, T.COMPLETED, T.FAILED, T.CANCELLED},
        T.COMPLETED: set(),
        T.FAILED: {T.PENDING, T.RUNNING},  # retried; or a person let its order go on
        T.CANCELLED: {T.PENDING, T.RUNNING},
    }
)
ENDED = frozenset({T.COMPLETED, T.FAILED, T.CANCELLED})

PRIORITIES = ("critical", "high", "medium", "low")
WORKFLOWS = {
    "backlog": "plan",
    "analyzing": "plan",
    "building": "build",
    "building-done": "test",
    "testing": "test",
    "done": "test",
}
"""What a task of each column does when nothing else is said."""
HOPELESS = ("ran longer than", "key_missing", "unknown_profile", "bad_profile", "the budget of", "isolation_needed")
"""Beginnings of what an order failed of that another try meets again."""
LONGEST_BACK_OFF = 600.0
LONGEST_TITLE = 80
UNTITLED = "Untitled task"


class UnknownPriority(Malformed):
    """There is no such priority."""

    hint = f"Priorities: {', '.join(PRIORITIES)}."


class BadPath(Malformed):
    """That is no path of a repository."""

    hint = "Write globs from the repository's root with forward slashes, such as src/billing/** or docs/*.md."


def priority(name: str) -> str:
    """The priority a name means, whatever its case (W21). Raises UnknownPriority."""
    plain = name.strip().lower()
    if plain not in PRIORITIES:
        raise UnknownPriority(f"there is no priority {name[:40]!r}")
    return plain


def rank(
    born: float,
    *,
    head_start: float,
    retries: int = 0,
    retry_head_start: float = 0.0,
    deadline: float | None = None,
    deadline_lead: float = 0.0,
) -> float:
    """A place in the queue, lower first; all in seconds since 1970 or seconds.

    It never changes while the task waits, and whoever is born long enough after it stands behind it: nobody starves.
    So a deadline before its birth is one at its birth.
    """
    place = born - head_start - retries * retry_head_start
    return place if deadline is None else min(place, max(deadline, born) - deadline_lead)


def back_off_seconds(retries: int, first: float) -> float:
    """How long a task waits after its `retries`-th failure."""
    return float(min(LONGEST_BACK_OFF, first * 2 ** min(max(0, retries - 1), 20)))


def hopeless(reason: str) -> bool:
    """Whether what an order failed of would only come again. What ended its agent, such as the gateway's no, stands behind `failed: `."""
    return reason.strip().lower().removeprefix("failed: ").startswith(HOPELESS)


def follow(now: TaskStatus, order: OrderStatus, *, stopping: TaskStatus | None, another_try: bool) -> TaskStatus:
    """Where a task stands whose order stands there. A task that does not run is moved only by an order that goes on or has completed."""
    if now == T.COMPLETED or order == OrderStatus.COMPLETED:
        return T.COMPLETED
    if order in {OrderStatus.PENDING, OrderStatus.RUNNING}:
        return T.RUNNING
    if now != T.RUNNING:
        return now
    if stopping:
        return stopping
    if order == OrderStatus.CANCELLED:
        return T.CANCELLED
    return T.PENDING if another_try else T.FAILED


SENTENCE = re.compile(r"(?<=[.!?])\s|\n")
MARKS = re.compile(r"[`*_#>~]+|^\s*[-+\d.)]+\s+")


def title(description: str) -> str:
    """A title by rule: the first sentence with something in it, without marks, of at most LONGEST_TITLE letters; else `Untitled task`."""
    for sentence in SENTENCE.split(description[:5000]):
        plain = " ".join("".join(c if c.isprintable() else " " for c in MARKS.sub("", sentence)).split())
        words = plain.rstrip(" .:;,!")
        if any(c.isalnum() for c in words):
            if len(words) <= LONGEST_TITLE:
                return words
            return (words[:LONGEST_TITLE].rpartition(" ")[0] or words[: LONGEST_TITLE - 1]).rstrip(" ,;:") + "…"
    return UNTITLED


def path_glob(text: str) -> str:
    """A glob as it is kept. Raises BadPath."""
    plain = text.strip().removeprefix("./").rstrip("/") or ""
    parts = plain.split("/")
    if not plain or plain.startswith("/") or ".." in parts or not plain.isprintable() or len(plain) > 500:
        raise BadPath(f"owned_paths: {text[:100]!r} is no path of a repository")
    return plain


WILD = re.compile(r"[*?\[{\\]")


def may_share(one: Iterable[str], other: Iterable[str]) -> bool:
    """Whether two lists of globs may name the same file: errs on the side of yes. An empty list owns nothing."""
    mine, theirs = [_fixed(glob) for glob in one], [_fixed(glob) for glob in other]
    return any(_meet(a, b) for a in mine for b in theirs)


def _fixed(glob: str) -> tuple[tuple[str, ...], bool]:
    """The folders and name before the first wildcard, and whether there is one. Letters' case is ignored: some disks do."""
    parts = [part for part in glob.casefold().split("/") if part not in {"", "."}]
    wild = next((place for place, part in enumerate(parts) if WILD.search(part)), None)
    return tuple(parts[:wild]), wild is not None


def _meet(one: tuple[tuple[str, ...], bool], other: tuple[tuple[str, ...], bool]) -> bool:
    """A path without wildcards may be a folder: what is below it is owned too."""
    (a, _), (b, _) = one, other
    shorter = min(len(a), len(b))
    return a[:shorter] == b[:shorter]


def circle(edges: Mapping[str, Collection[str]], task_id: str, depends_on: Collection[str]) -> list[str]:
    """The shortest circle that `task_id` closes by depending on `depends_on`, from it back to it; empty when there is none.

    `edges`: task -> what it depends on, for everything that `depends_on` leads to.
    """
    came: dict[str, str] = {}
    layer = list(dict.fromkeys(depends_on))
    came.update(dict.fromkeys(layer, task_id))
    while layer:
        if task_id in came:
            way = [task_id]
            while (before := came[way[-1]]) != task_id:
                way.append(before)
            return [task_id, *reversed(way)]
        following: list[str] = []
        for one in layer:
            for next_one in edges.get(one, ()):
                if next_one not in came:
                    came[next_one] = one
                    following.append(next_one)
        layer = following
    return []


def mermaid(nodes: Sequence[tuple[str, str, str]], edges: Iterable[tuple[str, str]]) -> str:
    """A graph for mermaid: nodes of (id, title, status), edges of (task, what it waits for). Titles are hostile text."""
    names = {node_id: f"t{place}" for place, (node_id, _, _) in enumerate(nodes)}
    lines = ["flowchart LR"]
    lines += [f'  {names[node_id]}["{_tame(text)} ({status})"]' for node_id, text, status in nodes]
    lines += [f"  {names[b]} --> {names[a]}" for a, b in edges if a in names and b in names]
    return "\n".join(lines) + "\n"


def _tame(text: str) -> str:
    return "".join(c if c.isalnum() or c in " .,:-_/()" else " " for c in text)[:100].strip() or "-"
