"""Fixtures of the board's tests."""

from pathlib import Path

import pytest

from shopfloor.kit.db import Database
from tests.board.grounds import Ground


@pytest.fixture
async def ground(database: Database, tmp_path: Path) -> Ground:
    made = Ground(database, tmp_path)
    await made.project()
    return made
