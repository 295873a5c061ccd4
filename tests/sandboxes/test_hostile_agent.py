"""An agent that wants out. Every adapter that declares isolation must give it nothing; those that declare none are exempt."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from shopfloor.kit.errors import Unavailable
from shopfloor.sandboxes.adapters._keeper import seccomp
from shopfloor.sandboxes.adapters._keeper.keeper import Keeper
from shopfloor.sandboxes.adapters._keeper.plan import Plan
from shopfloor.sandboxes.port import Gate, Life, Limits
from tests.sandboxes import support
from tests.sandboxes.support import Shop

MIB = 1 << 20


def calls(*numbers_and_arguments: tuple[int, ...]) -> str:
    """A program that makes system calls and prints the error of each."""
    return (
        "python3 -c 'import ctypes; libc = ctypes.CDLL(None, use_errno=True)\n"
        f"for call in {list(numbers_and_arguments)!r}:\n"
        "  ctypes.set_errno(0); libc.syscall(*call); print(ctypes.get_errno())'"
    )


async def test_it_is_nobody_on_the_host(isolated: Shop) -> None:
    async with isolated.running() as sandbox:
        status = await sandbox.said("grep -E '^(Cap(Eff|Prm|Bnd|Amb)|NoNewPrivs|Seccomp):' /proc/self/status")
        facts = {line.split(":")[0]: line.split()[1] for line in status.splitlines()}
        assert await sandbox.said("id -u; id -un") == "1000\nagent"
        assert {int(facts[f"Cap{kind}"], 16) for kind in ("Eff", "Prm", "Bnd", "Amb")} == {0}
        assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")
        await sandbox.said("touch mine")
        assert sandbox.info.workspace
        assert (sandbox.info.workspace / "mine").stat().st_uid != 0


async def test_it_sees_nothing_of_the_host(isolated: Shop, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    async with isolated.running() as sandbox:
        assert (await sandbox.sh(f"cat {tmp_path}/secret")).exit_code == 1
        assert await sandbox.said("ls -A /root /home/agent /var /srv /mnt 2>/dev/null | grep -v : || true") == ""
        seen = (await sandbox.said("ls /")).split()
        assert set(seen) <= {
            "bin", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32", "proc", "run", "sbin", "tmp", "usr", "workspace", "opt",
        }  # fmt: skip
        assert "shadow" not in await sandbox.said("ls /etc")


async def test_it_sees_only_its_own_processes(isolated: Shop) -> None:
    async with isolated.running() as sandbox:
        pids = (await sandbox.said("ls /proc | grep -c '^[0-9]'")).strip()
        assert int(pids) < 15


async def test_no_environment_of_the_host_can_be_read(isolated: Shop) -> None:
    os.environ["PARENT_SECRET"] = "s3cret-of-the-parent"
    async with isolated.running() as sandbox:
        result = await sandbox.sh("cat /proc/*/environ /proc/*/cmdline | tr '\\0' '\\n'")
    assert b"s3cret" not in result.stdout


async def test_it_can_write_nothing_but_its_own_folders(isolated: Shop) -> None:
    script = "for f in / /usr /etc /dev /proc /sys /run /in /opt /usr/bin /etc/passwd; do (echo x > $f/x) 2>/dev/null && echo $f; done; true"
    async with isolated.running(read_only={"/in/job.json": Path(__file__)}) as sandbox:
        assert await sandbox.said(script) == ""
        assert (await sandbox.sh("echo x >> /in/job.json")).exit_code != 0


async def test_it_cannot_unmount_remount_or_open_a_namespace(isolated: Shop) -> None:
    async with isolated.running() as sandbox:
        script = "umount /workspace; mount -o remount,rw /; unshare -Ur true; unshare -m true; nsenter -t 1 -a true; chroot / true"
        for part in script.split(";"):
            assert (await sandbox.sh(part)).exit_code != 0, part


async def test_dangerous_system_calls_are_refused(isolated: Shop) -> None:
    machine = os.uname().machine
    if machine not in seccomp.MACHINES:
        pytest.skip("no filter for this machine")
    column = seccomp.MACHINES[machine][0]
    names = (
        "bpf",
        "io_uring_setup",
        "keyctl",
        "ptrace",
        "userfaultfd",
        "perf_event_open",
        "setns",
        "mount",
        "open_by_handle_at",
    )
    async with isolated.running() as sandbox:
        said = await sandbox.said(calls(*((seccomp.DENIED[n][column], 0, 0, 0, 0, 0) for n in names)))
        assert said.split() == ["1"] * len(names)
        said = await sandbox.said(calls((seccomp.CLONE[column], seccomp.CLONE_NEWUSER | signal.SIGCHLD, 0, 0, 0, 0)))
        assert said == "1"
        said = await sandbox.said(calls((seccomp.CLONE3[column], 0, 0), (seccomp.IOCTL[column], 0, 0x5412, 0)))
        assert said.split() == ["38", "1"]
        said = await sandbox.said(calls(*((seccomp.SOCKET[column], family, 2, 0) for family in (17, 38, 40))))
        assert said.split() == ["97"] * 3


@pytest.mark.alone
async def test_a_fork_bomb_harms_only_itself(isolated: Shop) -> None:
    bomb = "python3 -c 'import os\nwhile True:\n try: os.fork()\n except OSError: pass'"
    async with isolated.running(limits=Limits(processes=64)) as sandbox:
        task = asyncio.create_task(sandbox.sh(bomb, timeout=1.5))
        await asyncio.sleep(0.7)
        assert len(support.processes(sandbox.folder.parent)) < 80
        async with isolated.running() as other:
            assert await other.said("echo fine") == "fine"
        await task
        await isolated.adapter.stop(sandbox.id, grace_seconds=0)
    assert not support.processes(sandbox.folder.parent)


async def test_the_process_limit_of_one_is_not_anothers(isolated: Shop) -> None:
    """The count is per sandbox, though all run as one user of the host."""
    full = "python3 -c 'import os, time\nfor i in range(60): os.fork() or (time.sleep(30), os._exit(0))\nprint(1)'"
    async with (
        isolated.running(limits=Limits(processes=100)) as one,
        isolated.running(limits=Limits(processes=100)) as two,
    ):
        answers = await asyncio.gather(*(sandbox.sh(full, timeout=1) for sandbox in (one, two)))
    assert [answer.stdout for answer in answers] == [b"1\n"] * 2


@pytest.mark.parametrize("place", ["/tmp", "/dev/shm", "/home/agent"])
async def test_memory_cannot_be_filled_through_files(isolated: Shop, place: str) -> None:
    async with isolated.running(limits=Limits(tmp=8 * MIB)) as sandbox:
        result = await sandbox.sh(f"head -c 200000000 /dev/zero > {place}/fill")
        assert result.exit_code != 0
        assert int(await sandbox.said(f"stat -c %s {place}/fill")) <= 8 * MIB


async def test_it_cannot_kill_or_trace_its_keeper(isolated: Shop) -> None:
    async with isolated.running() as sandbox:
        pid = support.keeper(sandbox)
        await sandbox.sh(f"kill -9 {pid}; kill -9 1; kill -TERM 1; cat /proc/1/mem")
        os.kill(pid, 0)
        assert await sandbox.said("echo fine") == "fine"


async def test_a_rewritten_process_1_does_not_outlive_its_end(isolated: Shop) -> None:
    """Process 1 runs as the agent's user, who may be able to change it; so nobody relies on what it promised."""
    async with isolated.running() as sandbox:
        first = int((sandbox.folder / "first").read_text().split()[0])
        assert Path(f"/proc/{first}/status").read_text().count("NSpid")
        await isolated.adapter.stop(sandbox.id, grace_seconds=0)
        assert not Path(f"/proc/{first}").exists() or "Z" in Path(f"/proc/{first}/stat").read_text().split(")")[1][:3]


