"""Adapters by file name: a module in a feature's `adapters/` folder IS an adapter and its file name is its name."""

import importlib
import pkgutil
from types import ModuleType

from shopfloor.kit.errors import Misconfigured


class UnknownAdapter(Misconfigured):
    """There is no adapter of that name."""

    status = 422


def names(package: str) -> list[str]:
    """The adapters that exist in `package` (dotted path of an adapters folder), without importing them."""
    folder = importlib.import_module(package)
    return sorted(m.name for m in pkgutil.iter_modules(folder.__path__) if not m.name.startswith("_"))


def load(package: str, name: str) -> ModuleType:
    """Import the adapter `name` of `package`."""
    known = names(package)
    if name not in known:
        raise UnknownAdapter(f"there is no adapter named {name!r}", hint=f"Known here: {', '.join(known)}.")
    return importlib.import_module(f"{package}.{name}")
