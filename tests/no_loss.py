"""No destroy loses a byte: `python -m tests.no_loss --seeds 20 [--first 0] [--sandbox local]`.

Each seed is a sandbox with real git, in which random work is done in random order (files, commits, amends, resets, stashes, repacks, hand-outs, events,
messages), by a process that may be killed in between. Then the sandbox is killed, and a process that concludes the attempt is killed with -9 at seeded
instants until one gets to its end. What was there at the kill must be found again: in what is delivered, in a pin, in the log.
"""

import argparse
import asyncio
import base64
import json
import multiprocessing
import os
import random
import shlex
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from shopfloor import app as application
from shopfloor.forges.rules import branch_name
from shopfloor.kit import log, schema
from shopfloor.kit.config import Settings
from shopfloor.kit.db import Database
from shopfloor.messages import service as messages
from shopfloor.sandboxes.port import Checkout, SandboxSpec
from shopfloor.workorders import queries, service
from shopfloor.workorders.rules import AttemptState
from shopfloor.workorders.steps import Tools
from shopfloor.workorders.steps.conclude import conclude
from shopfloor.workorders.steps.receive import import_commits
from shopfloor.workorders.steps.recover import bundle, kept
from tests.support.contents import tree_in, tree_of
from tests.support.platform import folder, git, sample_repository, until
from tests.support.shell_work import WHO, command

SANDBOXES = ("local", "git_branch", "git_worktree")
ORDINARY = ("write",) * 5 + ("delete", "link", "mode", "replace_folder", "commit", "commit", "amend", "reset", "branch")
RARE = ("detach", "stash", "repack", "soft", "stage", "hand_out", "hand_out", "event", "event", "spool", "spool", "say")
STEPS = 14
SLOWEST_CONCLUSION = 0.3
TAR = "tar -c --exclude=./.git ."
FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["tests.no_loss"])
Report = Callable[[dict[str, Any]], None]


@asynccontextmanager
async def house(place: Path) -> AsyncIterator[Tools]:
    """The product's own parts over one data directory, without servers."""
    settings = Settings(data_dir=place / "data", default_agent="script")
    await asyncio.to_thread(schema.upgrade, Database(settings.database))
    async with application.assemble(settings) as app:
        yield app.state.tools


async def set_up(tools: Tools, report: Report, place: Path, sandbox_type: str) -> None:
    """An order with a running sandbox, whose agent is us."""
    url = str(place / "origin.git")
    columns: dict[str, Any] = {
        "workflow_type": "agent_workflow_build",
        "sandbox_type": sandbox_type,
        "agent": "script",
        "agent_options": {},
    }
    limits: dict[str, Any] = {
        "max_attempts": 3,
        "timeout_seconds": 600.0,
        "allow_no_isolation": True,
        "initial_prompt": "Please",
    }
    base = await tools.repositories.resolve(url)
    async with tools.database.transaction() as session:
        order = await service.create(session, repository_url=url, **columns, **limits)
        attempt = await service.claim(session, tools.sandboxes, "engine-1")
        assert attempt
        order.base_branch, order.base_commit = base.branch, base.commit
        order.git_branch_name = branch_name(order.agent_work_order_id)
        for state in (AttemptState.PREPARING, AttemptState.RUNNING):
            await service.step_attempt(session, attempt, state)
        await tools.sandboxes.begin(session, attempt.sandbox_id)
    adapter = tools.sandboxes.adapter(sandbox_type)
    golden = await tools.repositories.golden(url, base.commit, adapter.owner)
    await tools.repositories.pin(url, golden, attempt.sandbox_id)
    spool = tools.settings.data_dir / "spools" / attempt.sandbox_id
    spool.mkdir(parents=True)
    if adapter.owner:
        os.chown(spool, *adapter.owner)
    code = Checkout(
        mirror=await tools.repositories.mirror(url),
        golden=golden,
        base_commit=base.commit,
        branch=order.git_branch_name,
    )
    spec = SandboxSpec(
        sandbox_id=attempt.sandbox_id,
        labels={"base_commit": base.commit},
        checkout=code,
        argv=("sleep", "1000"),
        env={},
        writable={"/spool": spool},
        allow_no_isolation=True,
    )
    await tools.sandboxes.start(sandbox_type, spec)
    async with tools.database.transaction() as session:
        await tools.sandboxes.started(session, attempt.sandbox_id, await adapter.capabilities())
    report({"attempt": attempt.attempt_id, "sandbox": attempt.sandbox_id, "order": order.agent_work_order_id})