async def test_killing_everything_inside_ends_only_the_sandbox(isolated: Shop) -> None:
    async with isolated.running("sh", "-c", "kill -9 -1") as sandbox:
        assert (await sandbox.wait()).life is Life.EXITED
    async with isolated.running() as other:
        assert await other.said("echo fine") == "fine"


async def test_killing_the_exec_service_gives_an_error_not_a_hang(isolated: Shop) -> None:
    async with isolated.running() as sandbox, asyncio.timeout(30):
        await sandbox.said("true")
        with contextlib.suppress(Unavailable):
            assert (await sandbox.sh("kill -9 $(pgrep -f exec.py)", timeout=20)).exit_code == 137
        with pytest.raises(Unavailable):
            await sandbox.sh("true")
        info = await isolated.adapter.get(sandbox.id)
        assert info
        assert info.life is Life.RUNNING


JUNK = [b"x", b"[]", b"{}", b"null", b"[" * 4000, b'{"id": 1}', b'{"id": "x", "exit_code": [], "timed_out": 0}', b"\xff\xfe",
        b'{"id": 1e999, "exit_code": 1, "timed_out": 0}', b'{"id": 1, "exit_code": Infinity, "timed_out": 0}']  # fmt: skip


@pytest.mark.parametrize("junk", JUNK)
def test_garbage_on_the_keepers_channel_is_dropped(junk: bytes) -> None:
    """The agent is as strong as the service inside, so it may say what it likes to the keeper."""
    limits = {"processes": 1, "memory": 1, "disk": 1, "tmp": 1}
    plan = Plan(sandbox_id="x", labels={}, argv=[], env={}, directory="/", watched=[], **limits)  # type: ignore[arg-type]
    keeper = Keeper(plan, -1)
    keeper.began = True
    keeper.channel, agent = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with keeper.channel, agent, keeper.events:
        agent.send(junk)
        keeper._heard()


