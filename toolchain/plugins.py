"""Folders in which one file is one way of doing a thing: schemes, backends.

The file's name is the name that recipes and targets use; there is no other register.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from types import ModuleType

from toolchain.errors import UserError, nearest


def names(path: Iterable[str]) -> list[str]:
    """The files of a package, given its `__path__`."""
    return sorted(module.name for module in pkgutil.iter_modules(path))


def load(package: str, path: Iterable[str], name: str) -> ModuleType:
    """The module of that name; UserError with the nearest if there is none."""
    if name not in (known := names(path)):
        what = package.rpartition(".")[2].removesuffix("s")
        raise UserError(f"unknown {what} '{name}'", hint=nearest(name, known))
    return importlib.import_module(f"{package}.{name}")
