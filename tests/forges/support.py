"""Repositories with everything an attacker would put there, and what a sandbox does with an honest one."""

import asyncio
import os
import shlex
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from shopfloor.forges.mirrors import bundles
from shopfloor.forges.models import Change
from shopfloor.forges.service import Repositories
from shopfloor.kit.db import Database, db_time
from tests.support import git_http
from tests.support.platform import git

FIRST = {"README.md": "# Sample\n", "app.py": "print('hello')\n", "pakét/ünï code.txt": "ja\n"}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def commit(work: Path, message: str, files: dict[str, str] | None = None) -> str:
    """Commit in a work tree; answers the hash."""
    write(work, files or {})
    git("add", "-A", cwd=work)
    git("commit", "-q", "--allow-empty", "-m", message, cwd=work)
    return git("rev-parse", "HEAD", cwd=work)


def repository(folder: Path, files: dict[str, str] | None = None) -> Path:
    """A local repository with one commit on main."""
    folder.mkdir(parents=True)
    git("init", "-q", cwd=folder)
    commit(folder, "first", files or FIRST)
    return folder


def bare(work: Path, place: Path) -> Path:
    """A bare clone, as an origin."""
    git("clone", "-q", "--bare", str(work), str(place), cwd=work.parent)
    return place


def raw(repo: Path, *args: str, stdin: bytes) -> str:
    """Run git with something on its standard input."""
    done = subprocess.run(["git", *args], cwd=repo, input=stdin, capture_output=True, check=True)
    return done.stdout.decode().strip()


class Sandbox:
    """What happens inside: a copy of the golden, plain git, a bundle."""

    def __init__(self, golden: Path, folder: Path, order_id: str = "wo-1", branch: str = "") -> None:
        self.work, self.order_id, self.branch = folder, order_id, branch or f"feat-{order_id}"
        shutil.copytree(golden, folder, symlinks=True)
        self.base = git("rev-parse", "HEAD", cwd=folder)
        git("checkout", "-q", "-B", self.branch, self.base, cwd=folder)

    def commit(self, message: str = "work", files: dict[str, str] | None = None) -> str:
        return commit(self.work, message, files if files is not None else {"new.txt": f"{message}\n"})

    def bundle(self, *revisions: str) -> Path:
        """What the worker uploads."""
        place = self.work.parent / f"{self.work.name}-{git('rev-parse', 'HEAD', cwd=self.work)[:12]}.bundle"
        git("bundle", "create", "-q", str(place), *(revisions or (f"{self.base}..{self.branch}",)), cwd=self.work)
        return place

    def request(self) -> dict[str, Any]:
        """The keywords that go with the bundle."""
        return {"order_id": self.order_id, "branch": self.branch, "base_commit": self.base}


class Tripwire:
    """A program that leaves a mark when anybody runs it."""

    def __init__(self, folder: Path) -> None:
        self.mark = folder / "FIRED"
        self.script = folder / "boom.sh"
        self.script.write_text(f"#!/bin/sh\ntouch {shlex.quote(str(self.mark))}\nexec cat 2>/dev/null\n")
        self.script.chmod(0o755)

    @property
    def command(self) -> str:
        return shlex.quote(str(self.script))

    @property
    def fired(self) -> bool:
        return self.mark.exists()


def blob(repo: Path, text: str) -> str:
    return raw(repo, "hash-object", "-w", "--no-filters", "--stdin", stdin=f"{text}\n".encode())


def secret(place: Path) -> Path:
    """Another tenant's repository."""
    repo = repository(place / "tenant two", {"secret.txt": "TENANT-TWO\n"})
    commit(repo, "TENANT-TWO")
    return repo


def holds(repo: Path, commit: str) -> bool:
    return subprocess.run(["git", "cat-file", "-e", commit], cwd=repo, check=False, capture_output=True).returncode == 0


async def sandbox(house: Repositories, origin: Path, order_id: str = "wo-1") -> Sandbox:
    """An order's sandbox, prepared as the product does it."""
    base = await house.resolve(str(origin))
    ground = await house.golden(str(origin), base.commit)
    await house.pin(str(origin), ground, f"local-{order_id}-1")
    return Sandbox(ground, house.root.parent / f"sandbox {order_id}", order_id)


async def order_head(house: Repositories, origin: Path, box: Sandbox) -> str | None:
    """Where the order's branch stands, as far as it was handed out."""
    place = house.place(str(origin))
    return await bundles.ref_of(place, bundles.order_ref(box.order_id, box.branch)) if place.orders.exists() else None


async def deliver(
    house: Repositories, database: Database, box: Sandbox, origin: Path | str, files: dict[str, str]
) -> Change:
    """A sandbox's commit of some files, pushed to the origin and offered for review."""
    head = box.commit("work", files)
    await house.import_bundle(str(origin), box.bundle(), **box.request())
    await house.push(str(origin), head, box.branch)
    return await offer(house, database, box, origin, head)


async def offer(house: Repositories, database: Database, box: Sandbox, origin: Path | str, head: str) -> Change:
    """A pushed branch, offered for review."""
    return await house.forge(str(origin)).open_change(
        database,
        work_order_id=box.order_id,
        repository_url=str(origin),
        base_branch="main",
        base_commit=box.base,
        head_branch=box.branch,
        head_commit=head,
        title="Do it",
        body="As asked.",
    )


async def age(database: Database, change: Change) -> None:
    """Let the last look at a change be a minute ago."""
    async with database.transaction() as session:
        mine = sa.update(Change).where(Change.change_id == change.change_id)
        await session.execute(mine.values(checked_at=db_time(-60)))


GATE = """#!/bin/sh
read -r _ _ ref
if [ "$ref" = refs/heads/main ] && mkdir {folder}/first 2>/dev/null; then
    echo here > {folder}/arrived
    read -r _ < {folder}/go
fi
"""


class Gate:
    """A hook of the origin's server: the first push to main stops there until it is let go."""

    def __init__(self, origin: Path, folder: Path, hook: str) -> None:
        folder.mkdir()
        self.arrived, self.go = folder / "arrived", folder / "go"
        for pipe in (self.arrived, self.go):
            os.mkfifo(pipe)
        script = origin / "hooks" / hook
        script.parent.mkdir(exist_ok=True)
        script.write_text(GATE.format(folder=shlex.quote(str(folder))))
        script.chmod(0o755)

    async def reached(self) -> None:
        """Wait until a push stands there."""
        await asyncio.to_thread(self.arrived.read_text)

    async def open(self) -> None:
        """Let it go on."""
        await asyncio.to_thread(self.go.write_text, "go\n")


@contextmanager
def silence(server: git_http.GitServer) -> Iterator[None]:
    """The server takes calls and says nothing any more."""
    host, _, port = server.host.partition(":")
    server.close()
    with socket.create_server((host, int(port))):
        yield
