"""`recover`: what is kept of sandboxes that were removed, and how to get it back."""

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from shopfloor.cli import render
from shopfloor.cli.options import Json, Url, order_ids
from shopfloor.kit.errors import Malformed

ARCHIVES = ("files", "spool")
WORK = ("commits", "files")


class NothingToRestore(Malformed):
    """There is nothing kept that could be restored so."""


def recover(
    order_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="A work order; else all.", autocompletion=order_ids)
    ] = None,
    pin: Annotated[
        int | None, typer.Option(help="One pin, by its number in the list; else the newest that fits.")
    ] = None,
    into: Annotated[Path | None, typer.Option(help="Restore files into this folder (new or empty).")] = None,
    branch: Annotated[str | None, typer.Option(help="Restore commits and files as this new branch.")] = None,
    repository: Annotated[Path, typer.Option(help="Where the branch is made.")] = Path(),
    retry: Annotated[bool, typer.Option("--retry", help="Retry the order from what was kept.")] = False,
    prompt: Annotated[str, typer.Option(help="With --retry: what to tell the agent in addition.")] = "",
    sweep: Annotated[bool, typer.Option("--sweep", help="Let go of what policy no longer keeps.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --sweep: only say what would go.")] = False,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """List what is kept of removed sandboxes, and restore it.

    Before a sandbox goes, what it did not hand out is pinned: commits, files, the agent's log.
    """
    from shopfloor.cli.client import Client

    _check({"--into": into, "--branch": branch, "--retry": retry, "--sweep": sweep}, order_id or (into and pin))
    with Client(url) as client:
        if sweep:
            _sweep(client, dry_run=dry_run, as_json=as_json)
        elif into:
            _into(client, order_id, pin, into.expanduser())
        elif branch:
            _branch(client, str(order_id), pin, branch, repository.expanduser())
        elif retry:
            _retry(client, str(order_id), pin, prompt, as_json=as_json)
        else:
            _list(client, order_id, pin, as_json=as_json)


def _check(wishes: dict[str, Any], named: Any) -> None:
    """One wish at a time, and of a named order."""
    wished = [name for name, wish in wishes.items() if wish]
    if len(wished) > 1:
        raise typer.BadParameter(f"{' and '.join(wished)} do not go together")
    if wished and wished != ["--sweep"] and not named:
        raise typer.BadParameter("say which work order, 'shopfloor recover' lists them", param_hint="ID")


def _pins(client: Any, order_id: str | None) -> list[dict[str, Any]]:
    from shopfloor.cli.client import API, ORDERS, path_part

    path = f"{ORDERS}/{path_part(order_id)}/pins" if order_id else f"{API}/pins"
    found: list[dict[str, Any]] = []
    while True:
        page = client.get(path, limit=500, offset=len(found))
        found += page["pins"]
        if not page["has_more"]:
            return found


def _chosen(client: Any, order_id: str | None, number: int | None, kinds: tuple[str, ...]) -> dict[str, Any]:
    """The pin that was asked for, or the newest of these kinds."""
    found = _pins(client, order_id)
    if number is not None:
        for one in found:
            if one["id"] == number:
                return one
        raise NothingToRestore(f"there is no pin {number}", hint="'shopfloor recover' lists what is kept.")
    fitting = [one for one in found if one["kind"] in kinds and not one["gone_at"]]
    if not fitting:
        there = ", ".join(sorted({one["kind"] for one in found if not one["gone_at"]})) or "nothing at all"
        raise NothingToRestore(f"no {' or '.join(kinds)} of {order_id} are kept; there is {there}")
    prefer = kinds if kinds == ARCHIVES else ()
    return min(fitting, key=lambda one: (prefer.index(one["kind"]) if prefer else 0, -one["id"]))


def _list(client: Any, order_id: str | None, number: int | None, *, as_json: bool) -> None:
    if number is not None:
        one = _chosen(client, order_id, number, ())
        render.as_json(one) if as_json else _show(one)
        return
    found = _pins(client, order_id)
    if as_json:
        render.as_json({"pins": found})
        return
    if not found:
        render.note("nothing is kept: everything was handed out, or nothing has been removed")
    columns = ("pin", "when", "order", "attempt", "kind", "bytes", "holds", "ended")
    render.table(columns, (_row(one) for one in found))


def _row(one: dict[str, Any]) -> tuple[object, ...]:
    attempt = str(one["attempt_id"] or one["sandbox_id"]).rpartition("-")[2]
    holds = f"let go {one['gone_at'][:10]}" if one["gone_at"] else _holds(one)
    order = one["work_order_id"] or one["sandbox_id"]
    return one["id"], one["created_at"][:16], order, attempt, one["kind"], one["size"] or "", holds, one["reason"]


