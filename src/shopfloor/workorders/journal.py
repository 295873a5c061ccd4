"""The log lines of each work order in a file of its own, below a folder of the day (AWX-12)."""

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from shopfloor.kit.clock import now

ORDER_ID = re.compile(r"[a-z0-9-]{1,40}")


class Journal:
    """Writes what is logged about a work order to `<root>/<day>/<work order>.jsonl`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, entry: Mapping[str, Any]) -> None:
        """Take one log entry; those that name no work order are not for us."""
        order_id = entry.get("agent_work_order_id")
        if not isinstance(order_id, str) or not ORDER_ID.fullmatch(order_id):
            return
        day = self.root / now().strftime("%Y-%m-%d")
        line = orjson.dumps(dict(entry), default=str) + b"\n"
        with contextlib.suppress(OSError):  # a log that cannot be written must not stop the work it tells of
            day.mkdir(parents=True, exist_ok=True)
            with (day / f"{order_id}.jsonl").open("ab") as file:
                file.write(line)