async def test_no_file_of_the_host_is_open_inside(isolated: Shop) -> None:
    look = "import os\nfor n in sorted(os.listdir('/proc/self/fd'), key=int):\n try: print(n, os.readlink('/proc/self/fd/' + n))\n except OSError: pass"
    out = isolated.new_folder()
    script = f'python3 -c "{look}" > /out/fds'
    await isolated.ended("sh", "-c", script, writable={"/out": out}, gate=Gate(api_socket=out / "api"))
    opened = [line.split()[0] for line in (out / "fds").read_text().splitlines() if "/proc/" not in line]
    assert opened == ["0", "1", "2"]


async def test_a_mount_inside_hostile_content_is_refused(isolated: Shop) -> None:
    for path in ("/workspace/x", "/home/agent/.ssh", "/workspace", "/tmp/x", "/in/../etc", "relative", "/"):
        with pytest.raises(Exception, match=r"path|write"):
            await isolated.adapter.create(isolated.spec(read_only={path: Path(__file__)}))


async def test_it_does_not_reach_the_golden_checkout(isolated: Shop) -> None:
    async with isolated.running() as sandbox:
        await sandbox.said(
            "git config core.fsmonitor 'touch /tmp/x'; echo evil > .git/hooks/post-checkout; git gc -q; rm -rf .git"
        )
    assert (isolated.checkout.golden / ".git" / "HEAD").exists()
    assert "fsmonitor" not in (isolated.checkout.golden / ".git" / "config").read_text()
    assert sys.executable  # the host's own Python was never asked


