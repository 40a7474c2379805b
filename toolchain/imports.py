"""Which files a Python file imports, read from its syntax tree without running it.

The build depends on them: an edited helper rebuilds what used it. SCons' own scanner misses
imports that span lines.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path


def imported_files(source: Path, roots: Sequence[Path]) -> list[Path]:
    """Files that `source` imports directly: below `roots`, beside it, or in its own package.

    A file that cannot be parsed imports none.
    """
    try:
        tree = ast.parse(source.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []  # the step that runs the file reports it, with its line
    absolute = {*roots, source.parent, _above_package(source)}
    found = {
        file
        for name, level in _names(tree)
        for root in ([source.parents[level - 1]] if level else absolute)
        for file in _files(root, name)
    }
    return sorted(found - {source})


def module_files(name: str, first: Path) -> list[Path]:
    """The files of an importable module and its packages, found without importing.

    Searched in the folder `first`, then on `sys.path`.
    """
    for root in (first, *map(Path, sys.path)):
        if found := list(_files(root, name)):
            return found
    return []


def _names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Dotted names that may be modules, and how many dots a relative one begins with."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if base:
                yield base, node.level
            yield from ((f"{base}.{alias.name}".lstrip("."), node.level) for alias in node.names)


def _files(root: Path, name: str) -> Iterator[Path]:
    """The module `name` below `root`, and the packages on the way to it."""
    folder = root
    for part in name.split("."):
        if (folder / f"{part}.py").is_file():
            yield folder / f"{part}.py"
        folder = folder / part
        if not folder.is_dir():
            return
        if (folder / "__init__.py").is_file():
            yield folder / "__init__.py"


def _above_package(source: Path) -> Path:
    """The folder that a file's outermost package stands in."""
    folder = source.parent
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    return folder
