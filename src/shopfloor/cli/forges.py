"""`verify` and `issues`: what this server may do with a repository, and what people want there."""

from typing import Annotated

import typer

from shopfloor.cli import render
from shopfloor.cli.exits import Exit
from shopfloor.cli.options import Json, Url

Repository = Annotated[str, typer.Argument(metavar="REPOSITORY", help="owner/name, an address, or a folder.")]


def verify(repository: Repository, as_json: Json = False, url: Url = None) -> None:
    """Try to read and to write a repository, and say what is in the way."""
    from shopfloor.cli.client import Client
    from shopfloor.cli.repository import located

    with Client(url, timeout=60) as client:
        told = client.post("/api/v1/github/verify-repository", {"repository_url": located(repository)})
    if as_json:
        render.as_json(told)
    else:
        shown = told["repository"]
        facts = [
            ("repository", shown["repository_url"]),
            ("readable", told["verification_success"]),
            ("writable", told["can_write"]),
            ("default branch", shown["default_branch"]),
            ("in the way", told["error_message"]),
            ("hint", told["hint"]),
        ]
        render.facts((name, value) for name, value in facts if value is not None)
    if not told["verification_success"]:
        raise typer.Exit(Exit.FAILED)


def issues(
    repository: Repository,
    label: Annotated[str | None, typer.Option(help="Only those with this label.")] = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """List a repository's open issues."""
    from shopfloor.cli.client import Client
    from shopfloor.cli.repository import located

    with Client(url, timeout=60) as client:
        told = client.get("/api/v1/github/issues", repository_url=located(repository), label=label)
    if as_json:
        render.as_json(told)
        return
    rows = ((one["issue_number"], ", ".join(one["labels"]), one["issue_title"]) for one in told["issues"])
    render.table(("number", "labels", "title"), rows)
