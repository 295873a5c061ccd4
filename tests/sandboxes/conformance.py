"""What any sandbox provider must pass. Inherit the classes in a test module and give a fixture `shop` (see support.Shop).

Expectations follow from what an adapter declares in its `capabilities()`:
- isolation none: it must refuse to work without `allow_no_isolation`; everything in test_hostile_agent.py and test_network.py
  that needs isolation is skipped.
- a limit whose enforcer is "" is not tested; any other must hold.
"""

import asyncio
import hashlib
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from shopfloor.kit.errors import Conflict, Forbidden, Malformed, NotFound, Problem
from shopfloor.sandboxes.port import Isolation, Life, Workspace
from shopfloor.sandboxes.port import Limits as SandboxLimits
from tests.sandboxes import support
from tests.sandboxes.support import Shop

MIB = 1 << 20


class Conformance:
    """Life of a sandbox. Requirements LIF-01 to LIF-09, AWM-03, FLT-02, pitfall W15."""

    async def test_the_code_is_there_on_the_branch(self, shop: Shop) -> None:
        async with shop.running() as sandbox:
            said = await sandbox.said(
                "cat README.md; git rev-parse HEAD; git branch --show-current; git status --porcelain"
            )
        assert sandbox.spec.checkout
        assert said.split("\n") == ["hello", shop.checkout.base_commit, sandbox.spec.checkout.branch]

    async def test_the_workspace_may_be_empty(self, shop: Shop) -> None:
        async with shop.running(checkout=None) as sandbox:
            assert await sandbox.said("ls -A") == ""

    async def test_commits_can_be_made_and_bundled(self, shop: Shop) -> None:
        out = shop.new_folder()
        async with shop.running(writable={"/out": out}) as sandbox:
            commit = "git -c user.name=A -c user.email=a@b.invalid commit -qm"
            await sandbox.said(f"echo new > new && git add new && {commit} second")
            await sandbox.said(
                f"git bundle create -q '{sandbox.path('/out')}/b' {shop.checkout.base_commit}..HEAD 2>&1"
            )
        support.git("-c", "safe.directory=*", "bundle", "verify", "-q", str(out / "b"), cwd=shop.checkout.mirror)

    async def test_work_inside_changes_nothing_it_started_from(self, shop: Shop) -> None:
        async with shop.running() as sandbox:
            await sandbox.said("echo changed > README.md; rm 'größe 😀.txt'; mkdir new; echo x > new/y")
            assert (shop.checkout.golden / "README.md").read_text() == "hello\n"
            assert (shop.checkout.golden / "größe 😀.txt").exists()

    @pytest.mark.parametrize(
        ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -15 $$", 143)]
    )
    async def test_the_exit_code_is_the_main_programs(self, shop: Shop, script: str, code: int) -> None:
        info = await shop.ended("sh", "-c", script)
        assert (info.life, info.exit_code, info.reason) == (Life.EXITED, code, "")

    async def test_a_program_that_does_not_exist_ends_with_127(self, shop: Shop) -> None:
        assert (await shop.ended("/no/such/program")).exit_code == 127

    async def test_a_path_in_argv_is_the_one_of_the_spec(self, shop: Shop) -> None:
        script = shop.new_folder("in") / "job.sh"
        script.write_text("exit 5\n")
        assert (await shop.ended("sh", "/in/job.sh", read_only={"/in/job.sh": script})).exit_code == 5

    async def test_creating_again_attaches_and_starts_nothing(self, shop: Shop) -> None:
        out = shop.new_folder()
        spec = shop.spec(writable={"/out": out})
        script = f"echo once >> '{shop.adapter.view(spec).path('/out')}/starts'; sleep 600"
        async with shop.running("sh", "-c", script, writable={"/out": out}) as sandbox:
            await support.until((out / "starts").exists)
            again = await shop.open_again().create(sandbox.spec)
            assert again.life is Life.RUNNING
            assert (out / "starts").read_text() == "once\n"

    async def test_creating_an_ended_one_again_reports_its_end(self, shop: Shop) -> None:
        async with shop.running("sh", "-c", "exit 4") as sandbox:
            await sandbox.wait()
            assert (await shop.adapter.create(sandbox.spec)).exit_code == 4

    async def test_what_cannot_be_created_leaves_nothing(self, shop: Shop) -> None:
        checkout = replace(shop.checkout, mirror=shop.folder / "none", golden=shop.folder / "none")
        spec = shop.spec(checkout=checkout)
        with pytest.raises(Problem):
            await shop.adapter.create(spec)
        assert await shop.adapter.get(spec.sandbox_id) is None

    async def test_two_servers_creating_the_same_id_get_one_sandbox(self, shop: Shop) -> None:
        spec = shop.spec()
        infos = await asyncio.gather(*(a.create(spec) for a in (shop.adapter, shop.open_again(), shop.adapter)))
        assert {info.life for info in infos} == {Life.RUNNING}
        await shop.adapter.destroy(spec.sandbox_id)

    async def test_a_new_server_sees_the_same_facts(self, shop: Shop) -> None:
        """W15: nothing is known from memory alone."""
        async with shop.running() as sandbox:
            other = shop.open_again()
            seen = await other.get(sandbox.id)
            assert seen is not None
            assert (seen.life, seen.labels) == (Life.RUNNING, {"order": "wo-1"})
            assert sandbox.id in [info.sandbox_id for info in await other.list()]
            assert (await other.exec(sandbox.id, ("true",))).exit_code == 0

    async def test_what_does_not_exist_is_none(self, shop: Shop) -> None:
        assert await shop.adapter.get("no-such") is None
        assert await shop.adapter.get("../etc") is None
        with pytest.raises(NotFound):
            await shop.adapter.wait("no-such")

    @pytest.mark.parametrize("name", ["../up", "UP", "", "-x", "a/b", "x" * 101])
    async def test_an_id_cannot_leave_the_folder(self, shop: Shop, name: str) -> None:
        with pytest.raises(Malformed):
            await shop.adapter.create(shop.spec(sandbox_id=name))

    async def test_waiting_wakes_at_the_end(self, shop: Shop) -> None:
        """True within half a second, in a server that did not start it."""
        async with shop.running() as sandbox:
            waiting = asyncio.create_task(shop.open_again().wait(sandbox.id))
            await asyncio.sleep(0)
            await shop.adapter.stop(sandbox.id, grace_seconds=0)
            async with asyncio.timeout(0.5):
                assert (await waiting).life is Life.EXITED

    async def test_stop_asks_first(self, shop: Shop) -> None:
        """LIF-09: a graceful end is possible."""
        out = shop.new_folder()
        script = 'trap "exit 9" TERM; echo ready > "$OUT/ready"; while :; do sleep 0.05; done'
        spec = shop.spec(writable={"/out": out})
        env = {"OUT": shop.adapter.view(spec).path("/out")}
        async with shop.running("sh", "-c", script, writable={"/out": out}, env=env) as sandbox:
            await support.until((out / "ready").exists)
            await shop.adapter.stop(sandbox.id, grace_seconds=10)
            info = await shop.adapter.get(sandbox.id)
        assert info
        assert (info.life, info.exit_code, info.reason) == (Life.EXITED, 9, "stopped")

    async def test_stop_does_not_take_no(self, shop: Shop) -> None:
        """LIF-07, FLT-02: force follows grace."""
        out = shop.new_folder()
        spec = shop.spec(writable={"/out": out})
        env = {"OUT": shop.adapter.view(spec).path("/out")}
        script = 'trap "" TERM; echo ready > "$OUT/ready"; while :; do sleep 0.05; done'
        async with shop.running("sh", "-c", script, writable={"/out": out}, env=env) as sandbox:
            await support.until((out / "ready").exists)
            await shop.adapter.stop(sandbox.id, grace_seconds=0.2)
            assert (await sandbox.wait()).exit_code == 137

    async def test_stopping_the_ended_is_fine(self, shop: Shop) -> None:
        async with shop.running("true") as sandbox:
            await sandbox.wait()
            await shop.adapter.stop(sandbox.id)

    async def test_destroying_twice_is_fine_and_keeps_the_writable_folders(self, shop: Shop) -> None:
        out = shop.new_folder()
        async with shop.running(writable={"/out": out}) as sandbox:
            await sandbox.said(f"echo kept > '{sandbox.path('/out')}/kept'")
            for _ in range(2):
                await shop.adapter.destroy(sandbox.id)
            assert await shop.adapter.get(sandbox.id) is None
        assert (out / "kept").read_text() == "kept\n"

    async def test_a_lease_nobody_renews_ends_the_sandbox(self, shop: Shop) -> None:
        """LIF-08: no stale sandbox."""
        info = await shop.ended(lease_seconds=0.3)
        assert (info.life, info.reason) == (Life.EXITED, "lease_expired")

    async def test_a_renewed_lease_holds(self, shop: Shop) -> None:
        async with shop.running(lease_seconds=0.6) as sandbox:
            await shop.adapter.renew(sandbox.id, 60)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.2):
                    await shop.adapter.wait(sandbox.id)

    async def test_nothing_of_the_servers_environment_is_inside(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FORGE_TOKEN", "s3cret")
        async with shop.running(env={"GIVEN": "yes"}) as sandbox:
            said = await sandbox.said("env")
        assert "GIVEN=yes" in said
        assert "s3cret" not in said

    async def test_no_command_line_on_the_host_shows_the_environment(self, shop: Shop) -> None:
        async with shop.running(env={"TOKEN": "sfs_very-secret"}):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    assert b"sfs_very-secret" not in path.read_bytes()
                except OSError:
                    continue

    async def test_no_orphan_outlives_the_main_program(self, shop: Shop) -> None:
        out = shop.new_folder()
        spec = shop.spec(writable={"/out": out})
        env = {"OUT": shop.adapter.view(spec).path("/out")}
        script = 'setsid sh -c \'trap "" TERM HUP; while :; do date > "$OUT/beat"; sleep 0.02; done\' & until test -e "$OUT/beat"; do :; done'
        await shop.ended("sh", "-c", script, writable={"/out": out}, env=env)
        (out / "beat").unlink()
        await asyncio.sleep(0.1)
        assert not (out / "beat").exists()

    async def test_a_talkative_program_is_not_held_up(self, shop: Shop) -> None:
        info = await shop.ended("sh", "-c", "head -c 8000000 /dev/zero; head -c 8000000 /dev/zero >&2")
        assert info.exit_code == 0

    async def test_what_it_printed_is_kept_outside_whole_up_to_a_mebibyte(self, shop: Shop) -> None:
        async with shop.running("sh", "-c", "echo out; echo err >&2") as sandbox:
            await sandbox.wait()
            assert shop.adapter.output(sandbox.id) == b"out\nerr\n"
        assert shop.adapter.output(sandbox.id) == b""

    async def test_of_more_the_beginning_and_the_end_are_kept(self, shop: Shop) -> None:
        talk = "echo begin; head -c 9000000 /dev/zero | tr '\\0' x; echo end"
        async with shop.running("sh", "-c", talk) as sandbox:
            await sandbox.wait()
            kept = shop.adapter.output(sandbox.id)
        assert (kept[:6], kept[-4:], b" bytes left out]\n" in kept) == (b"begin\n", b"end\n", True)
        assert len(kept) < 1_200_000

    async def test_a_hostile_tree_is_removed_and_its_links_are_not_followed(self, shop: Shop) -> None:
        precious = shop.new_folder("precious")
        (precious / "file").write_text("mine")
        async with shop.running() as sandbox:
            await sandbox.said(
                f"ln -s '{precious}' link; ln -s / root; mkdir -p shut/in; echo x > shut/in/f; chmod 000 shut/in shut;"
                "python3 -c \"import os\nfor i in range(1500): os.mkdir('d'); os.chdir('d')\"; printf x > \"$(printf '\\377\\n')\""
            )
            await shop.adapter.destroy(sandbox.id)
            assert not sandbox.folder.exists()
        assert (precious / "file").read_text() == "mine"

    async def test_many_can_be_made_at_once(self, shop: Shop) -> None:
        specs = [shop.spec() for _ in range(8)]
        infos = await asyncio.gather(*(shop.adapter.create(spec) for spec in specs))
        assert [info.life for info in infos] == [Life.RUNNING] * 8
        await asyncio.gather(*(shop.adapter.destroy(spec.sandbox_id) for spec in specs))

    async def test_no_isolation_only_by_explicit_flag(self, shop: Shop) -> None:
        spec = shop.spec("true", allow_no_isolation=False)
        if shop.capabilities.isolation is not Isolation.NONE:
            await shop.adapter.create(spec)
            await shop.adapter.destroy(spec.sandbox_id)
            return
        with pytest.raises(Forbidden) as refused:
            await shop.adapter.create(spec)
        assert "allow_no_isolation" in refused.value.hint

    async def test_a_sandbox_costs_less_than_two_mebibytes(self, shop: Shop) -> None:
        async with shop.running() as sandbox:
            if shop.capabilities.workspace is Workspace.OVERLAY:
                used = sum(p.lstat().st_blocks * 512 for p in sandbox.folder.rglob("*"))
                assert used < 2 * MIB

    async def test_the_doctor_finds_it_well(self, shop: Shop) -> None:
        findings = await shop.adapter.doctor()
        assert findings
        assert [f for f in findings if not f.ok] == []


class Commands:
    """Commands run beside the main program."""

    async def test_streams_and_exit_code_are_apart(self, shop: Shop) -> None:
        async with shop.running() as sandbox:
            result = await sandbox.sh("echo out; echo err >&2; exit 3")
        assert (result.exit_code, result.stdout, result.stderr) == (3, b"out\n", b"err\n")

    async def test_any_bytes_go_through(self, shop: Shop) -> None:
        sent = "größe 😀 \r\n".encode() + bytes(range(256))
        async with shop.running() as sandbox:
            assert (await sandbox.sh("cat", stdin=sent)).stdout == sent

    async def test_names_may_be_unicode(self, shop: Shop) -> None:
        async with shop.running() as sandbox:
            assert await sandbox.said("cat 'größe 😀.txt'") == "ünïcode"

    async def test_huge_files_go_in_and_out_whole(self, shop: Shop) -> None:
        data = os.urandom(MIB) * 64
        async with shop.running() as sandbox:
            said = await sandbox.said("cat > huge; sha256sum < huge", stdin=data)
        assert said.split()[0] == hashlib.sha256(data).hexdigest()

    async def test_output_is_capped_and_drained(self, shop: Shop) -> None:
        async with shop.running() as sandbox:
            result = await sandbox.sh("head -c 30000000 /dev/zero")
        assert (result.exit_code, len(result.stdout)) == (0, 10 * MIB)

    async def test_the_command_gets_its_environment(self, shop: Shop) -> None:
        async with shop.running(env={"A": "1", "B": "1"}) as sandbox:
            assert await sandbox.said('echo "$A $B"', env={"B": "2"}) == "1 2"

    async def test_a_missing_program_is_127(self, shop: Shop) -> None:
        async with shop.running() as sandbox:
            assert (await shop.adapter.exec(sandbox.id, ("/no/such",))).exit_code == 127

    async def test_death_by_signal_is_128_and_more(self, shop: Shop) -> None:
        async with shop.running() as sandbox:
            assert (await sandbox.sh("kill -15 $$")).exit_code == 128 + signal.SIGTERM

    async def test_a_timeout_kills_all_children(self, shop: Shop) -> None:
        beat = "trap '' TERM HUP INT; while :; do date > beat; sleep 0.02; done"
        async with shop.running() as sandbox:
            result = await sandbox.sh(
                f'sh -c "{beat}" & setsid sh -c "{beat}" & (setsid sh -c "{beat}" &) ; wait', timeout=0.7
            )
            assert (result.exit_code, result.timed_out) == (124, True)
            await sandbox.said("rm beat")
            await asyncio.sleep(0.1)
            assert (await sandbox.sh("test -e beat")).exit_code == 1

    async def test_a_daemon_that_holds_the_output_does_not_hold_the_answer(self, shop: Shop) -> None:
        async with shop.running() as sandbox, asyncio.timeout(10):
            assert await sandbox.said("sleep 60 & echo started") == "started"

    async def test_a_caller_that_goes_away_ends_its_command(self, shop: Shop) -> None:
        async with shop.running() as sandbox:
            task = asyncio.create_task(sandbox.sh("while :; do date > beat; sleep 0.02; done"))
            assert await sandbox.said("until test -e beat; do sleep 0.01; done; echo seen") == "seen"
            task.cancel()
            await asyncio.wait([task])
            script = "rm -f beat; sleep 0.1; test -e beat"
            for _ in range(50):
                if (await sandbox.sh(script)).exit_code == 1:
                    break
            else:
                pytest.fail("the command runs on")

    async def test_many_commands_at_once_get_their_own_answers(self, shop: Shop) -> None:
        async with shop.running() as sandbox:
            said = await asyncio.gather(*(sandbox.said(f"echo {n}") for n in range(20)))
        assert said == [str(n) for n in range(20)]

    async def test_an_ended_sandbox_runs_nothing(self, shop: Shop) -> None:
        async with shop.running("true") as sandbox:
            await sandbox.wait()
            with pytest.raises(Conflict):
                await sandbox.sh("true")


class Limits:
    """What a sandbox may use."""

    async def test_too_much_disk_ends_it(self, shop: Shop) -> None:
        limits = SandboxLimits(disk=16 * MIB)
        fill = "i=0; while :; do i=$((i+1)); head -c 4000000 /dev/urandom > fill$i; done"
        info = await shop.ended("sh", "-c", fill, limits=limits)
        assert info.reason == "disk_limit"

    async def test_what_is_hidden_from_its_owner_counts_as_well(self, shop: Shop) -> None:
        limits = SandboxLimits(disk=16 * MIB)
        script = "mkdir shut; for i in 1 2 3 4 5 6; do head -c 4000000 /dev/urandom > shut/$i; done; chmod 000 shut; sleep 60"
        assert (await shop.ended("sh", "-c", script, limits=limits)).reason == "disk_limit"

    async def test_one_file_cannot_be_larger_than_the_disk(self, shop: Shop) -> None:
        async with shop.running(limits=SandboxLimits(disk=16 * MIB)) as sandbox:
            assert (await sandbox.sh("truncate -s 1G sparse")).exit_code != 0

    async def test_too_much_memory_ends_the_program(self, shop: Shop) -> None:
        if not shop.capabilities.limits["memory"]:
            pytest.skip("declares no memory limit")
        hog = ("python3", "-c", "import time; x = bytearray(400 << 20); time.sleep(60)")
        info = await shop.ended(*hog, limits=SandboxLimits(memory=100 * MIB))
        assert info.exit_code == 137

    async def test_a_fork_bomb_is_held(self, shop: Shop) -> None:
        if not shop.capabilities.limits["processes"]:
            pytest.skip("declares no process limit")
        bomb = "import os\ntry:\n while os.fork() >= 0: pass\nexcept OSError: pass\nimport time; time.sleep(60)"
        async with shop.running("python3", "-c", bomb, limits=SandboxLimits(processes=40)) as sandbox:
            await asyncio.sleep(0.5)
            assert len(support.processes(sandbox.folder.parent)) < 60

    async def test_limits_are_declared(self, shop: Shop) -> None:
        assert set(shop.capabilities.limits) == {"processes", "memory", "disk", "cpu", "tmp"}
