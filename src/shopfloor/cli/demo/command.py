"""`shopfloor demo`: three agents at work on one repository, in about half a minute, with no key and no network."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from shopfloor.cli.demo.crew import Job
    from shopfloor.cli.demo.house import House
    from shopfloor.cli.demo.show import Show

LIMIT_SECONDS = 180.0


def demo(
    keep: Annotated[Path | None, typer.Option("--keep", help="Folder for the repository with the branches.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON at the end; progress goes to stderr.")] = False,
) -> None:
    """Three agents at work; no key, no network.

    Work orders by the script agent in isolated sandboxes: one is steered, one is killed and recovers. Ends with
    delivered branches, checked out and tested.
    """
    import signal

    from shopfloor.cli.demo.house import House
    from shopfloor.cli.exits import Exit

    place = _place(keep)
    house = House(place / "server.log")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        report = _perform(house, place, quiet=as_json)
    except KeyboardInterrupt:
        typer.echo("\ninterrupted; cleaning up", err=True)
        raise typer.Exit(Exit.INTERRUPTED) from None
    finally:
        house.close()
    _tell(report, as_json=as_json)


def _place(keep: Path | None) -> Path:
    """An empty folder for what stays: the repository and the server's log. What an earlier demo left there goes."""
    import shutil

    import platformdirs

    from shopfloor.cli.demo.house import DemoFailed

    place = (keep or Path(platformdirs.user_cache_dir("shopfloor")) / "demo").expanduser().absolute()
    mark = place / ".shopfloor-demo"
    if place.exists() and not mark.exists() and any(place.iterdir()):
        raise DemoFailed(f"{place} is not empty and not from an earlier demo", hint="Give --keep another folder.")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    mark.touch()
    return place


def _perform(house: "House", place: Path, *, quiet: bool) -> dict[str, Any]:
    import shutil
    import time

    from shopfloor.cli.demo import crew, proof
    from shopfloor.cli.demo.show import Show

    began = time.monotonic()
    files, jobs = crew.sample()
    with Show(jobs, quiet=quiet) as show:
        origin = proof.make(place, files)
        before = proof.run_tests(place / "first")
        shutil.rmtree(place / "first")
        show.say(f"A small Python package is at {origin}: {before.ran} tests, all of them fail.")
        house.start()
        show.say(f"Shopfloor runs at {house.url}. Three work orders, three sandboxes:", "bold")
        work = crew.Crew(house, jobs, str(origin))
        work.start()
        _follow(work, show)
        show.say("Checking out what was delivered and running its tests …", "bold")
        report = _proven(place, origin, jobs)
    return {**report, "seconds": round(time.monotonic() - began, 1), "log": str(house.log)}


def _follow(work: Any, show: "Show") -> None:
    """Show the news until every job has ended."""
    import queue
    import time

    from shopfloor.cli.demo.house import DemoFailed

    deadline, left = time.monotonic() + LIMIT_SECONDS, len(work.jobs)
    while left:
        try:
            job, news = work.news.get(timeout=0.5)
        except queue.Empty:
            work.house.check()
            if time.monotonic() > deadline:
                raise DemoFailed(f"not done after {LIMIT_SECONDS:.0f} s", hint=f"Log: {work.house.log}") from None
            continue
        if isinstance(news, Exception):
            raise news
        if news is None:
            left -= 1
        else:
            show.event(job, news)


def _proven(place: Path, origin: Path, jobs: list["Job"]) -> dict[str, Any]:
    """Every branch in a fresh checkout, its tests run for real; then all of them merged."""
    import tempfile

    from shopfloor.cli.demo import proof

    with tempfile.TemporaryDirectory(prefix="proof-", dir=place) as folder:
        told = [_one(Path(folder), origin, job) for job in jobs]
        merged = None
        if all(one["ok"] for one in told):
            together = proof.run_tests(proof.checked_out(origin, Path(folder), *(one["branch"] for one in told)))
            merged = {"tests": together.ran, "ok": together.ok}
    return {"ok": bool(merged and merged["ok"]), "repository": str(origin), "orders": told, "merged": merged}


def _one(folder: Path, origin: Path, job: "Job") -> dict[str, Any]:
    from shopfloor.cli.demo import proof

    order, branch = job.order, str(job.order.get("git_branch_name") or "")
    told = {
        "name": job.name,
        "id": job.order_id,
        "status": job.status,
        "reason": order.get("reason", ""),
        "branch": branch,
        "attempts": order.get("attempts", 0),
        "steered": job.steered,
        "recovered": job.restarted and job.status == "completed",
        "seconds": round(job.seconds, 1),
        "commits": 0,
        "tests": 0,
        "ok": False,
    }
    if job.status == "completed":
        found = proof.run_tests(proof.checked_out(origin, folder, branch), job.tests)
        as_told = job.steered == bool(job.steer) and job.restarted == job.kill
        told |= {"commits": proof.commits(origin, branch), "tests": found.ran, "ok": found.ok and as_told}
    return told


def _tell(report: dict[str, Any], *, as_json: bool) -> None:
    from shopfloor.cli import render
    from shopfloor.cli.exits import Exit

    if as_json:
        render.as_json(report)
        raise typer.Exit(Exit.OK if report["ok"] else Exit.FAILED)
    print()
    columns = ("order", "status", "branch", "commits", "tests", "what happened", "seconds")
    render.table(columns, (_row(one) for one in report["orders"]), lined_up=True)
    print()
    if not report["ok"]:
        for one in report["orders"]:
            if not one["ok"]:
                render.say(f"{one['name']}: {render.one_line(one['reason'], 400)}", "red")
        render.say(f"The demo failed. The server's log: {report['log']}", "bold red")
        raise typer.Exit(Exit.FAILED)
    tests = report["merged"]["tests"]
    render.say(f"All three branches merged: {tests} of {tests} tests pass. {report['seconds']} s in all.", "bold green")
    print(NEXT.format(repository=report["repository"]))


def _row(one: dict[str, Any]) -> tuple[object, ...]:
    happened = (
        "agent killed with -9, recovered" if one["recovered"] else "steered while it ran" if one["steered"] else ""
    )
    tests = f"{one['tests']} pass" if one["ok"] else "fail" if one["tests"] else ""
    return (
        one["name"],
        one["status"],
        one["branch"],
        one["commits"],
        tests,
        happened or "straight through",
        one["seconds"],
    )


NEXT = """
The branches are in {repository}
  git -C {repository} log --oneline --graph --all

With a real agent:
  shopfloor up                                 the platform, in another terminal
  shopfloor doctor                             finds your agents and keys, tries a sandbox
  export ANTHROPIC_API_KEY=...                 for Claude Code, before 'shopfloor up'
  cd your/repository
  shopfloor run . "Fix the failing test"       ends with a branch; --agent chooses another agent"""
