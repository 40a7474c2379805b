"""Versions of the tools that a build works with, as text: an upgrade rebuilds what they made."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata

from toolchain.errors import UserError

PYTHON = ("torch", "torchao", "executorch", "numpy", "safetensors", "scikit-learn")


@cache
def python() -> str:
    """JSON: name and version of Python and of the packages that models and programs come from."""
    return _json({"python": platform.python_version(), **_versions(PYTHON)})


def packages(names: Iterable[str]) -> str:
    """JSON: versions of installed packages that a recipe's model comes from."""
    return _json(_versions(names))


@cache
def compiler(triple: str) -> str:
    """JSON: what the cross compiler of `triple` says of itself; UserError if it does not run."""
    name = f"{triple}-g++"
    try:
        said = subprocess.run([name, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(
            f"the cross compiler '{name}' does not run: {error}",
            hint=f"./scripts/setup installs it; on Debian: apt-get install g++-{triple}",
        ) from None
    return _json({"compiler": said.stdout.splitlines()[0]})


@cache
def programs(names: tuple[str, ...]) -> str:
    """JSON: what programs on PATH say of their version; one that is absent is no error here."""
    said = {}
    for name in names:
        try:
            done = subprocess.run([name, "--version"], capture_output=True, text=True, check=True)
            said[name] = done.stdout.splitlines()[0]
        except (OSError, subprocess.CalledProcessError):
            said[name] = "absent"
    return _json(said)


def _versions(names: Iterable[str]) -> dict[str, str]:
    return {name: metadata.version(name) for name in names}


def _json(value: Mapping[str, str]) -> str:
    return json.dumps(value, indent=1, sort_keys=True) + "\n"
