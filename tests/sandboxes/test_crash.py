"""Anything may die at any instant: the state told afterwards is true, and nothing is left behind."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from shopfloor.sandboxes.adapters import _kept
from shopfloor.sandboxes.port import Isolation, Life
from tests.sandboxes import support
from tests.sandboxes.support import Shop

SERVER = textwrap.dedent(
    """
    import asyncio, os, signal, sys
    from pathlib import Path
    from shopfloor.kit import plugins
    from shopfloor.sandboxes.port import Checkout, SandboxSpec

    name, root, mirror, golden, commit, branch, sandbox_id, lease, delay = sys.argv[1:]

    async def main():
        module = plugins.load("shopfloor.sandboxes.adapters", name)
        adapter = module.create(Path(root), module.Config())
        checkout = Checkout(mirror=Path(mirror), golden=Path(golden), base_commit=commit, branch=branch)
        spec = SandboxSpec(sandbox_id=sandbox_id, labels={}, checkout=checkout, argv=("sleep", "600"), env={},
                           lease_seconds=float(lease), allow_no_isolation=True)
        if float(delay) >= 0:
            signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
            signal.setitimer(signal.ITIMER_REAL, float(delay) + 1e-6)
        await adapter.create(spec)
        print("created", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(main())
    """
)


def children(parent: int) -> dict[int, str]:
    """pid -> command line."""
    said = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(parent)], capture_output=True, text=True, check=True)
    return {int(line.split(None, 1)[0]): line.split(None, 1)[1] for line in said.stdout.splitlines()}


async def server_that_dies(shop: Shop, *, lease: float = 60, delay: float = -1) -> str:
    """A server that makes one sandbox and is killed: right after, or `delay` seconds after it began."""
    spec = shop.spec()
    assert spec.checkout
    checkout = [str(spec.checkout.mirror), str(spec.checkout.golden), spec.checkout.base_commit, spec.checkout.branch]
    arguments = [shop.adapter.name, str(shop.folder / "sandboxes"), *checkout, spec.sandbox_id, str(lease), str(delay)]
    source = str(Path(__file__).parent.parent.parent / "src")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVER, *arguments, env={**os.environ, "PYTHONPATH": source}, stdout=subprocess.DEVNULL
    )
    assert await process.wait() == -signal.SIGKILL
    return spec.sandbox_id


async def test_a_sandbox_outlives_its_server_and_is_found_again(shop: Shop) -> None:
    name = await server_that_dies(shop)
    info = await shop.adapter.get(name)
    assert info
    assert info.life is Life.RUNNING
    assert (await shop.adapter.exec(name, ("true",))).exit_code == 0
    await shop.adapter.destroy(name)


async def test_a_sandbox_nobody_comes_back_for_ends_itself(shop: Shop) -> None:
    name = await server_that_dies(shop, lease=0.5)
    async with asyncio.timeout(20):
        info = await shop.adapter.wait(name)
    assert (info.life, info.reason) == (Life.EXITED, "lease_expired")
    await shop.adapter.destroy(name)


async def test_a_server_killed_at_any_instant_of_creation_leaves_a_state_that_can_be_finished_or_removed(
    shop: Shop,
) -> None:
    """The nothing_left check of the fixture is the other half of the claim."""
    for round_ in range(4):
        name = await server_that_dies(shop, delay=random.uniform(0, 0.15))
        info = await shop.adapter.get(name)
        if info and round_ % 2 and info.sandbox_id:
            spec = shop.spec(sandbox_id=name)
            assert (await shop.adapter.create(spec)).life in {Life.RUNNING, Life.LOST}
        await shop.adapter.destroy(name)
    await shop.adapter.list()


async def test_what_an_interrupted_creation_left_is_reaped(shop: Shop) -> None:
    root = shop.folder / "sandboxes"
    (root / ".new-x-abc" / "part").mkdir(parents=True)
    (root / ".gone-y-abc" / "part").mkdir(parents=True)
    assert await shop.adapter.list() == []
    assert [path.name for path in root.iterdir() if path.name != ".repositories"] == []


async def test_an_unfinished_creation_is_finished_by_creating_again(shop: Shop) -> None:
    spec = shop.spec()
    create = asyncio.create_task(shop.adapter.create(spec))
    folder = shop.folder / "sandboxes" / spec.sandbox_id
    while not folder.exists():  # noqa: ASYNC110 -- the folder appears in a thread
        await asyncio.sleep(0)
    create.cancel()
    await asyncio.wait([create])
    assert (await shop.adapter.create(spec)).life in {Life.RUNNING, Life.LOST}
    await shop.adapter.destroy(spec.sandbox_id)


async def test_a_killed_keeper_takes_its_sandbox_along_and_is_seen_as_lost(shop: Shop) -> None:
    """True state: right within 10 s of any crash; here within 2."""
    async with shop.running("sh", "-c", "setsid sleep 600 & sleep 600") as sandbox:
        began = time.monotonic()
        os.kill(support.keeper(sandbox), signal.SIGKILL)
        info = await sandbox.wait()
        assert info.life is Life.LOST
        assert time.monotonic() - began < 2
        if shop.capabilities.isolation is not Isolation.NONE:
            await support.until(lambda: not support.processes(sandbox.folder), 5)
        await shop.adapter.destroy(sandbox.id)
        assert not support.processes(sandbox.folder)


async def test_a_keeper_killed_while_a_command_runs_fails_the_command(shop: Shop) -> None:
    async with shop.running() as sandbox:
        await sandbox.said("true")
        task = asyncio.create_task(sandbox.sh("echo begun > begun; sleep 600"))
        await sandbox.said("until test -e begun; do sleep 0.01; done")
        os.kill(support.keeper(sandbox), signal.SIGKILL)
        with pytest.raises(Exception, match=r"ended|running"):
            async with asyncio.timeout(5):
                await task


async def test_a_lost_sandbox_is_not_started_twice(shop: Shop) -> None:
    async with shop.running() as sandbox:
        os.kill(support.keeper(sandbox), signal.SIGKILL)
        await sandbox.wait()
        assert (await shop.adapter.create(sandbox.spec)).life is Life.LOST


async def test_a_hung_keeper_does_not_stop_destruction(isolated: Shop) -> None:
    async with isolated.running() as sandbox:
        os.kill(support.keeper(sandbox), signal.SIGSTOP)
        await isolated.adapter.destroy(sandbox.id)
        assert not support.processes(sandbox.folder)


async def test_a_killed_bwrap_ends_the_sandbox(isolated: Shop) -> None:
    async with isolated.running() as sandbox:
        os.kill(next(iter(children(support.keeper(sandbox)))), signal.SIGKILL)
        info = await sandbox.wait()
        assert (info.life, info.exit_code) == (Life.EXITED, 137)


async def test_a_folder_taken_away_ends_its_sandbox(isolated: Shop) -> None:
    async with isolated.running() as sandbox:
        pid = support.keeper(sandbox)
        sandbox.folder.rename(sandbox.folder.with_name(".gone-by-hand"))
        await isolated.adapter.list()
        await support.until(lambda: not Path(f"/proc/{pid}").exists(), 15)


async def test_no_mount_and_no_control_group_is_left(shop: Shop) -> None:
    before = Path("/proc/self/mounts").read_text()
    async with shop.running() as one, shop.running() as two:
        assert Path("/proc/self/mounts").read_text() == before
        os.kill(support.keeper(two), signal.SIGKILL)
    for sandbox in (one, two):
        assert support.control_groups(sandbox.id) == []


async def test_a_control_group_whose_sandbox_is_gone_is_reaped(shop: Shop) -> None:
    async with shop.running() as sandbox:
        os.kill(support.keeper(sandbox), signal.SIGKILL)
        await sandbox.wait()
        groups = support.control_groups(sandbox.id)
        subprocess.run(["rm", "-rf", str(sandbox.folder)], check=False)  # noqa: ASYNC221 -- a careless operator
        await shop.adapter.list()
        assert not support.control_groups(sandbox.id), groups
        for pid in support.processes(sandbox.folder):
            os.kill(pid, signal.SIGKILL)


async def test_a_killed_helper_process_is_replaced(shop: Shop) -> None:
    async with shop.running():
        pass
    for pid, command in children(os.getpid()).items():
        if "spawner" in command:
            os.kill(pid, signal.SIGKILL)
    async with shop.running() as sandbox:
        assert await sandbox.said("echo fine") == "fine"


async def test_no_worktree_stays_registered_its_branch_stays_and_the_mirror_is_as_it_was(shop: Shop) -> None:
    async with shop.running() as sandbox:
        os.kill(support.keeper(sandbox), signal.SIGKILL)
    for repository in (shop.folder / "sandboxes" / ".repositories").glob("*.git"):
        assert sandbox.id not in support.git("worktree", "list", cwd=repository)
        assert f"feat/{sandbox.id}" in support.git("branch", "--list", cwd=repository)
    assert support.git("for-each-ref", "--format=%(refname)", cwd=shop.checkout.mirror) == "refs/heads/main"


@pytest.mark.parametrize("content", ["", "{}", '{"gate": 1, "owner": null, "cgroups": [], "what": 1}'])
async def test_a_plan_that_cannot_be_read_harms_nobody_else(shop: Shop, content: str) -> None:
    broken = shop.adapter.root / "broken"  # type: ignore[attr-defined]
    broken.mkdir(parents=True)
    (broken / "plan.json").write_text(content)
    async with shop.running() as sandbox:
        found = {info.sandbox_id: info for info in await shop.open_again().list()}
        assert found[sandbox.id].life is Life.RUNNING
        assert (found["broken"].life, "plan.json" in found["broken"].reason) == (Life.LOST, True)
        await shop.adapter.destroy("broken")
        assert not broken.exists()


async def test_a_plan_of_a_newer_version_is_understood(shop: Shop) -> None:
    """Keepers outlive the server that started them."""
    async with shop.running() as sandbox:
        plan = sandbox.folder / "plan.json"
        plan.write_text(json.dumps(json.loads(plan.read_text()) | {"from_the_future": 1}))
        info = await shop.open_again().get(sandbox.id)
        assert info
        assert info.life is Life.RUNNING


async def test_a_keeper_that_never_listens_is_ended_all_the_same(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_kept, "NOT_LISTENING_SECONDS", 0.5)
    async with shop.running() as sandbox:
        (sandbox.folder / "control").unlink()
        await shop.adapter.destroy(sandbox.id)
        assert not sandbox.folder.exists()
        assert not support.processes(sandbox.folder)
