"""Ten tickets of one small repository go over the board by themselves: from the backlog to done, proven, and merged.

    python examples/ten_tickets/run.py [--keep FOLDER]

Starts a platform of its own on a free port, and speaks to it over HTTP as any client would.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from shopfloor.cli import render
from shopfloor.cli.client import API, Client
from shopfloor.cli.demo import proof
from shopfloor.cli.demo.house import DemoFailed, House
from shopfloor.kit.errors import Problem

LIMIT_SECONDS = 420.0
HERE = Path(__file__).parent


def main() -> int:
    """Run the example; answers the exit code."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--keep", type=Path, help="an empty folder for the repository with what was merged")
    kept: Path | None = options.parse_args().keep
    with tempfile.TemporaryDirectory(prefix="ten-tickets-") as passing:
        return run((kept or Path(passing)).absolute())


def run(place: Path) -> int:
    """Run it in an empty folder; answers the exit code."""
    place.mkdir(parents=True, exist_ok=True)
    if any(place.iterdir()):
        render.say(f"{place} is not empty: give another folder.", "red")
        return 1
    house = House(place / "server.log")
    try:
        return perform(house, place, yaml.safe_load((HERE / "garden.yaml").read_text()))
    except Problem as problem:
        render.say(f"{problem.message}. {problem.hint}", "red")
        if house.log.exists():
            print(house.log.read_text()[-4000:], file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        house.close()


def perform(house: House, place: Path, garden: dict[str, Any]) -> int:
    """Make the repository and the tickets, watch them until all are merged, and test what was merged."""
    began = time.monotonic()
    origin = proof.make(place, garden["repository"])
    house.start()
    with Client(house.url) as client:
        project = client.post(
            f"{API}/projects", {"name": "garden", "repository_url": str(origin), **garden["project"]}
        )["project_id"]
        render.say(f"Ten tickets for {origin}; nobody pushes them.", "bold")
        keys = order(client, project, garden["tickets"])
        watch(house, client, project, keys)
    merged = proof.run_tests(proof.checked_out(origin, place, "main"))
    if not merged.ok:
        render.say(merged.output, "red")
        return 1
    took = time.monotonic() - began
    render.say(f"All ten are done and merged; {merged.ran} tests pass on main. {took:.1f} s in all.", "bold green")
    return 0


def order(client: Client, project: str, tickets: list[dict[str, Any]]) -> dict[str, str]:
    """Make the tickets, each with its criteria and tasks; answers ticket id -> key."""
    ids: dict[str, str] = {}
    for ticket in tickets:
        tests = ticket.get("tests") or [ticket["test"]]
        made = client.post(
            f"{API}/tickets",
            {
                "project": project,
                "title": ticket["title"],
                "description": ticket.get("description", ""),
                "priority": ticket.get("priority", "medium"),
                "blocked_by": [ids[key] for key in ticket.get("after", [])],
                "criteria": [{"text": f"{test} passes", "check": {"kind": "test", "name": test}} for test in tests],
                "tasks": [task(one) for one in ticket["tasks"]],
                "force_create": True,
            },
        )
        ids[ticket["key"]] = made["ticket_id"]
    return {ticket_id: key for key, ticket_id in ids.items()}


def task(given: dict[str, Any]) -> dict[str, Any]:
    """A task whose agent writes what the file says it would write."""
    actions = [{"write": {"path": path, "content": content}} for path, content in given["files"].items()]
    return {
        "title": given["title"],
        "description": given["title"],
        "owned_paths": given.get("owned_paths", []),
        "agent": "script",
        "agent_options": {"script": {"build": actions}},
    }


def watch(house: House, client: Client, project: str, keys: dict[str, str]) -> None:
    """Print every step of every ticket until all are merged."""
    seen: dict[str, str] = {}
    deadline = time.monotonic() + LIMIT_SECONDS
    while True:
        tickets = client.get(f"{API}/tickets", project=project, limit=100)["tickets"]
        for ticket in tickets:
            now = "merged" if ticket["merge_commit"] else ticket["status"]
            now += f", blocked: {ticket['blocked_reason']}" if ticket["is_blocked"] else ""
            if seen.get(ticket["ticket_id"]) != now:
                seen[ticket["ticket_id"]] = now
                tell(client, keys[ticket["ticket_id"]], now, ticket)
        if all(ticket["merge_commit"] for ticket in tickets):
            return
        house.check()
        if time.monotonic() > deadline:
            raise DemoFailed(f"not all merged after {LIMIT_SECONDS:.0f} s", hint=f"The server's log: {house.log}")
        time.sleep(0.2)


def tell(client: Client, key: str, now: str, ticket: dict[str, Any]) -> None:
    """A line for one step; what is done says how it was proven."""
    told = f"{key:8} {now}"
    if now == "done":
        table = client.get(f"{API}/evidence/{ticket['ticket_id']}", commit=ticket["head_commit"])
        proven = sum(one["verdict"] == "passed" for one in table["standings"])
        told += f": {proven} criteria proven on {ticket['head_commit'][:12]}"
    print(told, flush=True)


if __name__ == "__main__":
    sys.exit(main())
