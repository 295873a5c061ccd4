"""Pinning what hostile, broken and odd sandboxes leave: nothing of it reaches beyond the sandbox, nothing hangs, and what is missing is said."""

import json
import os
import shutil
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from shopfloor.events.models import EventRow
from shopfloor.sandboxes.models import SandboxRow
from shopfloor.workorders import queries
from shopfloor.workorders.models import Pin, WorkOrder
from shopfloor.workorders.routes import git_progress
from shopfloor.workorders.steps import Tools
from shopfloor.workorders.steps.pin import pin
from tests.no_loss import finish, house, set_up
from tests.support.platform import folder, git, sample_repository
from tests.support.shell_work import WHO

SECRET = "a secret of the host"
ID = "-c user.name=A -c user.email=a@b.invalid"


class Bench:
    """A running sandbox of an order, to be made hostile and then concluded."""

    def __init__(self, tools: Tools, place: Path, told: dict[str, Any], sandbox_type: str) -> None:
        self.tools, self.place, self.told, self.type = tools, place, told, sandbox_type

    @property
    def upper(self) -> Path:
        """The work tree as it lies on the host."""
        remains = self.tools.sandboxes.adapter(self.type).remains(self.told["sandbox"])
        assert remains
        return remains.files

    @property
    def spool(self) -> Path:
        return self.tools.settings.data_dir / "spools" / str(self.told["sandbox"])

    @property
    def orders(self) -> Path:
        return next((self.place / "data" / "repositories").glob("*/orders.git"))

    async def sh(self, script: str) -> None:
        """Do something inside."""
        done = await self.tools.sandboxes.adapter(self.type).exec(self.told["sandbox"], ("sh", "-ec", script))
        assert done.exit_code == 0, done

    async def pins(self) -> dict[str, Pin]:
        """Conclude the attempt; answers what was pinned."""
        await finish(self.tools, lambda _: None, self.told)
        async with self.tools.database.reading() as session:
            rows, _ = await queries.pins(session, self.told["order"])
        return {row.kind: row for row in rows}

    def held(self, one: Pin) -> dict[str, bytes]:
        """Name -> content of what an archive holds; of links, where they point to."""
        found = {}
        with tarfile.open(self.tools.blobs.path(one.content), errors="surrogateescape") as archive:
            for info in archive:
                content = archive.extractfile(info) if info.isfile() else None
                found[info.name] = content.read() if content else info.linkname.encode()
        return found


@pytest.fixture
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    sandbox_type = getattr(request, "param", "local")
    with folder() as place:
        sample_repository(place)
        facts: list[dict[str, Any]] = []
        async with house(place) as tools:
            await set_up(tools, facts.append, place, sandbox_type)
            yield Bench(tools, place, facts[0], sandbox_type)
            await tools.sandboxes.adapter(sandbox_type).destroy(facts[0]["sandbox"])


HOSTILE = {
    "repository is a link": "rm -rf .git; ln -s /etc .git",
    "repository is a file that points away": "rm -rf .git; echo 'gitdir: /etc' > .git",
    "repository is gone": "rm -rf .git",
    "HEAD is a pipe": "rm .git/HEAD; mkfifo .git/HEAD",
    "HEAD is a link out": "rm .git/HEAD; ln -s /etc/passwd .git/HEAD",
    "HEAD names a path out": "echo 'ref: refs/heads/../../../../etc/passwd' > .git/HEAD",
    "a ref is a link out": "ln -s /etc/passwd .git/refs/heads/evil",
    "refs is a link out": "rm -rf .git/refs; ln -s /etc .git/refs",
    "objects is a link out": "rm -rf .git/objects; ln -s /proc .git/objects",
    "objects are borrowed from the host": "mkdir -p .git/objects/info; echo /etc > .git/objects/info/alternates",
    "configuration runs programs": "git config core.fsmonitor 'touch /tmp/ran'; git config core.hooksPath /tmp",
    "a filter runs programs": "git config filter.x.clean 'touch /tmp/ran'; echo '* filter=x' > .gitattributes",
    "a loose object is a pipe": "mkdir -p .git/objects/ab; mkfifo .git/objects/ab/" + "c" * 38,
    "a loose object is no object": "mkdir -p .git/objects/ab; echo x > .git/objects/ab/" + "c" * 38,
    "a pack is no pack": "mkdir -p .git/objects/pack; echo x > .git/objects/pack/pack-" + "a" * 40 + ".pack",
    "a ref names what is not there": "echo " + "b" * 40 + " > .git/refs/heads/ghost",
    "refs without end": "for i in $(seq 2000); do echo " + "b" * 40 + " > .git/refs/heads/r$i; done",
    "a huge log": "mkdir -p .git/logs; head -c 30000000 /dev/zero > .git/logs/HEAD",
    "a tree closed to everybody": "mkdir shut; echo x > shut/x; chmod 0 shut/x shut",
}


