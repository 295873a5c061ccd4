"""Trying the local sandbox for real: each finding was run, not guessed from versions."""

import asyncio
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from shopfloor.kit import git, ids
from shopfloor.kit.errors import Problem
from shopfloor.sandboxes.adapters import _limits as limits
from shopfloor.sandboxes.adapters.local import bubblewrap
from shopfloor.sandboxes.port import Checkout, Finding, Gate, SandboxInfo, SandboxSpec

if TYPE_CHECKING:
    from shopfloor.sandboxes.adapters.local import Local

PROBE = """test "$(id -u)" = 1000 || exit 10
test "$(cat lower)" = golden || exit 11
echo changed > lower && echo new > upper || exit 12
test "$(git branch --show-current)" = doctor && git add -A || exit 13
test ! -e /root && test ! -e /var/lib || exit 14
"""
ANSWERS = {
    10: "the user inside is not the one asked for",
    11: "the code below the overlay cannot be read",
    12: "the workspace cannot be written",
    13: "git does not work inside",
    14: "folders of the host can be seen inside",
}
WEAK = {"rlimit", "watchdog"}
PLACES = {"processes": "pids", "memory": "memory"}


async def examine(adapter: "Local") -> list[Finding]:
    """Find bubblewrap, start a sandbox over a small checkout, look at the limits."""
    try:
        found = await asyncio.to_thread(bubblewrap.find)
    except bubblewrap.NoBubblewrap as problem:
        return [Finding(name="bubblewrap", ok=False, detail=problem.message, fix=problem.hint)]
    findings = [Finding(name="bubblewrap", ok=True, detail=f"{found.version} at {found.program}")]
    findings.append(await _start(adapter))
    return [*findings, *await asyncio.to_thread(_limits)]


async def _start(adapter: "Local") -> Finding:
    name = ids.new("doctor")
    with tempfile.TemporaryDirectory(prefix="shopfloor-doctor-") as folder:
        golden = Path(folder) / "golden"
        golden.mkdir()
        (golden / "lower").write_text("golden")
        await git.run("init", "-q", "--template=", "-b", "main", str(golden))
        if adapter.owner:
            for path in (golden, *golden.rglob("*")):
                os.chown(path, *adapter.owner)
        spec = SandboxSpec(
            sandbox_id=name,
            labels={"purpose": "doctor"},
            checkout=Checkout(mirror=golden, golden=golden, base_commit="0" * 40, branch="doctor"),
            argv=("/bin/sh", "-c", PROBE),
            env={},
            gate=Gate(api_socket=Path(folder) / "api"),
            lease_seconds=30,
        )
        try:
            await adapter.create(spec)
            ended = await adapter.wait(name)
        except Problem as problem:
            return Finding(name="sandbox", ok=False, detail=problem.message, fix=problem.hint)
        finally:
            await adapter.destroy(name)
    return _verdict(ended)


def _verdict(ended: SandboxInfo) -> Finding:
    if ended.exit_code == 0:
        return Finding(name="sandbox", ok=True, detail="user namespace, overlay, network gate and git work inside")
    said = ANSWERS.get(ended.exit_code or 0, f"it ended with exit code {ended.exit_code} {ended.reason}".strip())
    return Finding(name="sandbox", ok=False, detail=said, fix="Look at dmesg and at the owner of the data folder.")


def _limits() -> list[Finding]:
    weak = {limit: by for limit, by in limits.in_force(isolated=True).items() if limit in PLACES and by in WEAK}
    if not weak:
        return [Finding(name="limits", ok=True, detail="processes and memory are held by control groups")]
    said = ", ".join(f"{limit} by {by}" for limit, by in weak.items())
    fix = "Delegate a control group to the server (systemd: Delegate=yes) for limits that hold at once."
    return [Finding(name="limits", ok=True, detail=f"held without control groups: {said}", fix=fix)]
