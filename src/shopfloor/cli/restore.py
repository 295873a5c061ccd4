"""Writing what was kept where the user wants it. It was made by an agent: nothing of it may reach beyond that place or be run."""

import re
import subprocess
import tarfile
from pathlib import Path, PurePosixPath
from typing import Any

from shopfloor.cli.exits import NotARepository
from shopfloor.forges.rules import escapes, looks_like_git
from shopfloor.kit.errors import Conflict, Malformed
from shopfloor.kit.trees import shown

MANIFEST = "manifest.json"


class FolderNotEmpty(Conflict):
    """The folder holds something already."""

    hint = "Name a new or an empty folder; nothing was written."


class BranchNotMade(Conflict):
    """git could not make the branch."""


class BadBranch(Malformed):
    """That is no name for a branch."""


def empty_folder(folder: Path) -> None:
    """Make the folder, or find it empty; raises FolderNotEmpty."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise FolderNotEmpty(f"{folder} is not empty")
    except (FileExistsError, NotADirectoryError):
        raise FolderNotEmpty(f"{folder} is a file") from None


def unpack(archive: Path, folder: Path) -> tuple[int, list[str]]:
    """Write an archive's files into an empty folder; answers how many, and what was left out. Links come last, so none is followed."""
    restored, notes, links = 0, [], []
    with tarfile.open(archive, "r:gz", encoding="utf-8", errors="surrogateescape") as held:
        for info in held:
            place = folder / "shopfloor-manifest.json" if info.name == MANIFEST else _place(folder, info.name)
            if place is None:
                notes.append(f"{shown(info.name.encode(errors='surrogateescape'))}: its name leads out of the folder")
                continue
            try:
                if info.issym():
                    links.append((info, place))
                    continue
                restored += _write(held, info, place)
            except OSError as error:
                notes.append(f"{shown(info.name.encode(errors='surrogateescape'))}: {error.strerror}")
    for info, place in links:
        if note := _link(info, place, folder):
            notes.append(note)
        else:
            restored += 1
    return restored, notes


def _place(folder: Path, name: str) -> Path | None:
    """Where a member goes; None when its name is not one of ours. What a tool could take for a repository is called otherwise."""
    parts = PurePosixPath(name).parts
    if len(parts) < 2 or name.startswith("/") or ".." in parts or "\0" in name:
        return None
    inner = [
        ("dot-git" if part == ".git" else f"dot-git-{part}") if looks_like_git(part) else part for part in parts[1:]
    ]
    return folder.joinpath(*(["dot-git"] if parts[0] == "git" else []), *inner)


def _write(held: tarfile.TarFile, info: tarfile.TarInfo, place: Path) -> int:
    if info.isdir():
        place.mkdir(parents=True, exist_ok=True)
        return 0
    content = held.extractfile(info)
    if content is None:
        return 0
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("xb") as file:
        while chunk := content.read(1 << 20):
            file.write(chunk)
    place.chmod(0o755 if info.mode & 0o100 else 0o644)
    return int(info.name != MANIFEST)


def _link(info: tarfile.TarInfo, place: Path, folder: Path) -> str:
    inside = str(place.relative_to(folder))
    text = f"{shown(inside.encode(errors='surrogateescape'))}: a link to {shown(info.linkname.encode(errors='surrogateescape'))}"
    if escapes(inside, info.linkname):
        return f"{text}, which leads out of the folder"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(info.linkname)
    except OSError as error:
        return f"{text}: {error.strerror}"
    return ""


def fetch_branch(repository: Path, bundle: Path, branch: str) -> list[str]:
    """Make the branch in the user's repository, with `-N` behind the name for other commits that were kept; answers the branches."""
    if not repository.is_dir() or _git(repository, "rev-parse", "--git-dir").returncode:
        raise NotARepository(f"{repository} is not a git repository", hint="Name yours with --repository.")
    if _git(repository, "check-ref-format", "--branch", branch).returncode:
        raise BadBranch(f"{branch!r} is no name for a branch", hint="Such as recovered/my-work.")
    if not _git(repository, "rev-parse", "--verify", "--quiet", f"refs/heads/{branch}").returncode:
        raise BranchNotMade(f"the branch {branch} exists already", hint="Choose another name; nothing was changed.")
    listed = _git(repository, "bundle", "list-heads", str(bundle)).stdout
    names = re.findall(r"^[0-9a-f]+ refs/heads/recovered(-\d+)?$", listed, re.MULTILINE)
    specs = [f"refs/heads/recovered{tail}:refs/heads/{branch}{tail}" for tail in names]
    done = _git(
        repository, "fetch", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", str(bundle), *specs
    )
    if done.returncode:
        missing = "prerequisite" in done.stderr
        hint = (
            "This repository lacks the commit that the work began at: fetch from its origin first." if missing else ""
        )
        raise BranchNotMade(f"git: {done.stderr.strip()[-500:]}", hint=hint or "Nothing was changed.")
    return [f"{branch}{tail}" for tail in names]


def _git(repository: Path, *arguments: str) -> Any:
    """Run git in the user's own repository; its hooks do not run for what we ask."""
    command = ["git", "-C", str(repository), "-c", "fetch.fsckObjects=true", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", check=False, stdin=subprocess.DEVNULL
    )
