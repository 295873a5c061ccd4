"""Gates as data: what must hold before a ticket leaves a column, and what is missing. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shopfloor.board.rules import Column
from shopfloor.evidence.rules import matches

DEFAULTS: dict[str, list[dict[str, Any]]] = {
    Column.ANALYZING: [{"kind": "criteria", "min_count": 1}],
    Column.BUILDING: [{"kind": "tasks_done"}, {"kind": "change"}],
    Column.BUILDING_DONE: [{"kind": "tasks_done"}],
    Column.TESTING: [{"kind": "tasks_done"}, {"kind": "evidence"}],
}
READS_COMMIT = frozenset({"artifact", "change"})
"""Kinds that ask git, and so are looked at before the transaction, for one head."""


def gates_of(settings: Mapping[str, Any], column: str) -> list[dict[str, Any]]:
    """The gates of a column: the project's own, else the board's. Evidence stands before done whatever a project says."""
    given = settings.get(column)
    gates = list(DEFAULTS.get(column, []) if given is None else given)
    proven = column != Column.TESTING or any(gate["kind"] == "evidence" for gate in gates)
    return gates if proven else [*gates, {"kind": "evidence"}]


def name_of(gate: Mapping[str, Any]) -> str:
    """What a gate is called."""
    return str(gate.get("name") or gate["kind"])


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What is known of one criterion on the head."""

    text: str
    verdict: str
    """passed, failed, error, missing, stale or running."""


@dataclass(frozen=True, kw_only=True)
class TaskFact:
    """One task of the column that is left."""

    task_id: str
    title: str
    status: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the gates look at."""

    description: str = ""
    criteria: Sequence[Checked] = ()
    tasks: Sequence[TaskFact] = ()
    head_commit: str | None = None
    base_commit: str | None = None
    artifacts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Glob -> path -> text of the files at the head that it names."""
    changed: Sequence[str] = ()
    """Paths that the head changes."""
    unread: Mapping[str, str] = field(default_factory=dict)
    """Kind of gate -> why what it looks at could not be read."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A gate that does not hold."""

    gate: str
    kind: str
    missing: str
    """What is missing, in words."""
    who: str = "a person, with override=true and a reason"
    """Who can pass it as it is."""

    def document(self) -> dict[str, str]:
        """As it goes over the wire."""
        return {"gate": self.gate, "kind": self.kind, "missing": self.missing, "who_may_override": self.who}


def judge(gates: Iterable[Mapping[str, Any]], facts: Facts) -> list[Finding]:
    """The gates that do not hold, each with what is missing."""
    return [
        Finding(gate=name_of(gate), kind=gate["kind"], missing=missing)
        for gate in gates
        if (missing := _unread(gate, facts) or JUDGES[gate["kind"]](gate, facts))
    ]


def _unread(gate: Mapping[str, Any], facts: Facts) -> str:
    """What nobody could look at does not hold; a person may know that it does."""
    why = facts.unread.get(gate["kind"])
    return f"{(facts.head_commit or '')[:12]} could not be read: {why}" if why else ""


def _text(what: str, text: str, gate: Mapping[str, Any]) -> str:
    least = gate.get("min_chars", 0)
    if len(text.strip()) < least:
        return f"{what} has {len(text.strip())} of at least {least} characters"
    absent = [word for word in gate.get("contains", []) if word.lower() not in text.lower()]
    return f"{what} does not contain: {', '.join(absent)}" if absent else ""


def _description(gate: Mapping[str, Any], facts: Facts) -> str:
    return _text("the description", facts.description, {"min_chars": 1} | _set(gate))


def _set(gate: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in gate.items() if value}


def _criteria(gate: Mapping[str, Any], facts: Facts) -> str:
    least = gate.get("min_count", 1)
    have = len(facts.criteria)
    return "" if have >= least else f"{have} of at least {least} acceptance criteria; write at least {least}"


def _tasks_done(_gate: Mapping[str, Any], facts: Facts) -> str:
    left = [t for t in facts.tasks if t.status not in {"completed", "cancelled"}]
    if not left:
        return ""
    named = ", ".join(f"{task.task_id} is {task.status}" for task in left[:5])
    return f"{len(left)} tasks of this column are not done: {named}"


def _artifact(gate: Mapping[str, Any], facts: Facts) -> str:
    glob = gate.get("path", "")
    if facts.head_commit is None:
        return f"no commit yet, so no file {glob}"
    files = facts.artifacts.get(glob, {})
    if not files:
        return f"no file {glob} at {facts.head_commit[:12]}"
    wrong = [_text(path, text, {"min_chars": 1} | _set(gate)) for path, text in sorted(files.items())]
    return "" if "" in wrong else wrong[0]


def _change(gate: Mapping[str, Any], facts: Facts) -> str:
    glob = gate.get("path", "")
    if facts.head_commit is None or facts.head_commit == facts.base_commit or not facts.changed:
        return "nothing was changed: the ticket's branch holds no more than its base"
    if glob and not any(matches(path, [glob]) for path in facts.changed):
        return f"nothing that matches {glob} was changed"
    return ""


def _evidence(_gate: Mapping[str, Any], facts: Facts) -> str:
    if not facts.criteria:
        return "there is no acceptance criterion; write at least one"
    if facts.head_commit is None:
        return "there is no commit that could be proven"
    open_ = [one for one in facts.criteria if one.verdict != "passed"]
    if not open_:
        return ""
    named = "; ".join(f"{one.text[:80]!r} is {one.verdict}" for one in open_[:5])
    return f"{len(open_)} of {len(facts.criteria)} criteria are not proven on {facts.head_commit[:12]}: {named}"


JUDGES = {
    "description": _description,
    "criteria": _criteria,
    "tasks_done": _tasks_done,
    "artifact": _artifact,
    "change": _change,
    "evidence": _evidence,
}
