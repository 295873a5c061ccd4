"""A desk on each database, for what is asked over HTTP; a ground, for what is done to repositories."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shopfloor.kit.db import Database
from tests.board import desk as desks
from tests.board.desk import Desk
from tests.board.grounds import Ground
from tests.support.platform import folder


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[Desk]:
    with folder() as place:
        async with desks.desk(database_url, Path(place)) as made:
            await made.project()
            yield made


@pytest.fixture
async def ground(database: Database, tmp_path: Path) -> Ground:
    made = Ground(database, tmp_path)
    await made.project()
    return made