@pytest.mark.parametrize("trap", HOSTILE.values(), ids=HOSTILE)
async def test_whatever_the_repository_was_made_into_the_files_are_kept(bench: Bench, trap: str) -> None:
    await bench.sh(f"echo mine > mine.txt; {trap}")
    found = await bench.pins()
    held = bench.held(found["files"])
    assert held["files/mine.txt"] == b"mine\n"
    everything = b"".join(held.values())
    assert b"root:x:0:0" not in everything
    assert not (Path("/tmp") / "ran").exists()
    assert not (bench.tools.settings.data_dir / "sandboxes" / "local" / bench.told["sandbox"]).exists()


async def test_a_commit_whose_objects_are_missing_is_said_and_its_raw_objects_are_kept(bench: Bench) -> None:
    await bench.sh(
        f"echo a > a; git add a; git {ID} commit -qm whole; git branch whole; echo b > b; git add b; git {ID} commit -qm broken"
    )
    await bench.sh("git rev-parse HEAD^ > whole.id; rm -f .git/objects/$(git rev-parse HEAD:b | sed 's,^..,&/,')")
    found = await bench.pins()
    whole = bench.held(found["files"])["files/whole.id"].decode().strip()
    assert set(found["commits"].facts["heads"].values()) == {whole}
    assert "its raw objects are kept" in found["files"].note
    assert any(name.startswith("git/objects/") for name in bench.held(found["files"]))


async def test_a_commit_with_names_that_git_refuses_gets_in_nowhere(bench: Bench) -> None:
    script = (
        "blob=$(echo evil | git hash-object -w --stdin);"
        'tree=$(printf "100644 blob %s\\tconfig\\n" $blob | git mktree);'
        'root=$(printf "040000 tree %s\\t.GIT\\n" $tree | git mktree);'
        f"git update-ref refs/heads/evil $(git {ID} commit-tree $root -m evil)"
    )
    await bench.sh(script)
    evil = (bench.upper / ".git" / "refs" / "heads" / "evil").read_text().strip()
    found = await bench.pins()
    assert "commits" not in found
    assert "refs/heads/evil" in found["files"].note
    stores = (bench.place / "data" / "repositories").glob("*/*.git")
    for store in stores:
        with pytest.raises(Exception, match="cat-file"):
            git("cat-file", "-e", evil, cwd=store)


async def test_a_commit_of_more_files_than_can_be_listed_keeps_nothing_from_being_cleaned_up(bench: Bench) -> None:
    """A few trees that name each other stand for more files than the world has."""
    script = (
        "echo mine > mine.txt; entry=$(printf '100644 blob %s\\tf' $(echo x | git hash-object -w --stdin));"
        'for level in $(seq 12); do tree=$(for n in $(seq 10); do echo "${entry}$n"; done | git mktree);'
        "entry=$(printf '040000 tree %s\\td' $tree); done;"
        f"git update-ref HEAD $(git {ID} commit-tree $tree -p HEAD -m bomb)"
    )
    await bench.sh(script)
    bomb = (bench.upper / ".git" / "refs" / "heads" / f"feat-{bench.told['order']}").read_text().strip()
    found = await bench.pins()
    assert set(found["commits"].facts["heads"].values()) == {bomb}
    assert bench.held(found["files"])["files/mine.txt"] == b"mine\n"
    assert "more files than can be listed" in found["commits"].note


