"""What the tests of this folder start from."""

from tests.support.benches import bench, door, python, pyz

__all__ = ["bench", "door", "python", "pyz"]
