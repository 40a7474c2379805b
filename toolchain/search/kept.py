"""What a search has found so far, as files: one that was killed, or is repeated, goes on there.

A file's name is a digest of all that its content depends on: the candidate, every input's bytes,
the versions of the tools, and Slipway's own source. So nothing outdated is ever found.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from toolchain.atomic import write_json
from toolchain.imports import imported_files

PACKAGE = Path(__file__).parents[1]
LOADED = ("schemes", "observers", "backends", "devices")  # by name, when they are needed


class Kept:
    """Results in a folder. base: digest of what all candidates depend on."""

    def __init__(self, folder: Path, base: str) -> None:
        self._folder = folder
        self._base = base

    def get(self, about: Any) -> dict[str, Any] | None:
        """What was kept about it, `about` being JSON."""
        path = self._path(about)
        if not path.exists():
            return None
        found: dict[str, Any] = json.loads(path.read_bytes())
        return found

    def put(self, about: Any, result: Mapping[str, Any]) -> None:
        write_json(self._path(about), dict(result))

    def _path(self, about: Any) -> Path:
        text = json.dumps(about, sort_keys=True)
        name = hashlib.sha256(f"{self._base}\n{text}".encode()).hexdigest()
        return self._folder / f"{name}.json"


def digest_of(files: Iterable[Path], *words: str) -> str:
    """Of the bytes of all files, in their order, and of words."""
    found = hashlib.sha256()
    for path in files:
        found.update(hashlib.sha256(path.read_bytes()).digest())
    for word in words:
        found.update(hashlib.sha256(word.encode()).digest())
    return found.hexdigest()


def source() -> list[Path]:
    """Slipway's own source that results depend on: what the search imports and may load."""
    todo = [PACKAGE / "steps/search.py"]
    todo += [path for folder in LOADED for path in sorted((PACKAGE / folder).glob("*.py"))]
    found: set[Path] = set()
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            todo += imported_files(path, [PACKAGE.parent])
    return sorted(found)
