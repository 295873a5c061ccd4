"""What differs between a work tree and a commit: over any trees, the commit and the archive together are the work tree again."""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from shopfloor.kit import trees
from shopfloor.workorders import leftovers
from shopfloor.workorders.leftovers import Archive, Ground, Left, compare, path_of, within
from shopfloor.workorders.rules import FINISHED, expired

NAMES = st.sampled_from([b"a", b"b", b"c", b"d/a", b"d/b", b"d/e/a", b"e/a", b"n\xff"])
CONTENTS = st.binary(max_size=20)
TREES = st.dictionaries(NAMES, CONTENTS)


def blob(content: bytes) -> tuple[str, str]:
    return "100644", hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def ground(tip: dict[bytes, bytes], base: dict[bytes, bytes]) -> Ground:
    differ = {p: blob(base[p]) if p in base else None for p in tip.keys() | base.keys() if tip.get(p) != base.get(p)}
    return Ground("1" * 40, "2" * 40, {path: blob(content) for path, content in tip.items()}, differ)


def write(root: Path, files: dict[bytes, bytes]) -> None:
    for path, content in files.items():
        place = os.path.join(os.fsencode(root), path)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "wb") as file:
            file.write(content)


def restored(left: Left, root: Path, tip: dict[bytes, bytes], base: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """The work tree, made again from the commit, its base and the archive alone."""
    place = root.parent / "archive.tar.gz"
    facts = {"gone": left.gone, "back": left.back}
    assert leftovers.pack(place, [(leftovers.FILES, root, left.store)], facts) == []
    archive = Archive(place)
    told = archive.facts()
    back = told["back"]
    made = dict(tip)
    for path in map(path_of, told["gone"]):
        made.pop(path, None)
    for path, _ in back.items() if isinstance(back, dict) else back:
        made[path_of(path)] = base[path_of(path)]
    return made | {member.path: member.content.read() for member in archive.members()}


@settings(max_examples=150, deadline=None)
@given(tip=TREES, base=TREES, now=TREES)
def test_a_whole_work_tree_comes_back(
    tip: dict[bytes, bytes], base: dict[bytes, bytes], now: dict[bytes, bytes]
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "tree"
        root.mkdir()
        write(root, now)
        left = compare(trees.survey(root), ground(tip, base), layered=False)
        assert restored(left, root, tip, base) == now


@settings(max_examples=150, deadline=None)
@given(tip=TREES, base=TREES, wrote=TREES, whited=st.sets(NAMES), opaque=st.booleans())
def test_an_overlays_upper_layer_comes_back_with_what_shines_through(
    tip: dict[bytes, bytes], base: dict[bytes, bytes], wrote: dict[bytes, bytes], whited: set[bytes], opaque: bool
) -> None:
    """`d` may be opaque: of its lower files nothing shines through."""
    whited -= wrote.keys()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "upper"
        root.mkdir()
        write(root, wrote)
        found = trees.survey(root)
        made = {entry.path: entry for entry in found.entries}
        for path in whited:
            for folder in trees.folders([path]) - made.keys():
                made[folder] = trees.Entry(folder, "folder")
            made[path] = trees.Entry(path, "gone")
        if opaque:
            made[b"d"] = trees.Entry(b"d", "folder", opaque=True)
        found.entries = sorted(made.values(), key=lambda entry: entry.path)
        hidden = {p for p in base if p in whited or (opaque and p.startswith(b"d/"))}
        merged = {path: content for path, content in base.items() if path not in hidden} | wrote
        left = compare(found, ground(tip, base), layered=True)
        assert restored(left, root, tip, base) == merged


@given(sizes=st.lists(st.integers(0, 1000), max_size=30), most=st.integers(0, 5000))
def test_a_full_pin_keeps_the_smallest_files_and_names_the_others(sizes: list[int], most: int) -> None:
    entries = [trees.Entry(b"f%03d" % n, "file", size=size) for n, size in enumerate(sizes)]
    left = within(Left(store=list(entries)), most)
    named = {note.partition(":")[0].encode() for note in left.out}
    assert left.size <= most
    assert named | {entry.path for entry in left.store} == {entry.path for entry in entries}
    kept = max((entry.size for entry in left.store), default=0)
    assert all(entry.size >= kept for entry in entries if entry.path in named)


def test_a_tool_folder_is_left_out_only_where_the_commit_has_nothing(tmp_path: Path) -> None:
    write(tmp_path / "t", {b"node_modules/x": b"1", b"vendored/node_modules/y": b"2"})
    found = trees.survey(tmp_path / "t", leave=lambda path: path == b"node_modules")
    left = compare(found, Ground(), layered=False)
    assert [entry.path for entry in left.store] == [b"vendored/node_modules/y"]
    assert left.out == ["node_modules: is left out by the setting retention.leave"]
    shutil.rmtree(tmp_path / "t")


@given(status=st.sampled_from(["pending", "running"]), age=st.floats(0, 1e6))
def test_what_may_go_on_never_expires(status: str, age: float) -> None:
    assert not expired(status, age, {"completed": 0, "failed": 0, "cancelled": 0, "no_order": 0})


@given(status=st.sampled_from([*sorted(FINISHED), None]), age=st.floats(0, 100), days=st.floats(0, 100))
def test_what_is_over_expires_after_its_days(status: str | None, age: float, days: float) -> None:
    policy = {"completed": days, "failed": days, "cancelled": days, "no_order": days}
    assert expired(status, age, policy) == (age > days)
