"""Sandboxes: 50 created, committed in, bundled and destroyed, against a bare script that does the same with bubblewrap alone."""

import asyncio
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from tests.support.platform import git

from shopfloor.kit import plugins
from shopfloor.sandboxes.port import Adapter, Checkout, SandboxSpec

COUNT = 50
FILES = 10_000
WORK = (
    "cd /workspace && git checkout -q -B work && echo $$ > mine.txt && git add mine.txt && "
    "git -c user.name=a -c user.email=a@a.invalid commit -qm work && git bundle create -q /out/r.bundle HEAD~1..work"
)


def repository(folder: Path, files: int = FILES) -> Path:
    """A clean checkout of that many small files, which stays clean for git when its owner changes, as Shopfloor's own do."""
    golden = folder / "golden"
    for number in range(files):
        place = golden / f"d{number % 100}" / f"f{number}.txt"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"{number}\n" * 20)
    git("init", "-q", cwd=golden)
    git("config", "core.checkStat", "minimal", cwd=golden)
    git("config", "core.trustctime", "false", cwd=golden)
    git("add", "-A", cwd=golden)
    git("commit", "-qm", "first", cwd=golden)
    return golden


def give(path: Path, owner: tuple[int, int] | None) -> None:
    """Hand a tree to the adapter's user."""
    if owner:
        subprocess.run(["chown", "-R", f"{owner[0]}:{owner[1]}", str(path)], check=True)


def bare(folder: Path, golden: Path, number: int) -> None:
    """What a shell script would do: overlay, bubblewrap, the same work, clean up."""
    from shopfloor.sandboxes.adapters.local import bubblewrap

    found = bubblewrap.find()
    place = folder / f"bare-{number}"
    for part in ("upper", "work", "out"):
        (place / part).mkdir(parents=True)
    overlay = ["--overlay-src", str(golden), "--overlay", str(place / "upper"), str(place / "work"), "/workspace"]
    root = ["--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib"]
    links = ["--symlink", "usr/lib64", "/lib64", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    command = [str(found.program), "--unshare-all", "--die-with-parent", *root, *links, *overlay]
    command += ["--bind", str(place / "out"), "/out", "sh", "-c", WORK]
    environment = {**os.environ, "HOME": "/tmp", "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory"}
    environment |= {"GIT_CONFIG_VALUE_0": "*", "LD_LIBRARY_PATH": str(found.libraries or "")}
    subprocess.run(command, check=True, env=environment)
    subprocess.run(["chmod", "-R", "u+rwx", str(place)], check=True)
    shutil.rmtree(place)


def disk(place: Path) -> int:
    """Bytes a folder takes."""
    return int(subprocess.run(["du", "-s", "-B1", str(place)], check=True, capture_output=True).stdout.split()[0])


async def ours(adapter: Adapter, folder: Path, golden: Path, number: int, *, commit: str, weigh: bool = False) -> int:
    """The same through the adapter."""
    out = folder / f"out-{number}"
    out.mkdir()
    give(out, adapter.owner)
    spec = SandboxSpec(
        sandbox_id=f"bench-{number}",
        labels={},
        checkout=Checkout(mirror=golden, golden=golden, base_commit=commit, branch="work"),
        argv=("sh", "-c", WORK),
        env={},
        writable={"/out": out},
    )
    await adapter.create(spec)
    info = await adapter.wait(spec.sandbox_id)
    assert info.exit_code == 0, info
    used = disk(folder / "sandboxes") + disk(out) if weigh else 0
    await adapter.destroy(spec.sandbox_id)
    return used


async def measure(folder: Path) -> None:
    module = plugins.load("shopfloor.sandboxes.adapters", "local")
    adapter = module.create(folder / "sandboxes", module.Config())
    golden = await asyncio.to_thread(repository, folder)
    (folder / "sandboxes").mkdir(exist_ok=True)
    commit = git("rev-parse", "HEAD", cwd=golden)
    times: dict[str, list[float]] = {"bare": [], "ours": []}
    for number in range(COUNT):
        give(golden, None)
        began = time.perf_counter()
        await asyncio.to_thread(bare, folder, golden, number)
        times["bare"].append(time.perf_counter() - began)
    give(golden, adapter.owner)
    for number in range(COUNT):
        began = time.perf_counter()
        await ours(adapter, folder, golden, number, commit=commit)
        times["ours"].append(time.perf_counter() - began)
    size = await ours(adapter, folder, golden, COUNT, commit=commit, weigh=True)
    total = {name: sum(values) for name, values in times.items()}
    print(f"{COUNT} sandboxes over {FILES} files, one after the other (target: at most 2x, at most 2 MiB each)")
    for name, values in times.items():
        print(f"  {name:5} {total[name]:6.2f} s in all, median {statistics.median(values) * 1e3:6.1f} ms")
    print(f"  ratio {total['ours'] / total['bare']:.2f}x; disk of one: {size / 2**20:.2f} MiB")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="sf-bench-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        asyncio.run(measure(folder))


if __name__ == "__main__":
    main()