async def work(tools: Tools, report: Report, told: dict[str, Any], seed: int, sandbox_type: str) -> None:
    """Do random things; report what was acknowledged."""
    dice, adapter, sandbox = random.Random(seed), tools.sandboxes.adapter(sandbox_type), told["sandbox"]
    for number in range(STEPS):
        verb = dice.choice(ORDINARY + RARE)
        if verb == "event":
            event = {"event_type": "agent.note", "event_data": {"n": number}, "seq": seed % 7 * 1000 + number + 1}
            await tools.ingest.post(sandbox, json.dumps(event).encode())
            report({"seq": event["seq"]})
        elif verb == "spool":
            event = {"event_type": "agent.note", "event_data": {"n": number}, "seq": seed % 7 * 1000 + number + 1}
            line = json.dumps({"kind": "event", "event": event})
            spool = str(tools.settings.data_dir / "spools" / sandbox) if sandbox_type != "local" else "/spool"
            await adapter.exec(sandbox, ("sh", "-c", f"echo {shlex.quote(line)} >> {spool}/outbox.jsonl"))
            report({"seq": event["seq"]})
        elif verb == "say":
            async with tools.database.transaction() as session:
                message = await messages.queue(session, sandbox, f"note {number}")
            report({"message": message.id})
        elif verb == "hand_out":
            await _hand_out(tools, told, sandbox_type)
        else:
            await adapter.exec(sandbox, ("sh", "-c", command(dice, verb)))
        report({"did": verb})


async def _hand_out(tools: Tools, told: dict[str, Any], sandbox_type: str) -> None:
    adapter, sandbox = tools.sandboxes.adapter(sandbox_type), told["sandbox"]
    async with tools.database.reading() as session:
        order = await queries.get(session, told["order"])
    script = f"{WHO} bundle create -q - {order.base_commit}..{order.git_branch_name}"
    made = await adapter.exec(sandbox, ("sh", "-c", script))
    if made.exit_code == 0:

        async def chunks() -> AsyncIterator[bytes]:
            yield made.stdout

        sha256, size = await tools.blobs.put(chunks(), limit=1 << 30)
        async with tools.database.transaction() as session:
            artifact = await service.add_artifact(session, sandbox, name="checkpoint.bundle", sha256=sha256, size=size)
        await import_commits(tools, artifact)


async def look(tools: Tools, report: Report, told: dict[str, Any], sandbox_type: str) -> None:
    """What there is in the sandbox, as it sees it itself."""
    adapter, sandbox = tools.sandboxes.adapter(sandbox_type), told["sandbox"]
    tree, before = await adapter.exec(sandbox, ("sh", "-c", TAR)), b""
    while tree.stdout != before:  # a command of a killed process may just come to its end
        tree, before = await adapter.exec(sandbox, ("sh", "-c", f"sleep 0.3; {TAR}")), tree.stdout
    shas = await adapter.exec(sandbox, ("sh", "-c", f"{WHO} rev-list --all --reflog HEAD"))
    assert tree.exit_code == 0, tree.stderr
    if sandbox_type == "git_worktree":  # other branches are in the shared repository, which stays
        shas = await adapter.exec(sandbox, ("sh", "-c", f"{WHO} log -g --format=%H HEAD"))
    report({"tree": base64.b64encode(tree.stdout).decode(), "commits": shas.stdout.decode().split()})


async def finish(tools: Tools, _report: Report, told: dict[str, Any]) -> None:
    """What the engine does with a lost attempt."""
    async with tools.database.transaction() as session:
        _, attempt = await queries.locked_attempt(session, told["attempt"])
        await service.step_attempt(session, attempt, AttemptState.LOST, reason="the sandbox died")
    await conclude(tools, told["attempt"])


async def recovered(tools: Tools, report: Report, told: dict[str, Any], place: Path) -> None:
    """The branch as a person gets it back."""
    async with tools.database.reading() as session:
        rows, _ = await queries.pins(session, told["order"])
        order = await queries.get(session, told["order"])
    report({"head": order.head_commit or order.base_commit, "notes": [row.note for row in rows if row.note]})
    branches = [row for row in rows if row.kind in {"commits", "files"}]
    if branches:
        async with bundle(tools, await kept(tools, branches[0]), "recovered") as (made, head):
            (place / "recovered.bundle").write_bytes(made.read_bytes())
        report({"head": head, "bundle": True})


