"""What an order's agent is lent at the git gate: the base branch and its own work, never another order's, and nothing unchecked comes back."""

import io
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shopfloor.forges.mirrors.bundles import BundleRefused
from shopfloor.forges.mirrors.lending import Lent, NotForward, NothingNew, lent
from shopfloor.forges.service import Repositories
from tests.forges.support import Sandbox, commit, raw, sandbox
from tests.forges.test_hostile_bundle import REFUSED
from tests.support.platform import git


@pytest.fixture
async def box(house: Repositories, origin: Path) -> Sandbox:
    return await sandbox(house, origin)


@pytest.fixture
async def view(house: Repositories, origin: Path, box: Sandbox) -> AsyncIterator[Lent]:
    async with lent(
        house.place(str(origin)), branch=box.branch, base_branch="main", base_commit=box.base, tip=None
    ) as made:
        yield made


def pack(box: Sandbox, head: str, *without: str) -> io.FileIO:
    """What git sends with a push."""
    return packed(box, "--revs", "--thin", "--stdout", "-q", said="\n".join([head, *(f"^{one}" for one in without)]))


async def test_a_push_becomes_a_bundle_that_is_taken_like_any(
    house: Repositories, origin: Path, box: Sandbox, view: Lent
) -> None:
    head = box.commit()
    bundle = await view.take(pack(box, head, box.base), 1 << 20, head)
    assert (await house.import_bundle(str(origin), bundle, **box.request())).head == head


async def test_a_second_push_brings_only_what_is_new_and_its_bundle_is_whole(
    house: Repositories, origin: Path, box: Sandbox
) -> None:
    first = box.commit("one")
    await house.import_bundle(str(origin), box.bundle(), **box.request())
    second = box.commit("two", {"two.txt": "2\n"})
    place = house.place(str(origin))
    async with lent(place, branch=box.branch, base_branch="main", base_commit=box.base, tip=first) as view:
        assert view.heads == {"refs/heads/main": box.base, f"refs/heads/{box.branch}": first}
        bundle = await view.take(pack(box, second, first), 1 << 20, second)
        fresh = Repositories(house.root.parent / "another host")
        await fresh.sync(str(origin))
        assert (await fresh.import_bundle(str(origin), bundle, **box.request())).commits == 2


async def test_another_orders_commit_is_neither_fetched_nor_named(
    house: Repositories, origin: Path, box: Sandbox, view: Lent
) -> None:
    other = await sandbox(house, origin, "wo-2")
    secret = other.commit("secret", {"secret.txt": "of another order\n"})
    await house.import_bundle(str(origin), other.bundle(), **other.request())
    wish = f"want {secret} no-progress ofs-delta\n"
    with (view.folder / "answer").open("w+b", buffering=0) as answer:
        await view.answer(f"{len(wish) + 4:04x}{wish}00000009done\n".encode(), answer)
        answer.seek(0)
        assert b"not our ref" in answer.read()
    with pytest.raises(BundleRefused, match="does not bring"):
        await view.take(pack(box, box.base, box.base), 1 << 20, secret)


async def test_a_branch_that_was_not_offered_is_not_fetched_by_its_hash(
    house: Repositories, origin: Path, work: Path, box: Sandbox
) -> None:
    git("switch", "-q", "-c", "private", cwd=work)
    private = commit(work, "private", {"private.txt": "x\n"})
    git("push", "-q", str(origin), "private", cwd=work)
    await house.sync(str(origin))
    place, wish = house.place(str(origin)), f"want {private} no-progress ofs-delta\n"
    async with lent(place, branch=box.branch, base_branch="main", base_commit=box.base, tip=None) as view:
        with (view.folder / "answer").open("w+b", buffering=0) as answer:
            await view.answer(f"{len(wish) + 4:04x}{wish}00000009done\n".encode(), answer)
            answer.seek(0)
            assert b"not our ref" in answer.read()


async def test_what_is_here_is_not_taken_back(house: Repositories, origin: Path, box: Sandbox) -> None:
    first = box.commit("one")
    await house.import_bundle(str(origin), box.bundle(), **box.request())
    git("reset", "-q", "--hard", box.base, cwd=box.work)
    beside = box.commit("beside")
    place = house.place(str(origin))
    async with lent(place, branch=box.branch, base_branch="main", base_commit=box.base, tip=first) as view:
        with pytest.raises(NotForward):
            await view.take(pack(box, beside, box.base), 1 << 20, beside)


async def test_a_push_of_the_base_itself_is_nothing(box: Sandbox, view: Lent) -> None:
    with pytest.raises(NothingNew):
        await view.take(pack(box, box.base, box.base), 1 << 20, box.base)


async def test_a_tag_is_no_branch(box: Sandbox, view: Lent) -> None:
    head = box.commit()
    git("tag", "-a", "-m", "x", "v1", cwd=box.work)
    tag = git("rev-parse", "v1", cwd=box.work)
    with pytest.raises(BundleRefused):
        await view.take(pack(box, tag, box.base), 1 << 20, tag)
    assert head


@pytest.mark.parametrize("name", REFUSED)
async def test_a_hostile_push_is_refused_as_its_bundle_is(
    house: Repositories, origin: Path, box: Sandbox, view: Lent, name: str
) -> None:
    REFUSED[name](box)
    head = git("rev-parse", box.branch, cwd=box.work)
    hostile = whatever_there_is(box, head)

    async def pushed() -> None:
        bundle = await view.take(hostile, 1 << 20, head)
        await house.import_bundle(str(origin), bundle, **box.request())

    with pytest.raises(BundleRefused):
        await pushed()


def whatever_there_is(box: Sandbox, head: str) -> io.FileIO:
    """A pack of all that a head names and that exists: no plumbing of git's would leave out what is missing."""
    listed = raw(box.work, "rev-list", "--objects", "--missing=allow-any", head, f"^{box.base}", stdin=b"")
    names = [line.split(" ")[0] for line in listed.splitlines()]
    there = "\n".join(one for one in names if holds_object(box.work, one))
    return packed(box, "--stdout", "-q", said=there)


def holds_object(work: Path, name: str) -> bool:
    return subprocess.run(["git", "cat-file", "-e", name], cwd=work, check=False, capture_output=True).returncode == 0


def packed(box: Sandbox, *options: str, said: str) -> io.FileIO:
    place = box.work.parent / "some.pack"
    done = subprocess.run(
        ["git", "pack-objects", *options], cwd=box.work, input=said.encode(), check=True, capture_output=True
    )
    place.write_bytes(done.stdout)
    return io.FileIO(place)
