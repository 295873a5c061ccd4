"""Git in the sandbox. The repository may be hostile to us: no hooks, no monitors, no signing, no filters that can stop a commit."""

import contextlib
import os
import subprocess
import threading
import time
from typing import Any, Callable, Optional

GUARD = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.untrackedCache": "false",
    "commit.gpgSign": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "safe.directory": "*",
    "core.quotePath": "false",
    "protocol.ext.allow": "never",
    "advice.addEmbeddedRepo": "false",
}
ACTIONS = {"A": "created", "D": "deleted"}


class GitFailed(Exception):
    """A git command did not work."""


class Repo:
    """The work tree with the job's branch."""

    def __init__(self, job: "dict[str, Any]") -> None:
        self.folder, self.branch, self.base = job["workspace"], job["branch"], job["base_commit"]
        author = job.get("author") or {}
        name, email = author.get("name") or "Shopfloor", author.get("email") or "agent@shopfloor.invalid"
        who = {
            f"GIT_{role}_{what}": v
            for role in ("AUTHOR", "COMMITTER")
            for what, v in (("NAME", name), ("EMAIL", email))
        }
        kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
        self._env = {**kept, "HOME": job["home"], "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C", **who}

    @property
    def ref(self) -> str:
        """The full name of the branch."""
        return f"refs/heads/{self.branch}"

    def git(self, *arguments: str, data: bytes = b"", ok: "tuple[int, ...]" = (0,)) -> str:
        """Run git in the work tree; raises GitFailed."""
        guard = [part for key, value in GUARD.items() for part in ("-c", f"{key}={value}")]
        try:
            done = subprocess.run(
                ["git", *guard, *arguments],
                check=False,
                cwd=self.folder,
                env=self._env,
                input=data,
                capture_output=True,
                timeout=600,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise GitFailed(f"git {arguments[0]}: {error}") from error
        if done.returncode not in ok:
            detail = done.stderr.decode("utf-8", "replace").strip()[-500:]
            raise GitFailed(f"git {arguments[0]}: {detail or done.returncode}")
        return done.stdout.decode("utf-8", "surrogateescape")

    def connect(self, url: str) -> None:
        """Let `origin` be where the agent may fetch and push itself."""
        self.git("config", "remote.origin.url", url)
        self.git("config", "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*")

    def restore(self, bundle: str) -> None:
        """Bring back what an earlier attempt committed."""
        self.git("fetch", "--quiet", "--no-tags", bundle, f"+{self.ref}:refs/shopfloor/resume")
        self.git("checkout", "--quiet", "--force", "-B", self.branch, "refs/shopfloor/resume")
        self.git("update-ref", "-d", "refs/shopfloor/resume")

    def head(self) -> str:
        """The commit the branch points to; the base when the branch has gone."""
        return self._commit(self.ref) or self.base

    def commit(self, message: str, *, empty: bool) -> Optional[str]:
        """Commit everything in the work tree to the branch, whatever the agent did to HEAD; None when there is nothing."""
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self.folder, ".git", "index.lock"))
        self._add()
        tree = self.git("write-tree").strip()
        branch, head = self._commit(self.ref) or self.base, self._commit("HEAD")
        parents = [branch]
        if head and head != branch:
            if self._contains(head, branch):
                parents = [head]
            elif not self._contains(branch, head):
                parents = [branch, head]
            elif tree == self._tree(head):  # it only looked at an older commit
                self.git("symbolic-ref", "HEAD", self.ref)
                self.git("reset", "--quiet", "--hard", branch)
                tree = self._tree(branch)
        if not empty and parents == [branch] and tree == self._tree(branch):
            return None
        arguments = [part for parent in parents for part in ("-p", parent)]
        sha = self.git("commit-tree", tree, *arguments, data=message.encode("utf-8", "replace")).strip()
        self.git("update-ref", self.ref, sha)
        self.git("symbolic-ref", "HEAD", self.ref)
        return sha

    def changed(self, before: str, after: str) -> "list[dict[str, str]]":
        """The files that differ between two commits."""
        fields = self.git("diff-tree", "-r", "-z", "--no-renames", "--name-status", before, after).split("\0")
        pairs = zip(fields[0::2], fields[1::2])
        return [{"path": printable(path), "action": ACTIONS.get(kind, "modified")} for kind, path in pairs]

    def bundle(self, place: str) -> bool:
        """Write base..branch to a file; False when the branch has no commit of its own."""
        if not self.git("rev-list", "--max-count=1", f"{self.base}..{self.ref}").strip():
            return False
        self.git("bundle", "create", "--quiet", place, f"{self.base}..{self.ref}")
        return True

    def status(self) -> "dict[str, str]":
        """Paths that differ from the last commit, with git's two letters."""
        told = self.git("--no-optional-locks", "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all")
        return {line[3:]: line[:2] for line in told.split("\0") if len(line) > 3}

    def _add(self) -> None:
        try:
            self.git("add", "--all")
        except GitFailed:  # an unreadable file or a planted filter: do without filters, take what can be taken
            attributes = os.path.join(self.folder, ".git", "info", "attributes")
            with contextlib.suppress(OSError):
                os.makedirs(os.path.dirname(attributes), exist_ok=True)
                with open(attributes, "w", encoding="utf-8") as file:
                    file.write("* !filter\n")
            self.git("add", "--all", "--ignore-errors", ok=(0, 1, 128))

    def _commit(self, name: str) -> Optional[str]:
        found = self.git("rev-parse", "--quiet", "--verify", f"{name}^{{commit}}", ok=(0, 1, 128)).strip()
        return found or None

    def _tree(self, commit: str) -> str:
        return self.git("rev-parse", f"{commit}^{{tree}}").strip()

    def _contains(self, commit: str, ancestor: str) -> bool:
        try:
            self.git("merge-base", "--is-ancestor", ancestor, commit)
        except GitFailed:
            return False
        return True


