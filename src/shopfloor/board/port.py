"""What tells how alike texts are: by their letters (`rules/likeness.py`), or by their sense (a model in adapters/)."""

from typing import Protocol

from shopfloor.kit.errors import Unavailable


class DuplicateModelUnusable(Unavailable):
    """The model that tells duplicates cannot be used."""

    hint = "Correct [board] duplicate_model, or leave it empty; force_create=true makes a ticket without asking it."


class Texts(Protocol):
    """One text of every ticket of a project."""

    def put(self, key: str, text: str) -> None:
        """Take in, or replace, a ticket's text."""

    def drop(self, key: str) -> None:
        """Forget a ticket."""

    def scores(self, text: str) -> dict[str, float]:
        """Ticket -> how alike its text is, at most 1; those that are far from it may be left out."""
        ...


class Model(Protocol):
    """A loaded model. Each module in adapters/ has `create(name)`, which raises DuplicateModelUnusable."""

    dimensions: int
    """How many numbers stand for a text."""

    def texts(self) -> Texts:
        """Room for the texts of one project, empty."""
        ...
