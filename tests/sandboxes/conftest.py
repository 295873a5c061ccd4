"""Every adapter found, each with its own folder, shared by the tests of a module."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shopfloor.kit import plugins
from shopfloor.sandboxes.port import Adapter, Checkout, Isolation
from tests.sandboxes import support
from tests.sandboxes.support import Shop

ADAPTERS = "shopfloor.sandboxes.adapters"


def open_adapter(name: str, root: Path) -> Adapter:
    module = plugins.load(ADAPTERS, name)
    adapter: Adapter = module.create(root, module.Config())
    return adapter


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return support.code(tmp_path_factory.mktemp("code"))


@pytest.fixture(scope="module", params=plugins.names(ADAPTERS))
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Adapter, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    return open_adapter(request.param, folder / "sandboxes"), folder


@pytest.fixture
async def shop(opened: tuple[Adapter, Path], checkout: Checkout) -> AsyncIterator[Shop]:
    """One adapter and code for its sandboxes. Whatever a test did: nothing of its sandboxes is there afterwards."""
    adapter, folder = opened
    support.give(checkout.golden, adapter.owner)
    yield Shop(
        adapter=adapter,
        open_again=lambda: open_adapter(adapter.name, folder / "sandboxes"),
        folder=folder,
        checkout=checkout,
        capabilities=await adapter.capabilities(),
    )
    left = [path.name for path in (folder / "sandboxes").glob("*") if path.name != ".repositories"]
    assert not left, f"{adapter.name} left folders behind"
    assert not support.processes(folder / "sandboxes"), f"{adapter.name} left processes behind"


@pytest.fixture
def isolated(shop: Shop) -> Shop:
    """An adapter that promises isolation; the others are exempt by what they declare."""
    if shop.capabilities.isolation is Isolation.NONE:
        pytest.skip("declares no isolation")
    return shop