async def test_a_commit_of_another_order_is_not_taken_for_its_own(bench: Bench) -> None:
    """A name is no right: what another order committed must not become readable by naming it."""
    await bench.sh(f"echo a > a; git add a; git {ID} commit -qm other")
    other = (bench.upper / ".git" / "refs" / "heads" / f"feat-{bench.told['order']}").read_text().strip()
    await bench.pins()
    async with bench.tools.database.transaction() as session:
        await session.execute(sa.update(WorkOrder).values(status="failed"))  # so that it is not taken again
    facts: list[dict[str, Any]] = []
    await set_up(bench.tools, facts.append, bench.place, "local")
    second = Bench(bench.tools, bench.place, facts[0], "local")
    assert facts[0]["order"] != bench.told["order"]
    await second.sh(f"echo {other} > .git/refs/heads/stolen")
    found = await second.pins()
    assert "commits" not in found
    assert "refs/heads/stolen" in found["files"].note


async def test_a_repository_that_became_a_link_lends_no_commit_of_another_order(bench: Bench) -> None:
    """The link is followed by nobody, not on the way to what lies below it either."""
    await bench.sh(f"echo a > a; git add a; git {ID} commit -qm other")
    await bench.pins()
    async with bench.tools.database.transaction() as session:
        await session.execute(sa.update(WorkOrder).values(status="failed"))
    facts: list[dict[str, Any]] = []
    await set_up(bench.tools, facts.append, bench.place, "local")
    second = Bench(bench.tools, bench.place, facts[0], "local")
    await second.sh(f"echo mine > mine.txt; rm -rf .git; ln -s '{bench.orders}' .git")
    found = await second.pins()
    assert "commits" not in found
    assert ".git is a link" in found["files"].note
    assert second.held(found["files"])["files/mine.txt"] == b"mine\n"


@pytest.mark.parametrize("bench", ["git_branch", "git_worktree"], indirect=True)
async def test_without_isolation_links_to_the_host_are_not_followed_either(bench: Bench) -> None:
    secret = bench.place / "secret"
    secret.write_text(SECRET)
    (bench.upper / "soft").symlink_to(secret)
    os.link(secret, bench.upper / "hard")
    (bench.upper / "mine").write_text("mine")
    found = await bench.pins()
    held = bench.held(found["files"])
    assert {"files/soft", "files/mine"} <= held.keys()
    assert SECRET.encode() not in b"".join(held.values())
    assert "hard: has another name outside" in found["files"].note


SPOOLS = {
    "outbox is a link": lambda spool: (spool / "outbox.jsonl").symlink_to("/etc/passwd"),
    "outbox is a pipe": lambda spool: os.mkfifo(spool / "outbox.jsonl"),
    "outbox is no text": lambda spool: (spool / "outbox.jsonl").write_bytes(os.urandom(100_000)),
    "lines of other shapes": lambda spool: (spool / "outbox.jsonl").write_text('[]\n1\n"x"\n{}\n{"kind": []}\nnull\n'),
    "offset beyond the end": lambda spool: (spool / "outbox.offset").write_text('{"offset": 99999999999}'),
    "offset of another kind": lambda spool: (spool / "outbox.offset").write_text('{"offset": "0"}'),
    "offset is a list": lambda spool: (spool / "outbox.offset").write_text("[1]"),
    "upload of a host file": lambda spool: (spool / "outbox.jsonl").write_text(
        json.dumps({"kind": "upload", "name": "transcript", "file": "/etc/passwd", "head": None}) + "\n"
    ),
    "upload through a link": lambda spool: (
        (spool / "x").symlink_to("/etc/passwd"),
        (spool / "outbox.jsonl").write_text(
            json.dumps({"kind": "upload", "name": "transcript", "file": "/spool/x", "head": None}) + "\n"
        ),
    ),
    "events that only the platform says": lambda spool: (spool / "outbox.jsonl").write_text(
        json.dumps({"kind": "event", "event": {"event_type": "work_order.finished", "seq": 1}}) + "\n"
    ),
}


