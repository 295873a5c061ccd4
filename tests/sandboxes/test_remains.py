"""What is left of a halted sandbox can be read on the host, before it is removed. Any adapter must pass."""

from shopfloor.kit import trees
from shopfloor.sandboxes.port import Life
from tests.sandboxes.support import Shop


async def test_a_halted_sandbox_has_no_process_and_all_its_files(shop: Shop) -> None:
    async with shop.running() as sandbox:
        await sandbox.said("echo mine > mine.txt; rm README.md")
        for _ in range(2):
            await shop.adapter.halt(sandbox.id)
        info, left = await shop.adapter.get(sandbox.id), shop.open_again().remains(sandbox.id)
        assert info is not None
        assert info.life is not Life.RUNNING
        assert left is not None
        entries = {entry.path: entry.kind for entry in trees.survey(left.files, skip=b".git").entries}
        assert trees.read(left.files, b"mine.txt", 100) == b"mine\n"
        assert entries.get(b"README.md") == ("gone" if left.layered else None)
    assert shop.adapter.remains(sandbox.id) is None


async def test_its_commits_are_where_it_says(shop: Shop) -> None:
    async with shop.running() as sandbox:
        who = "git -c user.name=A -c user.email=a@b.invalid"
        sha = await sandbox.said(f"echo x > x; git add x; {who} commit -qm x; git rev-parse HEAD")
        await shop.adapter.halt(sandbox.id)
        left = shop.adapter.remains(sandbox.id)
        assert left is not None
        head = trees.read(left.git, b"HEAD", 200).decode().strip().removeprefix("ref: ")
        assert trees.read(left.common, head.encode(), 100).decode().strip() == sha
        loose = left.common / "objects" / sha[:2] / sha[2:]
        assert loose.stat().st_mtime >= left.since - 1


async def test_what_is_no_sandbox_has_no_remains(shop: Shop) -> None:
    await shop.adapter.halt(shop.new_id())
    assert shop.adapter.remains(shop.new_id()) is None
    assert shop.adapter.remains("../evil") is None
