"""What a keeper is to do, as the server writes it down before the keeper starts, and the names in a sandbox's folder."""

import json
import os
from dataclasses import asdict, dataclass, field
from typing import Any

PLAN = "plan.json"
ALIVE = "alive"
"""Locked by the creator, then by the keeper, for the keeper's whole life."""
FIRST = "first"
"""Identity of the sandbox's process 1 on the host."""
STARTED = "started"
"""Exists once a start was tried: a sandbox is never started twice."""
LEASE = "lease"
"""Deadline on the monotonic clock, which all processes share and which stands still while a laptop sleeps."""
EXIT = "exit.json"
CONTROL = "control"
DENIED = "denied.jsonl"
OUTPUT = "output.log"
KEEPER_LOG = "keeper.log"
OVERLAY = "overlay"
WORKSPACE = "workspace"


@dataclass(kw_only=True)
class GatePlan:
    """The ways out of the sandbox."""

    api_socket: str
    allow: list[str]
    pipes: dict[str, str]
    address: str = "127.0.0.1"


@dataclass(kw_only=True)
class Cgroup:
    """One control group to make, fill and remove again."""

    path: str
    settings: dict[str, str]


@dataclass(kw_only=True)
class Plan:
    """One sandbox, spelled out."""

    sandbox_id: str
    labels: dict[str, str]
    argv: list[str]
    env: dict[str, str]
    directory: str
    """Where the main program starts, as it sees it."""
    processes: int
    memory: int
    disk: int
    tmp: int
    watched: list[str]
    """Host folders whose size counts against `disk`."""
    gate: GatePlan | None = None
    cgroups: list[Cgroup] = field(default_factory=list)
    bwrap: str = ""
    """Empty: no isolation."""
    libraries: str = ""
    """Folder of bwrap's own libraries, when it came as a wheel."""
    python: str = ""
    """Folder of a Python to show at /opt/python, when the host has none in /usr."""
    lower: str = ""
    """Lower layer of the workspace; empty: an empty workspace."""
    read_only: dict[str, str] = field(default_factory=dict)
    writable: dict[str, str] = field(default_factory=dict)
    owner: tuple[int, int] | None = None
    """Host uid and gid to become; None: stay who we are."""

    def dump(self) -> bytes:
        """The plan as JSON."""
        return json.dumps(asdict(self)).encode()


class BadPlan(Exception):
    """A plan that cannot be read."""


def load(folder: str) -> Plan:
    """Read the plan of the sandbox in `folder`; FileNotFoundError when there is none, BadPlan when it cannot be read.

    A keeper outlives its server: what another version of Shopfloor wrote more is passed over.
    """
    with open(os.path.join(folder, PLAN), "rb") as file:
        text = file.read()
    try:
        return _parsed(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadPlan(f"{folder}/{PLAN}: {type(error).__name__}: {error}") from error


def _parsed(raw: dict[str, Any]) -> Plan:
    raw = {name: value for name, value in raw.items() if name in Plan.__dataclass_fields__}
    gate, owner = raw.pop("gate"), raw.pop("owner")
    cgroups = [Cgroup(**c) for c in raw.pop("cgroups")]
    return Plan(
        **raw, gate=GatePlan(**gate) if gate else None, cgroups=cgroups, owner=(owner[0], owner[1]) if owner else None
    )


def write(path: str, data: bytes) -> None:
    """Replace the file at `path` at once: a reader sees the old content or the new."""
    fresh = f"{path}.{os.getpid()}.{os.urandom(4).hex()}.tmp"
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    os.replace(fresh, path)
