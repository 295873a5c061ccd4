"""Static embeddings: a text is the mean of its words' vectors. Needs the extra `embeddings`; no torch, no GPU."""

import os
from pathlib import Path
from threading import Lock

import numpy as np
from model2vec import StaticModel
from numpy.typing import NDArray

from shopfloor.board.port import DuplicateModelUnusable, Texts

FIRST_ROWS = 64


class StaticVectors:
    """A static model. May be used by several threads."""

    def __init__(self, model: StaticModel) -> None:
        self.model = model
        self.dimensions = int(model.dim)
        self._lock = Lock()

    def texts(self) -> Texts:
        """Room for the texts of one project, empty."""
        return Vectors(self)

    def vector(self, text: str) -> NDArray[np.float32]:
        """Of length 1; all zeros for a text of which the model knows nothing."""
        with self._lock:  # tokenizers before 0.23 do not let two encode at once
            found: NDArray[np.float32] = self.model.encode([text])[0].astype(np.float32)
        return found / (np.linalg.norm(found) or np.float32(1))


class Vectors:
    """One text of every ticket: a row each, without gaps."""

    def __init__(self, model: StaticVectors) -> None:
        self.model = model
        self.keys: list[str] = []
        self.rows: dict[str, int] = {}
        self.matrix = np.zeros((FIRST_ROWS, model.dimensions), dtype=np.float32)

    def put(self, key: str, text: str) -> None:
        """Take in, or replace, a ticket's text."""
        if key not in self.rows:
            self.rows[key] = len(self.keys)
            self.keys.append(key)
        if len(self.keys) > len(self.matrix):
            self.matrix = np.concatenate([self.matrix, np.zeros_like(self.matrix)])
        self.matrix[self.rows[key]] = self.model.vector(text)

    def drop(self, key: str) -> None:
        """Forget a ticket; the last row takes its place."""
        if (row := self.rows.pop(key, None)) is None:
            return
        last = self.keys.pop()
        if last != key:
            self.keys[row], self.rows[last] = last, row
            self.matrix[row] = self.matrix[len(self.keys)]

    def scores(self, text: str) -> dict[str, float]:
        """Ticket -> cosine with a text, -1 to 1."""
        cosines = self.matrix[: len(self.keys)] @ self.model.vector(text)
        return dict(zip(self.keys, cosines.tolist(), strict=True))


def create(name: str) -> StaticVectors:
    """Load a model from a folder, or by its name on the hub, which is asked only for what it has not given yet."""
    # Threads of the tokenizer would gain nothing on single titles, and complain in every process that is forked later.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    place = Path(name).expanduser()
    if name.startswith((".", "/", "~")) and not place.is_dir():
        raise DuplicateModelUnusable(f"duplicate_model: there is no folder {str(place)!r}")
    try:
        made = StaticVectors(StaticModel.from_pretrained(place if place.is_dir() else name, force_download=False))
        made.vector("Does it work?")
    except Exception as error:  # files that others wrote, and a hub: each has errors of its own
        said = " ".join(str(error).split())[:500]
        raise DuplicateModelUnusable(f"duplicate_model {name!r} cannot be loaded: {said}") from error
    return made
