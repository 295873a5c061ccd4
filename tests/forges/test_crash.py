"""kill -9 at every step: the next try works, and nothing half-made is ever used."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shopfloor.forges.service import Repositories
from tests.forges.conftest import PROTOCOLS
from tests.forges.support import Sandbox
from tests.support.platform import git

STUB = """#!/bin/sh
case " $* " in *" {step} "*)
    if [ {when} = after ]; then '{git}' "$@"; fi
    echo here > '{arrived}'
    read -r _ < '{go}'
    if [ {when} = after ]; then exit 0; fi
;; esac
exec '{git}' "$@"
"""
PROGRAM = """
import asyncio, json, sys
from pathlib import Path
from shopfloor.forges.service import Repositories
root, url, bundle, request = sys.argv[1:]
async def main():
    house = Repositories(Path(root))
    base = await house.resolve(url)
    await house.golden(url, base.commit)
    if bundle:
        request_ = json.loads(request)
        head = (await house.import_bundle(url, Path(bundle), **request_)).head
        await house.push(url, head, request_["branch"])
asyncio.run(main())
"""
PREPARING = [
    ("init", "before"),
    ("fetch", "before"),
    ("fetch", "after"),
    ("pack-refs", "after"),
    ("checkout", "before"),
    ("checkout", "after"),
]
IMPORTING = [
    ("index-pack", "before"),
    ("index-pack", "after"),
    ("rev-list", "before"),
    ("update-ref", "before"),
    ("update-ref", "after"),
    ("push", "after"),
]


class Victim:
    """A process that stops at a chosen git step and is killed there."""

    def __init__(self, folder: Path, step: str, when: str, *args: str) -> None:
        self.arrived, self.go = folder / "arrived", folder / "go"
        for pipe in (self.arrived, self.go):
            os.mkfifo(pipe)
        real = shutil.which("git")
        stub = folder / "bin" / "git"
        stub.parent.mkdir()
        stub.write_text(STUB.format(step=step, when=when, git=real, arrived=self.arrived, go=self.go))
        stub.chmod(0o755)
        environment = {**os.environ, "PATH": f"{stub.parent}:{os.environ['PATH']}", "PYTHONPATH": "src"}
        self.process = subprocess.Popen([sys.executable, "-c", PROGRAM, *args], env=environment)

    def kill(self) -> None:
        """Wait until it is in the middle, then kill -9. Its git lives on for now."""
        self.arrived.read_text()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def let_orphan_go(self) -> None:
        """The git that it left behind does the rest of its work."""
        self.go.write_text("go\n")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    folder = tmp_path / "victim"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(("step", "when"), PREPARING)
async def test_a_killed_preparation_is_done_again(
    house: Repositories, origin: Path, elsewhere: Path, step: str, when: str
) -> None:
    victim = Victim(elsewhere, step, when, str(house.root), str(origin), "", "")
    await asyncio.to_thread(victim.kill)
    await asyncio.to_thread(victim.let_orphan_go)
    base = await house.resolve(str(origin))
    ground = await house.golden(str(origin), base.commit)
    assert git("status", "--porcelain", cwd=ground) == ""
    assert (ground / "app.py").exists()
    git("fsck", "--strict", cwd=house.place(str(origin)).mirror)


async def test_before_the_kill_nothing_half_made_has_a_name(house: Repositories, origin: Path, elsewhere: Path) -> None:
    victim = Victim(elsewhere, "checkout", "before", str(house.root), str(origin), "", "")
    await asyncio.to_thread(victim.kill)
    assert list(house.place(str(origin)).goldens.iterdir()) == []
    await asyncio.to_thread(victim.let_orphan_go)


async def test_a_lock_outlives_its_killed_holder_until_git_ends(
    house: Repositories, origin: Path, elsewhere: Path
) -> None:
    victim = Victim(elsewhere, "fetch", "before", str(house.root), str(origin), "", "")
    await asyncio.to_thread(victim.kill)
    waiting = asyncio.create_task(house.resolve(str(origin)))
    done, _ = await asyncio.wait({waiting}, timeout=0.5)
    assert not done
    await asyncio.to_thread(victim.let_orphan_go)
    assert (await waiting).branch == "main"


@pytest.mark.parametrize(("step", "when"), IMPORTING)
async def test_a_killed_import_is_done_again(
    house: Repositories, origin: Path, elsewhere: Path, place: Path, step: str, when: str
) -> None:
    base = await house.resolve(str(origin))
    box = Sandbox(await house.golden(str(origin), base.commit), place / "sandbox")
    head = box.commit()
    bundle = box.bundle()
    request = f'{{"order_id": "wo-1", "branch": "{box.branch}", "base_commit": "{box.base}"}}'
    victim = Victim(elsewhere, step, when, str(house.root), str(origin), str(bundle), request)
    await asyncio.to_thread(victim.kill)
    await asyncio.to_thread(victim.let_orphan_go)
    again = Repositories(house.root, protocols=PROTOCOLS)
    assert (await again.import_bundle(str(origin), bundle, **box.request())).head == head
    await again.push(str(origin), head, box.branch)
    assert git("rev-parse", box.branch, cwd=origin) == head
    git("fsck", "--strict", cwd=again.place(str(origin)).orders)