async def _within(place: Path, job: Callable[..., Awaitable[None]], report: Report, arguments: tuple[Any, ...]) -> None:
    async with house(place) as tools:
        report({"began": job.__name__})
        await job(tools, report, *arguments)


def _child(place: Path, job: Callable[..., Awaitable[None]], pipe: int, arguments: tuple[Any, ...]) -> None:
    def report(fact: dict[str, Any]) -> None:
        with open(pipe, "ab", closefd=False) as out:
            out.write(json.dumps(fact).encode() + b"\n")

    log.configure("error", json=True)
    asyncio.run(_within(place, job, report, arguments))
    os._exit(0)


class Run:
    """One seed."""

    def __init__(self, place: Path, seed: int, sandbox_type: str) -> None:
        self.place, self.seed, self.type = place, seed, sandbox_type
        self.dice = random.Random(seed * 31 + 7)
        self.kills = 0
        self.stages: list[str] = []
        self.told = ""
        self.facts: list[dict[str, Any]] = []

    def child(
        self,
        job: Callable[..., Awaitable[None]],
        *arguments: Any,
        kill_after: float | None = None,
        when: Callable[[], bool] | None = None,
    ) -> bool:
        """Run a part in a process of its own, killed so many seconds after it began or `when` came true; answers whether it came to its end."""
        facts = self.place / f"facts-{len(list(self.place.glob('facts-*')))}"
        process = FORK.Process(target=_started, args=(self.place, job, facts, arguments))
        process.start()
        if kill_after is not None:
            until(lambda: (facts.exists() and facts.read_bytes()) or process.exitcode is not None, what="it to begin")
            while when and process.exitcode is None and not when():
                time.sleep(0.001)
        process.join(kill_after if kill_after is not None else 120)
        if process.exitcode is None:
            process.kill()
            process.join()
            self.kills += 1
            assert kill_after is not None, f"{job.__name__} hangs"
        told = facts.read_bytes() if facts.exists() else b""
        self.facts += [json.loads(line) for line in told[: told.rfind(b"\n") + 1].splitlines()[1:]]
        assert process.exitcode in {0, -9}, f"{job.__name__} failed"
        return process.exitcode == 0

    def play(self) -> str:
        """Work, kill, conclude under kills, compare; answers what happened in one line."""
        sample_repository(self.place)
        self.child(set_up, self.place, self.type)
        told = self.facts[0]
        kill_after = self.dice.uniform(0, 0.6) if self.dice.random() < 0.4 else None
        self.child(work, told, self.seed, self.type, kill_after=kill_after)
        self.child(look, told, self.type)
        truth = self.facts.pop()
        self.kill_sandbox()
        moments = self.dice.choices(["any", *self._moments(told)], k=3)
        for moment in moments:
            after = self.dice.uniform(0, SLOWEST_CONCLUSION if moment == "any" else 0.02)
            if not self.child(finish, told, kill_after=after, when=self._moments(told).get(moment)):
                self.stages.append(self._stage(told))
        assert self.child(finish, told)
        assert self.child(recovered, told, self.place)
        self._compare(told, truth)
        did = [fact["did"] for fact in self.facts if "did" in fact]
        found = f"{len(did)} steps, {self.kills} kills ({', '.join(self.stages)}), {len(truth['commits'])} commits"
        return f"seed {self.seed} {self.type}: {found}: all there"

    def _moments(self, told: dict[str, Any]) -> dict[str, Callable[[], bool]]:
        """Things to see from outside just when a crash would hurt: commits kept, archive stored, row written, folder going."""
        data, sandbox = self.place / "data", self.place / "data" / "sandboxes" / self.type
        return {
            "commits": lambda: any((data / "repositories").glob("*/orders.git/refs/shopfloor/pins/*/*/*")),
            "archive": lambda: any((data / "blobs").glob("??/*")),
            "row": lambda: self._stage(told) == "pinned",
            "going": lambda: any(sandbox.glob(".gone-*")) or not (sandbox / told["sandbox"]).exists(),
        }

    def _stage(self, told: dict[str, Any]) -> str:
        """How far the conclusion had come when it was killed."""
        with sqlite3.connect(self.place / "data" / "shopfloor.db", timeout=30) as database:
            pinned = database.execute("SELECT count(*) FROM pins").fetchone()[0]
            concluded = database.execute("SELECT concluded FROM attempts").fetchone()[0]
        there = (self.place / "data" / "sandboxes" / self.type / told["sandbox"]).exists()
        return "concluded" if concluded else "gone" if not there else "pinned" if pinned else "before"

    def kill_sandbox(self) -> None:
        """kill -9 of its keeper, at any place of its life."""
        mine = f"{self.place}/data/sandboxes/"
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                files = [os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")]
            except OSError:
                continue
            if any(file.startswith(mine) and file.endswith("/alive") for file in files):
                os.kill(int(pid), signal.SIGKILL)

    def _compare(self, told: dict[str, Any], truth: dict[str, Any]) -> None:
        ends = {key: fact[key] for fact in self.facts for key in ("head", "notes", "bundle") if key in fact}
        assert not [note for note in ends["notes"] if "missed" in note or "not complete" in note], ends["notes"]
        orders = next((self.place / "data" / "repositories").glob("*/orders.git"), None)
        store = orders or next((self.place / "data" / "repositories").glob("*/mirror.git"))
        named = set(git("rev-list", "--all", cwd=store).split())
        named |= set(git("rev-list", "--all", cwd=self.place / "origin.git").split())
        assert set(truth["commits"]) <= named, "a commit is nowhere"
        if "bundle" in ends:
            git("clone", "-q", "--bare", str(self.place / "origin.git"), str(self.place / "back.git"), cwd=self.place)
            git(
                "fetch",
                "-q",
                str(self.place / "recovered.bundle"),
                "+refs/heads/*:refs/heads/*",
                cwd=self.place / "back.git",
            )
            store = self.place / "back.git"
        assert tree_of(store, ends["head"]) == tree_in(base64.b64decode(truth["tree"]))
        self._log(told)

    def _log(self, told: dict[str, Any]) -> None:
        with sqlite3.connect(self.place / "data" / "shopfloor.db") as database:
            seqs = [row[0] for row in database.execute("SELECT seq FROM events WHERE seq IS NOT NULL")]
            kept_messages = {row[0] for row in database.execute("SELECT id FROM messages WHERE state = 'expired'")}
            prompts = database.execute("SELECT prompts FROM work_orders").fetchone()[0]
            state = database.execute("SELECT state FROM sandboxes").fetchone()[0]
            doubled = database.execute(
                "SELECT count(*) FROM pins GROUP BY sandbox_id, kind HAVING count(*) > 1"
            ).fetchall()
        said = [fact["message"] for fact in self.facts if "message" in fact]
        assert {fact["seq"] for fact in self.facts if "seq" in fact} <= set(seqs)
        assert len(seqs) == len(set(seqs))
        assert set(said) <= kept_messages
        assert len(json.loads(prompts)) >= len(said)
        assert state == "TERMINATED"
        assert not doubled
        assert not (self.place / "data" / "sandboxes" / self.type / told["sandbox"]).exists()


def _started(place: Path, job: Callable[..., Awaitable[None]], facts: Path, arguments: tuple[Any, ...]) -> None:
    pipe = os.open(facts, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    _child(place, job, pipe, arguments)


def play(seed: int, sandbox_type: str) -> Run:
    """One seed in a folder of its own."""
    with folder() as place:
        run = Run(place, seed, sandbox_type)
        try:
            run.told = run.play()
        finally:
            run.kill_sandbox()
    return run


def main() -> None:
    """Many seeds, one line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--sandbox", choices=SANDBOXES)
    wish = parser.parse_args()
    os.environ["PYTHONWARNINGS"] = "ignore::RuntimeWarning"  # children import this module a second time
    began, stages = time.monotonic(), Counter[str]()
    for seed in range(wish.first, wish.first + wish.seeds):
        run = play(seed, wish.sandbox or SANDBOXES[seed % 3])
        stages.update(run.stages)
        print(run.told, flush=True)
    print(f"{wish.seeds} seeds in {time.monotonic() - began:.0f} s: nothing lost; killed when it was {dict(stages)}")


if __name__ == "__main__":
    from tests.no_loss import main as named  # by this name the children find it loaded

    named()
