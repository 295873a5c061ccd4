"""The few fields of a forge's answers that we read. Whatever else is there, or comes with next week's release, is ignored."""

from dataclasses import replace
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shopfloor.forges.adapters._wire import NotAForge
from shopfloor.forges.port import Comment, Issue, Review


class Shape(BaseModel):
    """Lenient: unknown fields are nothing, missing ones have a default where we can live without."""

    model_config = ConfigDict(extra="ignore")


class Person(Shape):
    """Who did it."""

    login: str = ""


class Permissions(Shape):
    """What the token may do."""

    push: bool = False
    admin: bool = False


class Repository(Shape):
    """A repository."""

    full_name: str = ""
    default_branch: str = "main"
    archived: bool = False
    permissions: Permissions | None = None


class Ref(Shape):
    """One end of a change; a deleted fork leaves `repo` empty."""

    ref: str
    sha: str
    repo: Repository | None = None


class Pull(Shape):
    """A pull request."""

    number: int
    title: str = ""
    body: str | None = None
    state: str = "open"
    draft: bool = False
    merged: bool | None = None
    merged_at: datetime | None = None
    closed_at: str | None = None
    merge_commit_sha: str | None = None
    mergeable: bool | None = None
    html_url: str = ""
    node_id: str = ""
    head: Ref
    base: Ref

    @property
    def is_merged(self) -> bool:
        """Lists leave `merged` out."""
        return bool(self.merged) or self.merged_at is not None


class Label(Shape):
    """A label."""

    name: str = ""


class IssueShape(Shape):
    """An issue, or a change where GitHub counts it as one."""

    number: int
    title: str = ""
    body: str | None = None
    state: str = "open"
    html_url: str = ""
    user: Person | None = None
    labels: list[Label | str] = Field(default_factory=list)
    updated_at: datetime | None = None
    pull_request: Any = None

    def plain(self) -> Issue:
        """As the rest of the house sees it."""
        return Issue(
            number=self.number,
            title=self.title,
            body=self.body or "",
            state=self.state,
            url=self.html_url,
            author=self.user.login if self.user else "",
            labels=tuple(label if isinstance(label, str) else label.name for label in self.labels),
            updated_at=self.updated_at,
        )


class CommentShape(Shape):
    """A comment."""

    id: int
    body: str | None = None
    html_url: str = ""
    user: Person | None = None
    created_at: datetime | None = None
    issue_url: str = ""
    pull_request_url: str = ""

    def plain(self, number: int | None = None) -> Comment:
        """As the rest of the house sees it."""
        last = (self.issue_url or self.pull_request_url).rpartition("/")[2]
        number = number if number is not None else int(last) if last.isdigit() else None
        return Comment(
            comment_id=self.id,
            author=self.user.login if self.user else "",
            body=self.body or "",
            url=self.html_url,
            issue_number=number,
            created_at=self.created_at,
        )


class ThreadShape(CommentShape):
    """A comment on a place in a change."""

    path: str = ""
    line: int | None = None
    original_line: int | None = None
    pull_request_review_id: int | None = None
    in_reply_to_id: int | None = None

    def plain(self, number: int | None = None) -> Comment:
        """As the rest of the house sees it."""
        return replace(super().plain(number), path=self.path, line=self.line or self.original_line)


class Happening(Shape):
    """One line of an issue's history, as GitHub (`event`) or Forgejo (`type`) tells it."""

    event: str = ""
    type: str = ""
    body: str | None = None
    label: Label | None = None
    actor: Person | None = None
    user: Person | None = None
    created_at: str | None = None

    @property
    def by(self) -> str:
        """Who did it."""
        return (self.actor or self.user or Person()).login

    def labels(self, name: str) -> bool:
        """Whether this put the label on; Forgejo says `1` for on."""
        put = self.event == "labeled" or (self.type == "label" and self.body == "1")
        return put and self.label is not None and self.label.name == name


VERDICTS = {"APPROVED": "approved", "CHANGES_REQUESTED": "changes_requested", "REQUEST_CHANGES": "changes_requested"}


class ReviewShape(Shape):
    """A review."""

    id: int
    state: str = ""
    body: str | None = None
    commit_id: str | None = None
    user: Person | None = None

    def plain(self) -> Review:
        """As the rest of the house sees it."""
        return Review(
            review_id=self.id,
            author=self.user.login if self.user else "",
            verdict=VERDICTS.get(self.state.upper(), "commented"),
            body=self.body or "",
            commit=self.commit_id or "",
        )


def read[S: Shape](shape: type[S], body: Any, what: str) -> S:
    """The answer in our shape; raises NotAForge when even the few fields we need are not there."""
    try:
        return shape.model_validate(body)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise NotAForge(f"{what}: the answer lacks {where or 'what we need'}") from None