@pytest.mark.parametrize("trap", SPOOLS.values(), ids=SPOOLS)
async def test_a_hostile_spool_lends_nothing_of_the_host_and_stops_nothing(bench: Bench, trap: Any) -> None:
    trap(bench.spool)
    found = await bench.pins()
    held = {name: content for one in found.values() if one.content for name, content in bench.held(one).items()}
    assert b"root:x:0:0" not in b"".join(held.values())
    async with bench.tools.database.reading() as session:
        assert not await session.scalar(
            sa.select(sa.func.count()).select_from(EventRow).where(EventRow.seq.is_not(None))
        )


async def test_a_bad_event_does_not_keep_the_good_ones_out(bench: Bench) -> None:
    lines = [
        {"kind": "event", "event": {"event_type": t, "event_data": {}, "seq": n}}
        for n, t in enumerate(("a", "!", "b"), 1)
    ]
    (bench.spool / "outbox.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines) + '{"kind": "event", "ev'
    )
    found = await bench.pins()
    async with bench.tools.database.reading() as session:
        rows = await session.scalars(
            sa.select(EventRow.event_type).where(EventRow.seq.is_not(None)).order_by(EventRow.seq)
        )
        assert list(rows) == ["a", "b"]
    assert "an event that is not accepted" in found["spool"].note
    assert "spool/outbox.jsonl" in bench.held(found["spool"])


async def test_a_bundle_that_was_not_sent_is_what_the_next_attempt_starts_from(bench: Bench) -> None:
    await bench.sh(f"echo a > a; {WHO} add a; {WHO} commit -qm one")
    async with bench.tools.database.reading() as session:
        order = await queries.get(session, bench.told["order"])
    await bench.sh(f"git bundle create -q /spool/1-checkpoint.bundle {order.base_commit}..{order.git_branch_name}")
    upload = {"kind": "upload", "name": "checkpoint.bundle", "file": "/spool/1-checkpoint.bundle", "head": None}
    (bench.spool / "outbox.jsonl").write_text(json.dumps(upload) + "\n")
    found = await bench.pins()
    async with bench.tools.database.reading() as session:
        bundle = await queries.newest_bundle(session, order.agent_work_order_id)
        order = await queries.get(session, order.agent_work_order_id)
    assert bundle is not None
    assert bundle.imported
    assert bundle.head_commit == order.head_commit
    assert found == {}


async def test_the_sandbox_of_a_dead_host_is_said_to_be_out_of_reach_and_pinned_when_it_is_back(bench: Bench) -> None:
    await bench.sh("echo mine > mine.txt")
    sandbox = bench.told["sandbox"]
    async with bench.tools.database.transaction() as session:
        await session.execute(sa.update(SandboxRow).values(host_id="host-gone"))
    await pin(bench.tools, sandbox, "local", {}, "its host has had no living engine")
    async with bench.tools.database.transaction() as session:
        rows, _ = await queries.pins(session, bench.told["order"])
        await session.execute(sa.update(SandboxRow).values(host_id=bench.tools.sandboxes.host_id, state="TERMINATED"))
    assert [(row.kind, row.content) for row in rows] == [("note", "")]
    assert "its host host-gone cannot be reached" in rows[0].note
    assert await bench.tools.sandboxes.reap() == [sandbox]
    async with bench.tools.database.reading() as session:
        rows, _ = await queries.pins(session, bench.told["order"])
    assert bench.held(next(row for row in rows if row.kind == "files"))["files/mine.txt"] == b"mine\n"


