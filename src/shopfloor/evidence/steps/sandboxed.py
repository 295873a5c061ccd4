"""Run one shell line on one commit in a sandbox of its own: no token, no worker, no credential, and no network unless the check asks for it.

Everything inside runs as one user, so that what runs in it can rewrite the memory of any process that the kernel lets it look into: also of
the sandbox's process 1, whose exit code is the sandbox's. So the line runs below a shell that nobody may read, which the kernel lets nobody
look into, and which alone knows a word that it says when the line ended with 0. Without the word an exit code of 0 is worth nothing.
"""

import asyncio
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from shopfloor.evidence import rules
from shopfloor.evidence.models import CheckRun
from shopfloor.evidence.queries import Finding
from shopfloor.evidence.steps import Bench
from shopfloor.kit import git
from shopfloor.kit.errors import Misconfigured
from shopfloor.sandboxes.port import Adapter, Checkout, Gate, Isolation, Life, SandboxInfo, SandboxSpec

SHOWN = 4000
"""Letters of the end of the output that a row of the ledger holds."""
SEARCHED = 64 << 10
MOST_OUTPUT = 2 << 20
NO_DOOR = Path("/nonexistent/door")
"""Where a check that may reach some hosts finds our API: nowhere."""
SHELL, WORD = "/opt/shopfloor/sh", "/opt/shopfloor/word"
WITNESS = f"""read -r word < {WORD} && : > {WORD} || exit 125
(unset word; eval "$1"); code=$?
[ "$code" = 0 ] && printf '\\n%s\\n' "$word"
exit "$code"
"""
LEASE_SECONDS = 120.0
"""How much longer than its timeout a sandbox lives whose engine died."""


class NotIsolated(Misconfigured):
    """Checks cannot run in this sandbox type, as it does not isolate."""

    hint = "Set sandbox of [checks] to one that does, such as local."


async def run_line(bench: Bench, run: CheckRun, item: Mapping[str, Any], timeout: float) -> tuple[Finding, str]:
    """Run an item's line to its end or its timeout; answers what that means, and the end of what it printed. Raises what git and the adapter raise."""
    assert run.sandbox_id
    adapter = bench.sandboxes.adapter(bench.settings.checks.sandbox)
    # What an earlier check left would be attached to, and its end taken for this one's.
    await bench.sandboxes.remove(run.sandbox_id, adapter.name, reason="made anew")
    word = secrets.token_hex(32)
    spec = await _spec(bench, adapter, run, item, timeout)
    began = time.monotonic()
    try:
        _write_word(word_file(bench, run.sandbox_id), word, adapter.owner)
        await bench.sandboxes.start(adapter.name, spec)
        async with bench.database.transaction() as session:
            await bench.sandboxes.started(session, run.sandbox_id, await adapter.capabilities())
        ended, late = await _ended(adapter, run.sandbox_id, timeout)
        output = await asyncio.to_thread(adapter.output, run.sandbox_id)
    finally:
        await bench.sandboxes.remove(run.sandbox_id, adapter.name, reason="its check ended")
        word_file(bench, run.sandbox_id).unlink(missing_ok=True)
    said = f"\n{word}\n".encode()
    witnessed, output = said in output, output.replace(said, b"")
    known = ended if ended and ended.life == Life.EXITED else None
    verdict, reason = rules.judge(
        exit_code=known.exit_code if known else None,
        ended_by=known.reason if known else "",
        timed_out_after=timeout if late else None,
        witnessed=witnessed,
    )
    sha256 = await _keep(bench, output)
    took = int((time.monotonic() - began) * 1000)
    text = output[-SEARCHED:].decode(errors="replace")
    return Finding(verdict, reason, _shown(output), sha256, took), text


async def _ended(adapter: Adapter, sandbox_id: str, timeout: float) -> tuple[SandboxInfo | None, bool]:
    """How it ended, and whether it had to be ended for being late."""
    try:
        async with asyncio.timeout(timeout):
            return await adapter.wait(sandbox_id), False
    except TimeoutError:
        await adapter.halt(sandbox_id)
        return await adapter.get(sandbox_id), True


async def _spec(bench: Bench, adapter: Adapter, run: CheckRun, item: Mapping[str, Any], timeout: float) -> SandboxSpec:
    if (await adapter.capabilities()).isolation == Isolation.NONE:
        raise NotIsolated(f"sandbox type {adapter.name!r} does not isolate what runs in it")
    assert run.sandbox_id
    url = run.repository_url
    ground = await bench.repositories.golden(url, run.commit, adapter.owner)
    await bench.repositories.pin(url, ground, run.sandbox_id)
    return SandboxSpec(
        sandbox_id=run.sandbox_id,
        labels={"purpose": "check", "run_id": run.run_id},
        checkout=Checkout(
            mirror=await bench.repositories.mirror(url), golden=ground, base_commit=run.commit, branch="check"
        ),
        argv=(SHELL, "-c", WITNESS, "check", item["line"]),
        env=rules.surroundings(item["line"]),
        read_only={SHELL: await asyncio.to_thread(_shell, bench.settings.data_dir / "witness")},
        writable={WORD: word_file(bench, run.sandbox_id)},
        gate=None if item.get("allow") is None else Gate(api_socket=NO_DOOR, allow=frozenset(item["allow"])),
        lease_seconds=timeout + LEASE_SECONDS,
    )


def _shell(folder: Path) -> Path:
    """A copy of the shell that may be run and not read: the kernel lets nobody look into a process of such a program. Blocks."""
    place = folder / "sh"
    if not place.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = folder / f"sh-{secrets.token_hex(4)}"
        shutil.copyfile(os.path.realpath("/bin/sh"), part)
        part.chmod(0o111)
        part.rename(place)
    return place


def word_file(bench: Bench, sandbox_id: str) -> Path:
    """Where the shell of a run's sandbox finds its word; emptied before the line runs."""
    return bench.settings.data_dir / "witness" / sandbox_id


def _write_word(place: Path, word: str, owner: tuple[int, int] | None) -> None:
    place.write_text(f"{word}\n")
    place.chmod(0o600)
    if owner:
        os.chown(place, *owner)


async def _keep(bench: Bench, output: bytes) -> str | None:
    async def once() -> AsyncIterator[bytes]:
        yield output

    return (await bench.blobs.put(once(), limit=MOST_OUTPUT))[0] if output else None


def _shown(output: bytes) -> str:
    return git.clean(output[-SHOWN:])
