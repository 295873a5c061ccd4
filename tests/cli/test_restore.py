"""Unpacking what an agent made: whatever an archive says, nothing outside of the folder is written, followed or made runnable."""

import io
import tarfile
from pathlib import Path

import pytest

from shopfloor.cli.restore import FolderNotEmpty, empty_folder, unpack


def archive(place: Path, *members: tuple[str, str | bytes]) -> Path:
    """Members by name; a text is where a link points to, bytes are a file's content."""
    with tarfile.open(place, "w:gz", errors="surrogateescape") as made:
        for name, what in members:
            info = tarfile.TarInfo(name)
            if isinstance(what, str):
                info.type, info.linkname = tarfile.SYMTYPE, what
                made.addfile(info)
            else:
                info.size, info.mode = len(what), 0o6777
                made.addfile(info, io.BytesIO(what))
    return place


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "mine").write_text("untouched")
    made = tmp_path / "into"
    made.mkdir()
    return made


def untouched(target: Path) -> bool:
    outside = target.parent / "outside"
    return [p.name for p in outside.iterdir()] == ["mine"] and (outside / "mine").read_text() == "untouched"


@pytest.mark.parametrize("name", ["files/../../outside/mine", "/etc/evil", "files/..", "files", "../outside/mine"])
def test_a_name_that_leads_out_is_left_out_and_said(target: Path, tmp_path: Path, name: str) -> None:
    restored, notes = unpack(archive(tmp_path / "a", (name, b"evil"), ("files/good", b"good")), target)
    assert restored == 1
    assert len(notes) == 1
    assert (target / "good").read_bytes() == b"good"
    assert untouched(target)


@pytest.mark.parametrize("where", ["../outside", "/etc", "a/../../outside", "..", "/proc/self/root"])
def test_a_link_out_is_not_made(target: Path, tmp_path: Path, where: str) -> None:
    restored, notes = unpack(archive(tmp_path / "a", ("files/link", where)), target)
    assert restored == 0
    assert "leads out of the folder" in notes[0]
    assert not (target / "link").is_symlink()


def test_a_file_below_a_link_of_the_same_archive_does_not_go_through_it(target: Path, tmp_path: Path) -> None:
    members = (("files/link", "inner"), ("files/link/x", b"evil"), ("files/inner/y", b"good"))
    unpack(archive(tmp_path / "a", *members), target)
    assert (target / "link" / "x").read_bytes() == b"evil"
    assert not (target / "inner" / "x").exists()
    assert not (target / "link").is_symlink()


@pytest.mark.parametrize("part", [".git", ".GIT", ".Git ", "git~1"])
def test_what_a_tool_could_take_for_a_repository_is_called_otherwise(target: Path, tmp_path: Path, part: str) -> None:
    unpack(archive(tmp_path / "a", (f"files/sub/{part}/config", b"[core]")), target)
    assert next(p.name for p in (target / "sub").iterdir()).startswith("dot-git")


def test_no_file_gets_more_rights_than_files_have(target: Path, tmp_path: Path) -> None:
    unpack(archive(tmp_path / "a", ("files/x", b"x")), target)
    assert (target / "x").stat().st_mode & 0o7777 == 0o755


def test_a_folder_that_holds_something_is_not_used(target: Path) -> None:
    (target / "mine").touch()
    with pytest.raises(FolderNotEmpty):
        empty_folder(target)
    with pytest.raises(FolderNotEmpty):
        empty_folder(target / "mine")
