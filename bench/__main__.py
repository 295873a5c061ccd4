"""`python -m bench [NAME…]`: run every benchmark, or the named ones, one after the other."""

import importlib
import pkgutil
import sys
import time

import bench


def main() -> None:
    names = sys.argv[1:] or sorted(m.name for m in pkgutil.iter_modules(bench.__path__) if not m.name.startswith("_"))
    for name in names:
        began = time.monotonic()
        print(f"\n== {name} ==", flush=True)
        importlib.import_module(f"bench.{name}").main()
        print(f"({time.monotonic() - began:.0f} s)", flush=True)


main()
