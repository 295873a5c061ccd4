"""What a work tree holds, from an archive of it or from a commit, to be compared."""

import io
import subprocess
import tarfile
from pathlib import Path

from tests.support.platform import git


def tree_in(archive: bytes) -> dict[str, tuple[str, bytes]]:
    """Path -> mode and content of what the sandbox saw, as git can hold it."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as held:
        for info in held:
            name = info.name.removeprefix("./")
            if info.issym():
                found[name] = ("120000", info.linkname.encode())
            elif info.isfile() and (content := held.extractfile(info)):
                found[name] = ("100755" if info.mode & 0o100 else "100644", content.read())
    return found


def tree_of(store: Path, commit: str) -> dict[str, tuple[str, bytes]]:
    """Path -> mode and content of what a commit holds."""
    found = {}
    for line in filter(None, git("ls-tree", "-r", "-z", commit, cwd=store).split("\0")):
        facts, _, path = line.partition("\t")
        mode, _, blob = facts.split(" ")
        content = subprocess.run(["git", "cat-file", "blob", blob], cwd=store, check=True, capture_output=True).stdout
        found[path] = (mode, content)
    return found