def _holds(one: dict[str, Any]) -> str:
    facts = one["facts"]
    if one["kind"] == "commits":
        return f"{len(set(facts.get('heads', {}).values()))} unseen heads"
    if one["kind"] == "note":
        return str(one["note"]).partition("\n")[0]
    parts = [
        f"{facts[name]} {word}"
        for name, word in (("files", "files"), ("spool", "logs"), ("git", "raw"))
        if facts.get(name)
    ]
    if facts.get("gone"):
        parts.append(f"{facts['gone']} deleted")
    return ", ".join(parts) or "changes"


def _show(one: dict[str, Any]) -> None:
    """One pin, all of it."""
    facts = one["facts"]
    heads = "\n".join(f"{commit[:12]}  {name}" for name, commit in facts.get("heads", {}).items())
    render.facts(
        [
            ("pin", one["id"]),
            ("kind", one["kind"]),
            ("work order", one["work_order_id"]),
            ("sandbox", one["sandbox_id"]),
            ("pinned", one["created_at"]),
            ("let go", one["gone_at"]),
            ("ended", one["reason"]),
            ("holds", _holds(one)),
            ("bytes", one["size"]),
            ("stands on", facts.get("tip")),
            ("commits", heads),
            ("left out", one["note"]),
        ]
    )


def _download(client: Any, path: str, place: Path) -> None:
    import httpx

    try:
        with client.http.stream("GET", path) as answer:
            if not answer.is_success:
                answer.read()
                raise client.refusal(answer)
            with place.open("wb") as file:
                for chunk in answer.iter_bytes():
                    file.write(chunk)
    except httpx.HTTPError as error:
        raise client.unreachable(error) from error


def _into(client: Any, order_id: str | None, number: int | None, folder: Path) -> None:
    from shopfloor.cli.client import API
    from shopfloor.cli.restore import empty_folder, unpack

    one = _chosen(client, order_id, number, ARCHIVES)
    if one["kind"] == "commits":
        raise NothingToRestore(f"pin {one['id']} holds commits", hint="Restore them with --branch NAME.")
    empty_folder(folder)
    with tempfile.TemporaryDirectory() as scratch:
        _download(client, f"{API}/pins/{one['id']}/content", Path(scratch) / "archive")
        restored, notes = unpack(Path(scratch) / "archive", folder)
    for line in [*notes, *filter(None, str(one["note"]).splitlines())]:
        render.note(f"not restored: {render.clean(line)}", "yellow")
    render.say(f"{restored} files restored into {folder}")
    if one["facts"].get("gone"):
        render.note(f"{one['facts']['gone']} files had been deleted; shopfloor-manifest.json names them")


def _branch(client: Any, order_id: str, number: int | None, branch: str, repository: Path) -> None:
    from shopfloor.cli.client import ORDERS, path_part
    from shopfloor.cli.restore import fetch_branch

    one = _chosen(client, order_id, number, WORK)
    with tempfile.TemporaryDirectory() as scratch:
        bundle = Path(scratch) / "recovered.bundle"
        _download(client, f"{ORDERS}/{path_part(order_id)}/pins/{one['id']}/branch", bundle)
        made = fetch_branch(repository, bundle, branch)
    render.say(f"{', '.join(made)} in {repository.resolve()}")
    render.note(f"see it: git log -p {render.clean(branch)}")


def _retry(client: Any, order_id: str, number: int | None, prompt: str, *, as_json: bool) -> None:
    from shopfloor.cli.client import ORDERS, path_part

    one = _chosen(client, order_id, number, WORK)
    newest = client.order(order_id)["sandbox_identifier"]
    if number is None and one["sandbox_id"] != newest:
        raise NothingToRestore(
            f"the newest attempt ({newest}) handed out all it had; pin {one['id']} is of {one['sandbox_id']}, before it",
            hint=f"'shopfloor retry' goes on from the newest; --pin {one['id']} goes back to that pin.",
        )
    body = {"prompt": prompt, "pin": one["id"]}
    order = client.post(f"{ORDERS}/{path_part(order_id)}/retry", body)["agent_work_order"]
    render.as_json(order) if as_json else render.say(f"{order['status']}: starts from pin {one['id']}")


def _sweep(client: Any, *, dry_run: bool, as_json: bool) -> None:
    from shopfloor.cli.client import API

    told = client.request("POST", f"{API}/retention/sweep", params={"dry_run": dry_run})
    if as_json:
        render.as_json(told)
        return
    render.table(
        ("what", "name", "bytes", "why"), ([one[n] for n in ("what", "name", "size", "why")] for one in told["going"])
    )
    render.note(
        f"{len(told['going'])} {'would go' if dry_run else 'went'}; [retention] in shopfloor.toml is the policy"
    )
