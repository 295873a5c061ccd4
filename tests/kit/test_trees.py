"""Reading a folder that somebody hostile wrote: no byte from elsewhere, no hang, no crash, and every omission named."""

import os
import random
import socket
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from shopfloor.kit import trees

SECRET = b"a secret of the host, nobody's business"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "workspace"
    made.mkdir()
    (made / "plain.txt").write_bytes(b"mine")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(SECRET)
    return made


def packed(root: Path, place: Path) -> tuple[dict[bytes, tarfile.TarInfo], dict[bytes, bytes], list[str]]:
    """Everything that gets into an archive of the folder, and what is said of the rest."""
    found = trees.survey(root)
    files = {entry.path for entry in found.files()}
    taken = [e for e in found.entries if e.kind != "gone" and (e.kind != "file" or e.path in files)]
    with trees.Tarball(place) as archive:
        archive.add(root, taken, "files")
    members, contents = {}, {}
    with tarfile.open(place, encoding="utf-8", errors="surrogateescape") as held:
        for info in held:
            path = os.fsencode(info.name).removeprefix(b"files/")
            members[path] = info
            if info.isfile() and (content := held.extractfile(info)):
                contents[path] = content.read()
    return members, contents, [*found.told(), *archive.notes]


def _absolute_link(root: Path) -> None:
    (root / "bad").symlink_to(root.parent / "outside" / "secret")


def _folder_link(root: Path) -> None:
    (root / "bad").symlink_to("../outside")


def _loop(root: Path) -> None:
    (root / "bad").symlink_to("bad")


def _proc_link(root: Path) -> None:
    (root / "bad").symlink_to("/proc/self/root")


LINKS: dict[str, Callable[[Path], None]] = {
    "absolute": _absolute_link,
    "to a folder outside": _folder_link,
    "to itself": _loop,
    "into /proc": _proc_link,
}


@pytest.mark.parametrize("trap", LINKS.values(), ids=LINKS)
def test_a_link_is_kept_as_a_link_and_never_followed(root: Path, tmp_path: Path, trap: Callable[[Path], None]) -> None:
    trap(root)
    members, contents, _ = packed(root, tmp_path / "a.tar.gz")
    assert members[b"bad"].issym()
    assert contents == {b"plain.txt": b"mine"}


def _pipe(root: Path) -> None:
    os.mkfifo(root / "bad")


def _socket(root: Path) -> None:
    here = os.getcwd()
    os.chdir(root)  # the name of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("bad")
    finally:
        os.chdir(here)


def _device(root: Path) -> None:
    os.mknod(root / "bad", 0o20666, os.makedev(1, 5))


def _hard_link(root: Path) -> None:
    os.link(root.parent / "outside" / "secret", root / "bad")


ODD: dict[str, tuple[Callable[[Path], None], str]] = {
    "pipe": (_pipe, "is a pipe"),
    "socket": (_socket, "is a socket"),
    "device": (_device, "is a device"),
    "hard link to a file outside": (_hard_link, "has another name outside"),
}


@pytest.mark.parametrize(("trap", "said"), ODD.values(), ids=ODD)
def test_what_is_no_file_of_its_own_is_left_out_and_named(
    root: Path, tmp_path: Path, trap: Callable[[Path], None], said: str
) -> None:
    try:
        trap(root)
    except PermissionError:
        pytest.skip("making one needs root")
    _, contents, notes = packed(root, tmp_path / "a.tar.gz")
    assert contents == {b"plain.txt": b"mine"}
    assert any(note.startswith("bad") and said in note for note in notes)


def test_hard_links_within_the_folder_are_kept(root: Path, tmp_path: Path) -> None:
    os.link(root / "plain.txt", root / "again.txt")
    _, contents, notes = packed(root, tmp_path / "a.tar.gz")
    assert contents == {b"plain.txt": b"mine", b"again.txt": b"mine"}
    assert notes == []


