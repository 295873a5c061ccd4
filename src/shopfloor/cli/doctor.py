"""`doctor`: proves by trying what this machine can do; secrets are seen to be there and never shown."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shopfloor.cli.options import Json, Url
from shopfloor.kit.errors import Problem

if TYPE_CHECKING:
    from shopfloor.kit.config import Settings

SECONDS = 60.0
"""What one trial may take."""
LITTLE_SPACE = 2 << 30


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was tried."""

    area: str
    name: str
    ok: bool
    detail: str
    fix: str = ""
    required: bool = True


def doctor(
    area: Annotated[
        list[str] | None,
        typer.Argument(help="Only these: config, git, data, database, sandbox, agents, keys, forges, board, server."),
    ] = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Try for real what a work order needs.

    git, a real sandbox, agents and their versions, keys and forges (never shown), data folder, database, the board's model, server.
    """
    from shopfloor.cli import render
    from shopfloor.cli.exits import Exit
    from shopfloor.kit import log

    log.configure("error")
    checks: list[Check] = []
    for check in _all(url, set(area or ())):
        checks.append(check)
        if not as_json:
            _show(check)
    well = all(check.ok for check in checks if check.required)
    if as_json:
        render.as_json({"ok": well, "checks": [asdict(check) for check in checks]})
    else:
        render.say("Ready." if well else "Not ready: correct what is marked ✘.", "bold green" if well else "bold red")
    raise typer.Exit(Exit.OK if well else Exit.FAILED)


def _show(check: Check) -> None:
    from shopfloor.cli import render

    symbol, style = ("✔", "green") if check.ok else ("✘", "red") if check.required else ("-", "yellow")
    print(f"{render.paint(symbol, style)} {render.one_line(check.name).ljust(18)} {render.one_line(check.detail, 300)}")
    if check.fix:
        print(f"  {' ' * 18} {render.paint(render.one_line(check.fix, 300), 'dim')}", flush=True)


def _all(url: str | None, wanted: set[str]) -> Iterator[Check]:
    from shopfloor.kit.config import load

    areas: dict[str, Callable[[Settings], Iterator[Check]]] = {
        "git": lambda _: _git(),
        "data": _data,
        "database": _database,
        "sandbox": _sandboxes,
        "agents": _agents,
        "keys": _keys,
        "forges": _forges,
        "board": _board,
        "server": lambda _: _server(url),
    }
    if unknown := wanted - {"config", *areas}:
        raise typer.BadParameter(f"there is no area {', '.join(sorted(unknown))}", param_hint="AREA")
    try:
        settings = load()
    except Problem as problem:
        yield Check(area="config", name="configuration", ok=False, detail=problem.message, fix=problem.hint)
        return
    if not wanted or "config" in wanted:
        yield _config()
    for area, look in areas.items():
        if not wanted or area in wanted:
            try:
                yield from look(settings)
            except Exception as error:  # a doctor reports; it does not die of what it finds
                hint = error.hint if isinstance(error, Problem) else ""
                yield Check(area=area, name=area, ok=False, detail=str(error) or type(error).__name__, fix=hint)


def _config() -> Check:
    from shopfloor.kit.config import config_file

    where = config_file()
    read = f"read from {where.absolute()}" if where.exists() else f"defaults and environment ({where} is not there)"
    return Check(area="config", name="configuration", ok=True, detail=read)


def _git() -> Iterator[Check]:
    if (program := shutil.which("git")) is None:
        yield Check(area="git", name="git", ok=False, detail="not found", fix="Install git.")
        return
    with tempfile.TemporaryDirectory() as folder:
        for words in (
            ["init", "-q", "."],
            ["-c", "user.name=doctor", "-c", "user.email=d@x.invalid", "commit", "-q", "--allow-empty", "-m", "try"],
            ["bundle", "create", "-q", "try.bundle", "HEAD"],
        ):
            done = subprocess.run(
                ["git", *words], cwd=folder, capture_output=True, text=True, check=False, timeout=SECONDS
            )
            if done.returncode:
                yield Check(
                    area="git", name="git", ok=False, detail=done.stderr, fix="git cannot commit or bundle here."
                )
                return
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, timeout=SECONDS)
    yield Check(area="git", name="git", ok=True, detail=f"{said.stdout.strip()}; commits and bundles")


def _data(settings: "Settings") -> Iterator[Check]:
    place = settings.data_dir
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o711)
        with tempfile.NamedTemporaryFile(dir=place, prefix="doctor-") as file:
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        yield Check(
            area="data",
            name="data folder",
            ok=False,
            detail=f"{place}: {error.strerror}",
            fix="Set data_dir (--data-dir).",
        )
        return
    free = shutil.disk_usage(place).free
    detail = f"{place} can be written, {free / 2**30:.1f} GiB free"
    fix = "" if free > LITTLE_SPACE else "Make room: repositories and sandboxes live there."
    yield Check(area="data", name="data folder", ok=free > LITTLE_SPACE, detail=detail, fix=fix, required=False)


def _database(settings: "Settings") -> Iterator[Check]:
    import asyncio

    import sqlalchemy as sa

    from shopfloor.kit.db import Database

    if settings.database.startswith("sqlite") and not Path(settings.database.removeprefix("sqlite:///")).exists():
        yield Check(area="database", name="database", ok=True, detail="SQLite; made by the first 'shopfloor up'")
        return
    database = Database(settings.database)
    shown = database.url.render_as_string(hide_password=True)

    async def answer() -> None:
        async with asyncio.timeout(SECONDS), database.reading() as session:
            await session.execute(sa.text("SELECT 1"))
        await database.close()

    try:
        asyncio.run(answer())
    except (OSError, sa.exc.SQLAlchemyError, TimeoutError) as error:
        fix = "Start the database or correct database_url."
        yield Check(area="database", name="database", ok=False, detail=f"{shown}: {error}", fix=fix)
        return
    yield Check(area="database", name="database", ok=True, detail=f"{shown} answers")


def _sandboxes(settings: "Settings") -> Iterator[Check]:
    import asyncio

    from shopfloor.kit.db import Database
    from shopfloor.sandboxes.service import Sandboxes

    house = Sandboxes(settings, Database(settings.database), "doctor")
    for name in house.names():
        required = name == settings.default_sandbox
        try:
            findings = asyncio.run(house.adapter(name).doctor())
        except Problem as problem:
            yield Check(
                area="sandbox", name=name, ok=False, detail=problem.message, fix=problem.hint, required=required
            )
            continue
        for found in findings:
            title = f"{name}: {found.name}"
            yield Check(area="sandbox", name=title, ok=found.ok, detail=found.detail, fix=found.fix, required=required)


def _agents(settings: "Settings") -> Iterator[Check]:
    import asyncio

    from shopfloor.agents import service as agents

    for name, profile in agents.profiles(settings).items():
        for found in asyncio.run(agents.doctor(profile)):
            default = name == settings.default_agent and found.name == "program"
            title = f"agent {name}: {found.name}"
            yield Check(area="agents", name=title, ok=found.ok, detail=found.detail, fix=found.fix, required=default)


def _keys(settings: "Settings") -> Iterator[Check]:
    """That model accounts take their keys; the keys stay where they are."""
    import asyncio

    from shopfloor.gateway import accounts
    from shopfloor.gateway.steps.examine import examine

    for name in accounts.names(settings):
        found = asyncio.run(examine(accounts.account(settings, name)))
        yield Check(
            area="keys", name=f"account {name}", ok=found.ok, detail=found.detail, fix=found.fix, required=False
        )
    if not settings.loopback or settings.api_key:
        yield Check(
            area="keys", name="api key", ok=bool(settings.api_key), detail="set" if settings.api_key else "not set"
        )


def _forges(settings: "Settings") -> Iterator[Check]:
    """That every connected forge knows who we are."""
    import asyncio

    from shopfloor.app import repositories

    house = repositories(settings)
    for origin, connected in settings.forges.items():
        forge, name = house.adapter(f"{origin.rstrip('/')}/shopfloor/doctor"), f"forge {origin}"
        if connected.kind == "plain_git":
            yield Check(area="forges", name=name, ok=True, detail="plain git: nobody logs in")
            continue
        try:
            who = asyncio.run(forge.login(f"{origin.rstrip('/')}/shopfloor/doctor"))
        except Problem as problem:
            yield Check(area="forges", name=name, ok=False, detail=problem.message, fix=problem.hint, required=False)
        else:
            yield Check(area="forges", name=name, ok=True, detail=f"knows us as {who}")


def _board(settings: "Settings") -> Iterator[Check]:
    """That tickets can be compared, as the settings ask for it."""
    from shopfloor.board.steps.duplicates import load

    name = settings.board.duplicate_model
    try:
        detail = f"{name} gives {load(name).dimensions} numbers for a text" if name else "compared by letters; no model"
    except Problem as problem:
        yield Check(area="board", name="duplicates", ok=False, detail=problem.message, fix=problem.hint)
    else:
        yield Check(area="board", name="duplicates", ok=True, detail=detail)


def _server(url: str | None) -> Iterator[Check]:
    from shopfloor.cli.client import Client

    with Client(url, timeout=5) as client:
        try:
            version = client.get("/healthz")["version"]
            client.get("/readyz")
            client.get("/api/v1/agent-work-orders", limit=1)
        except Problem as problem:
            yield Check(
                area="server", name="server", ok=False, detail=problem.message, fix=problem.hint, required=False
            )
            return
        yield Check(area="server", name="server", ok=True, detail=f"{client.url} answers, version {version}")
