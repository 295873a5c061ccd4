"""One running platform for the journeys that do not harm it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.platform import Platform, folder, platform


@pytest.fixture(scope="module")
def house() -> Iterator[Platform]:
    with platform() as running:
        yield running


@pytest.fixture
def place() -> Iterator[Path]:
    """A short, traversable folder for repositories."""
    with folder() as made:
        yield made
