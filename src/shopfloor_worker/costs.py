"""What conversations have cost so far, kept in the agent's home: programs tell totals, the platform counts deltas."""

import contextlib
import json
import os


class Costs:
    """The last cumulative cost of each conversation."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._known: dict[str, float] = {}
        with contextlib.suppress(OSError, ValueError), open(path, encoding="utf-8") as file:
            self._known = json.load(file)

    def before(self, session: str) -> float:
        """What was already counted."""
        return float(self._known.get(session, 0.0))

    def note(self, session: str, total: float) -> None:
        """Now this much is."""
        self._known[session] = total
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            with open(self._path + ".part", "w", encoding="utf-8") as file:
                json.dump(self._known, file)
            os.replace(self._path + ".part", self._path)