async def test_a_sandbox_that_no_order_knows_is_pinned_before_it_is_reaped(bench: Bench) -> None:
    await bench.sh("echo mine > mine.txt")
    async with bench.tools.database.transaction() as session:
        for table in ("attempts", "sandboxes"):
            await session.execute(sa.text(f"DELETE FROM {table}"))
    assert await bench.tools.sandboxes.reap() == [bench.told["sandbox"]]
    async with bench.tools.database.reading() as session:
        rows, _ = await queries.pins(session, None)
    assert [row.work_order_id for row in rows] == [None]
    assert bench.held(rows[0])["files/mine.txt"] == b"mine\n"


async def test_where_the_mirror_is_gone_the_repository_is_kept_as_it_lies(bench: Bench) -> None:
    await bench.sh(f"echo a > a; {WHO} add a; {WHO} commit -qm one")
    shutil.rmtree(next((bench.place / "data" / "repositories").glob("*/mirror.git")))
    found = await bench.pins()
    held = bench.held(found["files"])
    assert held["files/a"] == b"a\n"
    assert any(name.startswith("git/refs/heads/") for name in held)


async def test_what_its_gate_refused_to_the_last_is_told_before_a_sandbox_goes(bench: Bench) -> None:
    line = {"at": 1.0, "method": "CONNECT", "target": "evil.example:443", "why": "it is not on the allow list"}
    (bench.upper.parent.parent / "denied.jsonl").write_text(json.dumps(line) + "\n")
    await bench.tools.sandboxes.terminate(bench.told["sandbox"], reason="deleted by a person", grace_seconds=0)
    async with bench.tools.database.reading() as session:
        told = (await session.scalars(sa.select(EventRow).where(EventRow.event_type == "egress.denied"))).all()
    assert ["evil.example:443" in one.payload for one in told] == [True]


async def test_progress_is_told_as_it_was_counted_where_another_host_has_the_commits(bench: Bench) -> None:
    counted = {"head_commit": "c" * 40, "git_commit_count": 3, "git_files_changed": 2}
    async with bench.tools.database.transaction() as session:
        await session.execute(sa.update(WorkOrder).values(counted))
    told = await git_progress(bench.told["order"], bench.tools)
    assert (told.git_commit_count, told.git_files_changed, told.latest_commit_sha) == (3, 2, "c" * 40)


async def test_no_more_than_allowed_is_kept_and_the_rest_is_named(bench: Bench) -> None:
    bench.tools.settings.retention.pin_bytes = 1000
    await bench.sh("head -c 400 /dev/urandom > small; head -c 5000 /dev/urandom > large; truncate -s 3G sparse")
    found = await bench.pins()
    assert [name for name in bench.held(found["files"]) if name.startswith("files/")] == ["files/small"]
    assert "large: 5000 bytes are more" in found["files"].note
    assert f"sparse: {3 << 30} bytes are more" in found["files"].note


async def test_pinning_again_adds_nothing(bench: Bench) -> None:
    await bench.sh(f"echo a > a; {WHO} add a; {WHO} commit -qm one; echo b > b")
    await bench.tools.sandboxes.adapter("local").halt(bench.told["sandbox"])
    for _ in range(3):
        await pin(bench.tools, bench.told["sandbox"], "local", {}, "again")
    async with bench.tools.database.reading() as session:
        rows, total = await queries.pins(session, bench.told["order"])
    assert (total, sorted(row.kind for row in rows)) == (2, ["commits", "files"])


async def test_commits_kept_by_a_process_that_died_before_it_wrote_so_are_written_down(bench: Bench) -> None:
    """Seen by the property test: the references were there, so the commits counted as handed out and no pin told of them."""
    await bench.sh(f"echo a > a; {WHO} add a; {WHO} commit -qm one")
    sandbox = bench.told["sandbox"]
    await bench.tools.sandboxes.adapter("local").halt(sandbox)
    await pin(bench.tools, sandbox, "local", {}, "first")
    async with bench.tools.database.transaction() as session:
        await session.execute(sa.delete(Pin))
    assert "commits" in await bench.pins()
