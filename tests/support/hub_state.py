"""What a fake forge remembers, and how it says no."""

import copy
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SPECS = Path(__file__).parent.parent / "forges" / "specs"
GITHUB = SPECS / "github-rest-api-cut.json"
WHEN = "2026-11-21T12:00:00Z"


@dataclass
class Token:
    """What somebody may do."""

    login: str
    rights: dict[str, str] = field(default_factory=dict)
    """Repository -> read, write or admin."""
    expired: bool = False
    api_only: bool = False


@dataclass
class Repo:
    """A repository's side that is not git."""

    path: Path
    archived: bool = False
    private: bool = True
    moved_to: str = ""
    pulls: dict[int, dict[str, Any]] = field(default_factory=dict)
    issues: dict[int, dict[str, Any]] = field(default_factory=dict)
    comments: dict[int, dict[str, Any]] = field(default_factory=dict)
    reviews: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    checks: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    threads: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    """Change -> comments on places in it."""
    history: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    needs_review: bool = False
    """A rule of the base branch: nobody merges without a review."""

    def tip(self, branch: str) -> str | None:
        """Where a branch stands in the real repository."""
        argv = ["git", "rev-parse", "--verify", "-q", f"refs/heads/{branch}"]
        return subprocess.run(argv, cwd=self.path, capture_output=True, text=True, check=False).stdout.strip() or None


class Refusal(Exception):
    """An error answer."""

    def __init__(self, status: int, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status, self.body = (
            status,
            {"message": message, "documentation_url": "https://docs.github.com/rest", **more},
        )


def example(spec: dict[str, Any], method: str, path: str, status: str) -> Any:
    """The document's own example of an answer."""
    content = spec["paths"][path][method]["responses"][status]["content"]["application/json"]
    name = content["examples"]["default"]["$ref"].rsplit("/", 1)[1]
    return copy.deepcopy(spec["components"]["examples"][name]["value"])
