"""The law of projects: what hosts may be named, what a branch template may hold, what its branches are called. Pure."""

import re
from collections.abc import Sequence

from shopfloor.kit.errors import Malformed

HOST = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
FIELDS = ("type", "issue", "number", "slug", "id")
PLACE = re.compile(r"\{([^{}]*)\}")
PLAIN = re.compile(r"[a-z0-9._/-]*")
COLUMNS = ("backlog", "analyzing", "building", "building-done", "testing", "done")
"""A ticket's way over the board (TKT-17)."""
ALIASES = {
    "phase-initial": "analyzing",
    "phase-implementation": "building",
    "phase-integration": "testing",
    "phase-refactoring": "building-done",
}
"""The phase names of 002 -> columns (C8)."""
DEFAULT_TEMPLATE = "{type}-{issue}-{id}"
SEPARATORS = re.compile(r"([-._])[-._]+")
LONGEST = 100
MOST_ALLOWED = 200
MOST_SLUG = 25


class BadAllowList(Malformed):
    """An entry of the allow list is not usable."""

    hint = "Write host:port, such as pypi.org:443. Names are exact: no wildcards."


class BadTemplate(Malformed):
    """The branch template is not usable."""

    hint = "Use a-z 0-9 . _ / - and {type}, {issue}, {number}, {slug}, {id}; {id} must be in it, so that no two orders share a branch."


class UnknownColumn(Malformed):
    """The board has no such column."""

    hint = f"Columns: {', '.join(COLUMNS)}; also {', '.join(name.upper().replace('-', '_') for name in ALIASES)}."


def column(name: str) -> str:
    """The column a name means, whatever its case and with _ or -; the four phase names of 002 too (C8). Raises UnknownColumn."""
    plain = name.strip().lower().replace("_", "-")
    found = ALIASES.get(plain, plain)
    if found not in COLUMNS:
        raise UnknownColumn(f"the board has no column {name[:60]!r}")
    return found


def allow_list(entries: Sequence[str]) -> list[str]:
    """The entries in lower case, each once. Raises BadAllowList."""
    if len(entries) > MOST_ALLOWED:
        raise BadAllowList(f"more than {MOST_ALLOWED} entries")
    found = []
    for entry in entries:
        host, _, port = entry.strip().lower().rpartition(":")
        if not HOST.fullmatch(host) or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
            raise BadAllowList(f"allow: {entry[:100]!r} is not host:port")
        found.append(f"{host}:{int(port)}")
    return list(dict.fromkeys(found))


def check_template(template: str) -> str:
    """The template as it is. Raises BadTemplate."""
    fields = PLACE.findall(template)
    if unknown := [name for name in fields if name not in FIELDS]:
        raise BadTemplate(f"branch_template: there is no {{{unknown[0][:40]}}}")
    if "id" not in fields:
        raise BadTemplate("branch_template: {id} is missing")
    longest = branch(template, type_="refactor", issue=2**31, slug="a" * MOST_SLUG, order_id="wo-00000000")
    if not PLAIN.fullmatch(PLACE.sub("", template)) or len(longest) > LONGEST:
        raise BadTemplate(f"branch_template: {template[:100]!r} makes no branch names that we use, or too long ones")
    return template


def slug(text: str) -> str:
    """The first words of a request as a part of a branch name; may be empty."""
    words = re.sub(r"[^a-z0-9]+", "-", text.strip().splitlines()[0].lower() if text.strip() else "").strip("-")
    if len(words) <= MOST_SLUG:
        return words
    return words[: MOST_SLUG + 1].rpartition("-")[0] or words[:MOST_SLUG]


def branch(template: str, *, type_: str, issue: int | None, slug: str, order_id: str) -> str:
    """The branch of an order; parts that are empty leave no separators behind."""
    values = {
        "type": type_,
        "issue": f"issue-{issue}" if issue else "",
        "number": str(issue or ""),
        "slug": slug,
        "id": order_id,
    }
    made = PLACE.sub(lambda match: values[match[1]], template)
    return "/".join(piece for piece in map(_piece, made.split("/")) if piece)


def _piece(text: str) -> str:
    """One part of a path: no doubled separators, none at its ends, and nothing that git takes for a lock."""
    plain = SEPARATORS.sub(r"\1", text).strip("-._")
    return f"{plain.removesuffix('.lock')}-lock" if plain.endswith(".lock") else plain