PLAIN_USER = """
import asyncio, os, sys
from pathlib import Path
from shopfloor.sandboxes.adapters import local
from shopfloor.sandboxes.port import Checkout, Gate, Life, Limits, SandboxSpec

BOMB = "import os\\ntry:\\n while os.fork() >= 0: pass\\nexcept OSError: pass\\nimport time; time.sleep(60)"

def read(path):
    try:
        return path.read_text()
    except OSError:
        return ""

async def main(folder):
    golden, out = folder / "golden", folder / "out"
    golden.mkdir(); out.mkdir(); (golden / "a").write_text("hello"); (golden / ".git").mkdir()
    adapter = local.create(folder / "sandboxes", local.Config())
    assert adapter.owner is None
    limits = (await adapter.capabilities()).limits
    assert (limits["processes"], limits["memory"]) == ("rlimit", "watchdog"), limits
    def spec(name, *argv, **more):
        return SandboxSpec(sandbox_id=name, labels={}, argv=argv, env={}, writable={"/out": out},
                           checkout=Checkout(mirror=golden, golden=golden, base_commit="0" * 40, branch="b"), **more)
    await adapter.create(spec("a", "sh", "-c", "cat a > /out/a; echo x > a; sleep 60", gate=Gate(api_socket=folder / "api")))
    result = await adapter.exec("a", ("sh", "-c", "id -u; cat a; touch /usr/x /etc/x; mkdir shut; chmod 0 shut"))
    assert result.stdout == b"1000\\nx\\n", result
    assert (out / "a").read_text() == "hello" and (golden / "a").read_text() == "hello"
    bombs = [spec(name, "python3", "-c", BOMB, limits=Limits(processes=64)) for name in ("b", "c")]
    for bomb in bombs:
        await adapter.create(bomb)
    def mine():
        return sum(1 for s in Path("/proc").glob("[0-9]*/status") if f"Uid:\\t{os.getuid()}\\t" in read(s))
    async with asyncio.timeout(20):
        while mine() < 110:
            await asyncio.sleep(0.05)
    assert mine() < 160, mine()
    assert (await adapter.exec("a", ("true",))).exit_code == 0
    hog = "x = bytearray(300 << 20); import time; time.sleep(60)"
    await adapter.create(spec("d", "python3", "-c", hog, limits=Limits(memory=64 << 20)))
    assert (await adapter.wait("d")).reason == "memory_limit"
    fill = "mkdir s; for i in 1 2 3 4 5; do head -c 4000000 /dev/urandom > s/$i; done; chmod 0 s; sleep 60"
    await adapter.create(spec("e", "sh", "-c", fill, limits=Limits(disk=12 << 20)))
    assert (await adapter.wait("e")).reason == "disk_limit"
    await adapter.stop("a", grace_seconds=0)
    assert (await adapter.get("a")).life is Life.EXITED
    for name in "abcde":
        await adapter.destroy(name)
    assert list((folder / "sandboxes").iterdir()) == []
    print("all well")

asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="the whole suite runs as a plain user already")
@pytest.mark.alone
def test_a_plain_user_gets_the_same_without_any_control_group() -> None:
    """In a mount namespace of its own the interpreter's folder is shown to that user at its own path, which may be root's alone."""
    base, site = sys.base_prefix, next(path for path in sys.path if path.endswith("site-packages"))
    source = str(Path(__file__).parent.parent.parent / "src")
    with tempfile.TemporaryDirectory(prefix="shopfloor-plain-") as folder:
        Path(folder).chmod(0o755)
        for name in ("py", "site", "src", "own"):
            (Path(folder) / name).mkdir()
        os.chown(f"{folder}/own", 65534, 65534)
        show = [f"mount --bind '{s}' {folder}/{n}" for n, s in (("py", base), ("site", site), ("src", source))]
        top = "/".join(base.split("/")[:2])
        if not os.stat(top).st_mode & 1:
            show += [
                f"mount -t tmpfs -o mode=755 none {top}",
                f"mkdir -p '{base}'",
                f"mount --bind {folder}/py '{base}'",
            ]
        run = f'cd / && exec setpriv --reuid=65534 --regid=65534 --clear-groups {base}/bin/python3 -c "$0" {folder}/own'
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", " && ".join([*show, run]), PLAIN_USER],
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": f"{folder}/src:{folder}/site",
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.stdout == "all well\n", done.stderr[-3000:]


async def test_the_number_of_files_is_limited(isolated: Shop) -> None:
    """A file system runs out of files as it does of bytes."""
    many = "mkdir m && cd m && seq 25000 | xargs touch && sleep 60"
    info = await isolated.ended("sh", "-c", many, limits=Limits(disk=32 << 20))
    assert info.reason == "file_limit"