class Files:
    """Notices which files the agent changed, by comparing git's status with what was known."""

    def __init__(self, repo: Repo, tell: "Callable[[str, str], None]") -> None:
        self._repo, self._tell = repo, tell
        self._known: dict[str, Any] = {}
        self._lock, self._wanted = threading.Lock(), threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def nudge(self) -> None:
        """Something may have changed: look soon."""
        self._wanted.set()

    def told(self, path: str) -> str:
        """The agent itself named a changed file: remember it, so that it is not told twice. Answers its path in the work tree."""
        inside = os.path.relpath(os.path.join(self._repo.folder, path), self._repo.folder)
        with self._lock:
            self._known[inside] = self._look(inside)
        return inside

    def scan(self) -> None:
        """Look now and tell what is new."""
        with self._lock, contextlib.suppress(GitFailed):
            status = self._repo.status()
            for path in [*status, *(known for known in self._known if known not in status)]:
                now, before = self._look(path), self._known.get(path, "never")
                if path in status and now == before:
                    continue
                if path not in status and not (now is None and before is not None):
                    continue
                self._known[path] = now
                self._tell(self._kind(status.get(path, " D"), now, before), printable(path))

    def _kind(self, letters: str, now: Any, before: Any) -> str:
        if now is None:
            return "file.deleted"
        new = letters == "??" or "A" in letters
        return "file.created" if before in ("never", None) and new else "file.modified"

    def _look(self, path: str) -> Any:
        try:
            found = os.lstat(os.path.join(self._repo.folder, path))
        except OSError:
            return None
        return (found.st_mtime_ns, found.st_size)

    def _watch(self) -> None:
        while self._wanted.wait():
            self._wanted.clear()
            started = time.monotonic()
            self.scan()
            time.sleep(max(0.5, 3 * (time.monotonic() - started)))


def printable(path: str) -> str:
    """A path as text that JSON can carry."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
