"""A desk on each database."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.board import desk as desks
from tests.board.desk import Desk
from tests.support.platform import folder


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[Desk]:
    with folder() as place:
        async with desks.desk(database_url, Path(place)) as made:
            await made.project()
            yield made
