"""House rules that no linter knows: files to 400 lines, functions to 40, a docstring on every public thing of src/shopfloor."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

FILE, FUNCTION = 400, 40
ROOT = Path(__file__).resolve().parent.parent


def offences(path: Path) -> Iterator[str]:
    text = path.read_text()
    here = path.relative_to(ROOT)
    if (lines := text.count("\n")) > FILE:
        yield f"{here}: {lines} lines; a file has at most {FILE}"
    tree = ast.parse(text)
    documented = here.parts[0] == "src" and "versions" not in here.parts
    if documented and here.name != "__init__.py" and not ast.get_docstring(tree):
        yield f"{here}: say in a module docstring what it is for"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION and here.parts[0] == "src" and "versions" not in here.parts:
                yield f"{here}:{node.lineno}: {node.name} has {length} lines; a function has at most {FUNCTION}"
    if documented:
        yield from undocumented(tree, here)


def undocumented(tree: ast.AST, here: Path) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            if not ast.get_docstring(node):
                yield f"{here}:{node.lineno}: {node.name} has no docstring"
            if isinstance(node, ast.ClassDef):
                yield from undocumented(node, here)


def main() -> None:
    folders = ("src", "tests", "bench", "tools")
    found = [o for f in folders for p in sorted((ROOT / f).rglob("*.py")) for o in offences(p)]
    print("\n".join(found) or "sizes and docstrings: fine")
    sys.exit(bool(found))


main()