def test_any_name_is_kept_byte_by_byte(root: Path, tmp_path: Path) -> None:
    names = [b"line\nbreak", b"not \xff\xfe utf-8", "größe 😀".encode(), b"-rf", b"\x1b[31mred", b" ", b"x" * 255]
    for name in names:
        with open(os.path.join(os.fsencode(root), name), "wb") as file:
            file.write(b"named " + name)
    _, contents, _ = packed(root, tmp_path / "a.tar.gz")
    assert {name: contents[name] for name in names} == {name: b"named " + name for name in names}


def test_what_its_owner_closed_to_itself_is_read_all_the_same(root: Path, tmp_path: Path) -> None:
    (root / "closed").mkdir()
    (root / "closed" / "file").write_bytes(b"hidden")
    (root / "closed" / "file").chmod(0)
    (root / "closed").chmod(0)
    _, contents, _ = packed(root, tmp_path / "a.tar.gz")
    assert contents[b"closed/file"] == b"hidden"


def test_a_root_that_is_a_link_is_not_entered(root: Path) -> None:
    (root / "link").symlink_to("../outside")
    found = trees.survey(root / "link")
    assert found.entries == []
    assert "cannot be read" in found.notes[0]


@pytest.mark.parametrize("path", [b"../outside/secret", b"/etc/passwd", b"link/secret", b"a//b", b"./plain.txt", b""])
def test_no_path_leads_out(root: Path, path: bytes) -> None:
    (root / "link").symlink_to("../outside")
    assert trees.read(root, path, 100) == b""


def test_a_pipe_is_not_waited_for(root: Path) -> None:
    os.mkfifo(root / "pipe")
    assert trees.read(root, b"pipe", 100) == b""


def test_a_huge_sparse_file_costs_no_time_to_look_at(root: Path) -> None:
    with (root / "sparse").open("wb") as file:
        file.truncate(1 << 42)
    entry = next(e for e in trees.survey(root).entries if e.path == b"sparse")
    assert entry.size == 1 << 42


def test_folders_deeper_than_any_program_makes_are_named(root: Path) -> None:
    handle = os.open(root, os.O_RDONLY)
    for _ in range(trees.DEEPEST + 50):
        os.mkdir("d", dir_fd=handle)
        inner = os.open("d", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = inner
    os.close(handle)
    found = trees.survey(root)
    assert any("deeper than" in note for note in found.notes)


def test_a_hundred_thousand_files_are_all_found(root: Path) -> None:
    for folder in range(100):
        (root / str(folder)).mkdir()
        for file in range(1000):
            os.close(os.open(root / str(folder) / str(file), os.O_CREAT | os.O_WRONLY))
    assert sum(1 for _ in trees.survey(root).files()) == 100_001


def test_more_names_than_allowed_are_said(root: Path) -> None:
    for number in range(20):
        (root / str(number)).touch()
    found = trees.survey(root, most=10)
    assert len(found.entries) == 10
    assert "more than 10 names" in found.notes[0]


@pytest.fixture
def restless(root: Path) -> Iterator[threading.Event]:
    """A workspace that somebody goes on changing: files grow, shrink, go, and become links to the host's secret."""
    stop, dice = threading.Event(), random.Random(7)

    def change() -> None:
        while not stop.is_set():
            place = root / f"f{dice.randrange(20)}"
            with suppress(OSError):
                match dice.randrange(3):
                    case 0:
                        place.unlink(missing_ok=True)
                        place.write_bytes(b"x" * dice.randrange(200_000))
                    case 1:
                        os.truncate(place, dice.randrange(1000))
                    case _:
                        place.unlink(missing_ok=True)
                        place.symlink_to("../outside/secret")

    worker = threading.Thread(target=change)
    worker.start()
    yield stop
    stop.set()
    worker.join()


def test_a_folder_that_changes_while_it_is_read_lends_no_byte_from_outside(
    root: Path, tmp_path: Path, restless: threading.Event
) -> None:
    for _ in range(150):
        _, contents, _ = packed(root, tmp_path / "a.tar.gz")
        assert not [path for path, content in contents.items() if b"secret" in content]
    restless.set()


def test_the_same_folder_makes_the_same_archive(root: Path, tmp_path: Path) -> None:
    packed(root, tmp_path / "a.tar.gz")
    packed(root, tmp_path / "b.tar.gz")
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()
