"""What the user named as the repository: a folder of this machine made absolute and looked at, or an address left as it is."""

import re
import subprocess
from pathlib import Path

from shopfloor.cli.exits import NotARepository
from shopfloor.cli.render import note

ADDRESS = re.compile(r"^[a-z][a-z0-9+.-]*://|^[\w.-]+@[\w.-]+:", re.IGNORECASE)
SHORTHAND = re.compile(r"^[A-Za-z0-9-]+/[A-Za-z0-9_.-]+$")
"""owner/name on GitHub."""


def located(text: str) -> str:
    """The repository for the server; raises NotARepository."""
    if ADDRESS.match(text) and not text.startswith("file://"):
        return text
    place = Path(text.removeprefix("file://")).expanduser()
    if not place.exists() and SHORTHAND.match(text):
        return text
    if not place.exists():
        raise NotARepository(
            f"{text} does not exist", hint="Give a folder with a git repository, or an address such as https://…"
        )
    if not place.is_dir():
        raise NotARepository(f"{text} is not a folder", hint="Give the folder of a git repository.")
    return str(_looked_at(place.resolve()))


def _looked_at(place: Path) -> Path:
    bare = _git(place, "rev-parse", "--is-bare-repository")
    if bare is None:
        raise NotARepository(
            f"{place} is not a git repository", hint="Make it one: git init && git add -A && git commit -m start"
        )
    if _git(place, "rev-parse", "--verify", "--quiet", "HEAD") is None:
        raise NotARepository(f"{place} has no commit yet", hint="Commit something first: git add -A && git commit")
    if bare == "true":
        return Path(_git(place, "rev-parse", "--absolute-git-dir") or place)
    if _git(place, "status", "--porcelain", "--untracked-files=no"):
        note("note: changes that are not committed are not seen by the agent")
    return Path(_git(place, "rev-parse", "--show-toplevel") or place)


def _git(place: Path, *arguments: str) -> str | None:
    """What git answers, None when it fails. The user's own repository: its settings may apply, its hooks do not run."""
    try:
        done = subprocess.run(
            ["git", "-C", str(place), *arguments], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        raise NotARepository("git is not installed", hint="Install git; 'shopfloor doctor' looks further.") from None
    return done.stdout.strip() if done.returncode == 0 else None
